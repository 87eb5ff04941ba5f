//! What a body is cut into, and who takes it.

use std::fmt;

use super::envelope::{self, Envelope};
use crate::event::RawEvent;

/// One part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// One event; JSON in it is valid by RFC 8259 (its depth and its numbers are not limited).
    Event(RawEvent<'a>),
    /// What becomes one dead letter.
    Bad {
        /// The text as it came.
        raw: &'a str,
        /// Why it is no event.
        reason: BadReason,
    },
}

/// Objects up to this are read where they stand; of others the length is wanted first, to reserve memory by it.
pub const READ_IN_PLACE_BYTES_MAX: usize = 32 * 1024;

/// Takes what a body is cut into, in its order.
pub trait Taker<'a> {
    /// Reads the JSON object that `text` begins with, whatever follows it, and returns its length in bytes: so each byte
    /// of it is looked at once. `None`, and nothing taken, if it is to be cut out first: it comes as a piece then.
    ///
    /// # Errors
    /// [`Enough`].
    fn read_object(&mut self, text: &'a str) -> Result<Option<usize>, Enough>;

    /// Takes one piece.
    ///
    /// # Errors
    /// [`Enough`].
    fn take_piece(&mut self, piece: Piece<'a>) -> Result<(), Enough>;
}

/// No more is wanted: what was left is the last piece, or whoever takes them needs or holds no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enough;

/// The pieces of one body on their way, at most as many as allowed and one for the rest.
pub(super) struct Pieces<'a, 't> {
    body: &'a str,
    taker: &'t mut dyn Taker<'a>,
    count: usize,
    events_max: usize,
    has_errors: bool,
}

impl<'a, 't> Pieces<'a, 't> {
    pub(super) fn new(body: &'a str, events_max: usize, taker: &'t mut dyn Taker<'a>) -> Self {
        Self {
            body,
            taker,
            count: 0,
            events_max,
            has_errors: false,
        }
    }

    pub(super) fn body(&self) -> &'a str {
        self.body
    }

    /// Has the object at `from` read where it stands; where it ends.
    ///
    /// `None` if it has to be cut out first. So has every object after an error: what is then read in vain is bounded by
    /// whoever cuts.
    pub(super) fn read_object(&mut self, from: usize) -> Result<Option<usize>, Enough> {
        let rest = self.cut(from, self.body.len());
        let text = self.cut(from, from + rest.floor_char_boundary(READ_IN_PLACE_BYTES_MAX));
        if self.has_errors || self.count >= self.events_max || envelope::may_be_enveloped(text) {
            return Ok(None);
        }
        let length = self.taker.read_object(text)?;
        self.count += usize::from(length.is_some());
        Ok(length.map(|length| from + length))
    }

    /// Adds the JSON value from `from` to `to`.
    pub(super) fn push_value(&mut self, from: usize, to: usize) -> Result<(), Enough> {
        let raw = self.cut(from, to);
        let piece = match envelope::open(raw) {
            _ if !raw.starts_with('{') => Piece::Event(RawEvent::Value(raw)),
            None => Piece::Event(RawEvent::Object(raw)),
            Some(Envelope::Log(inner)) => Piece::Event(RawEvent::Object(inner)),
            Some(Envelope::Metric) => Piece::Bad {
                raw,
                reason: BadReason::Metric,
            },
            Some(Envelope::Trace) => Piece::Bad {
                raw,
                reason: BadReason::Trace,
            },
        };
        self.push(from, piece)
    }

    /// Adds a line of text.
    pub(super) fn push_text(&mut self, from: usize, to: usize) -> Result<(), Enough> {
        let line = self.cut(from, to);
        self.push(from, Piece::Event(RawEvent::Text(line.into())))
    }

    /// Adds what is no event, without the white space after it.
    pub(super) fn push_bad(&mut self, from: usize, to: usize, reason: BadReason) -> Result<(), Enough> {
        self.has_errors = true;
        let raw = self.cut(from, to).trim_ascii_end();
        self.push(from, Piece::Bad { raw, reason })
    }

    fn push(&mut self, from: usize, piece: Piece<'a>) -> Result<(), Enough> {
        if self.count >= self.events_max {
            let raw = self.cut(from, self.body.len()).trim_ascii_end();
            let reason = BadReason::TooManyEvents;
            self.taker.take_piece(Piece::Bad { raw, reason })?;
            return Err(Enough);
        }
        self.count += 1;
        self.taker.take_piece(piece)
    }

    /// All cuts are made beside ASCII, so never inside a character.
    fn cut(&self, from: usize, to: usize) -> &'a str {
        self.body.get(from..to).unwrap_or_default()
    }
}

/// Why a part of a body is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadReason {
    /// One element or object whose end is known, with an error inside.
    MalformedJson,
    /// Text where JSON was announced.
    NotJson,
    /// Everything from a syntax error on, since nothing shows where the next event begins.
    RestAfterError,
    /// Everything beyond the most events that one request may carry.
    TooManyEvents,
    /// A Vector metric of codec `native_json`.
    Metric,
    /// A Vector trace of codec `native_json`.
    Trace,
}

impl BadReason {
    /// A stable name in `snake_case`, for dead letters and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::NotJson => "not_json",
            Self::RestAfterError => "rest_after_error",
            Self::TooManyEvents => "too_many_events",
            Self::Metric => "metric",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for BadReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MalformedJson => "the JSON of this event cannot be read",
            Self::NotJson => "text where JSON was announced",
            Self::RestAfterError => "nothing after this syntax error can be told apart",
            Self::TooManyEvents => "more events than one request may carry; send smaller batches",
            Self::Metric => "a metric: only log events are stored",
            Self::Trace => "a trace: only log events are stored",
        })
    }
}

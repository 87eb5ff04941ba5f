//! What a body is cut into.

use std::fmt;

use super::{
    envelope::{self, Envelope},
    room::{Room, reserve},
};
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

impl Piece<'_> {
    /// Its text as it came.
    pub fn text(&self) -> &str {
        match self {
            Self::Event(raw) => raw.text(),
            Self::Bad { raw, .. } => raw,
        }
    }
}

/// The pieces of one body, at most as many as allowed and one for the rest.
pub(super) struct Pieces<'a, 'r> {
    body: &'a str,
    list: Vec<Piece<'a>>,
    events_max: usize,
    room: &'r mut Room<'r>,
    refused: bool,
}

/// No more pieces are taken: what was left is the last one, or there was no room.
#[derive(Debug)]
pub(super) struct Full;

impl<'a, 'r> Pieces<'a, 'r> {
    pub(super) fn new(body: &'a str, events_max: usize, room: &'r mut Room<'r>) -> Self {
        Self {
            body,
            list: Vec::new(),
            events_max,
            room,
            refused: false,
        }
    }

    pub(super) fn body(&self) -> &'a str {
        self.body
    }

    /// Adds the JSON value from `from` to `to`.
    pub(super) fn push_value(&mut self, from: usize, to: usize) -> Result<(), Full> {
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
    pub(super) fn push_text(&mut self, from: usize, to: usize) -> Result<(), Full> {
        let line = self.cut(from, to);
        self.push(from, Piece::Event(RawEvent::Text(line.into())))
    }

    /// Adds what is no event, without the white space after it.
    pub(super) fn push_bad(&mut self, from: usize, to: usize, reason: BadReason) -> Result<(), Full> {
        let raw = self.cut(from, to).trim_ascii_end();
        self.push(from, Piece::Bad { raw, reason })
    }

    /// All of them; none if there was no room.
    pub(super) fn into_list(self) -> Option<Vec<Piece<'a>>> {
        (!self.refused).then_some(self.list)
    }

    fn push(&mut self, from: usize, piece: Piece<'a>) -> Result<(), Full> {
        if self.list.len() == self.list.capacity() {
            self.grow()?;
        }
        if self.list.len() >= self.events_max {
            let raw = self.cut(from, self.body.len()).trim_ascii_end();
            let reason = BadReason::TooManyEvents;
            self.list.push(Piece::Bad { raw, reason });
            return Err(Full);
        }
        self.list.push(piece);
        Ok(())
    }

    /// Doubles the list; the first capacity is what the body has if its events are of the usual size.
    fn grow(&mut self) -> Result<(), Full> {
        /// Below the size of usual events, so that the list seldom grows.
        const EVENT_BYTES: usize = 256;
        const FIRST_CAPACITY_MAX: usize = 64 * 1024;
        let likely = (self.body.len() / EVENT_BYTES).min(FIRST_CAPACITY_MAX);
        let more = self.list.len().max(likely).min(self.events_max) + 1;
        self.refused = !reserve(&mut self.list, more, self.room);
        if self.refused { Err(Full) } else { Ok(()) }
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

//! One request's bytes become rows: decompress, split, normalise, encode. Pure CPU work, done in the request's own task.
//!
//! Memory is reserved before it is used; what can't be reserved ends the request with 429.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{
    Incoming, Refusal,
    admission::Reservation,
    identity::{Claim, Origin, set_ids},
    kept::{Undecodable, letter_memory},
    patterns::Patterns,
};
use crate::{
    config,
    elasticsearch::{RequestTargets, Targets},
    event::{Arrival, Digest, DigestParts, InvalidAliases, LogEvent, Normaliser, Timestamp, request_digest},
    timescale::{DeadLetter, EncodedRows, Source, WriteRequest},
    wire::{self, BadReason, DecompressError, Piece, Room, SplitError, SplitSettings},
};

/// What an encoded row needs beside the event's own text: lengths and the columns that the service sets.
const ROW_OVERHEAD_BYTES: usize = 160;
/// What its commit needs for each row: its place in the outbox's plan, its outcome.
const ROW_COMMIT_BYTES: usize = 128;
/// How often one event's text is held while it is normalised: unescaped, in `fields`, while that grows.
const EVENT_COPIES: usize = 3;

/// Members of a wrapper object that are larger than this together are noted in the first event only.
const WRAPPER_BYTES_MAX: usize = 4 * 1024;

/// What decoding needs of the configuration; shared by all requests.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) normaliser: Normaliser,
    /// `None` when Elasticsearch is off: events are stored in SQL only.
    pub(super) targets: Option<Targets>,
    pub(super) default_tenant: Arc<str>,
    pub(super) events: config::Events,
    pub(super) body_bytes_max: usize,
    pub(super) dead_letter_bytes_max: usize,
    /// `None` where nobody keeps them: a redriven event is not the first of its kind.
    pub(super) patterns: Option<Patterns>,
}

/// A request ready for its commit.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) request: WriteRequest,
    /// Set if nothing of the body could be read: the answer is 400 once the body is kept.
    pub(super) undecodable: Option<Undecodable>,
}

impl Decoder {
    /// By these settings; `targets` is `None` when events are stored in SQL only.
    pub(super) fn new(
        config: &config::Config,
        targets: Option<Targets>,
        patterns: Option<Patterns>,
    ) -> Result<Self, InvalidAliases> {
        Ok(Self {
            normaliser: Normaliser::new(&config.events)?,
            targets,
            default_tenant: Arc::from(config.events.default_tenant.as_str()),
            events: config.events.clone(),
            body_bytes_max: config.http.body_bytes_max,
            dead_letter_bytes_max: config.database.dead_letter_bytes_max,
            patterns,
        })
    }

    /// Decodes one request.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if the memory that it needs is not free.
    pub(super) fn decode(
        &self,
        incoming: &Incoming,
        reservation: &mut Reservation,
        now: Timestamp,
    ) -> Result<Decoded, Refusal> {
        let origin = Origin {
            digest: self.digest(incoming),
            counts: incoming.idempotency_key.is_some(),
            first_position: 0,
            arrived: now,
            ingested: now,
        };
        match self.decode_from(incoming, &origin, reservation) {
            Err(Refusal::NeverFits { bytes }) => self.keep_what_never_fits(incoming, origin.digest, bytes, reservation),
            result => result,
        }
    }

    /// Decodes a request, or a part of one, whose origin is known.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if the memory that it needs is not free, [`Refusal::NeverFits`] if it never will be.
    pub(super) fn decode_from(
        &self,
        incoming: &Incoming,
        origin: &Origin,
        reservation: &mut Reservation,
    ) -> Result<Decoded, Refusal> {
        let digest = origin.digest;
        let body = match self.decompress(incoming, reservation)? {
            Ok(body) => body,
            Err(undecodable) => return self.keep_undecodable(incoming, digest, undecodable, reservation),
        };
        let content_type = incoming.content_type.as_deref();
        if let Some(binary) = wire::is_binary(content_type, &body) {
            drop(body);
            let undecodable = Undecodable::unread(binary.name(), &binary);
            return self.keep_undecodable(incoming, digest, undecodable, reservation);
        }
        let text = readable(&body, reservation)?;
        let settings = self.split_settings();
        let pieces = match within(reservation, |room| wire::split(&text, content_type, &settings, room))? {
            Ok(pieces) => pieces,
            Err(SplitError::NoRoom) => return Err(Refusal::Busy),
            Err(SplitError::Undecodable(error)) => {
                let undecodable = Undecodable::unread(error.name(), &error);
                return self.keep_undecodable(incoming, digest, undecodable, reservation);
            }
        };
        let (request, held) = self.encode(pieces, &text, incoming, origin, reservation)?;
        drop(text);
        drop(body);
        reservation.shrink_to(incoming.body.len() + held);
        Ok(Decoded {
            request,
            undecodable: None,
        })
    }

    /// The digest of the request's content.
    pub(super) fn digest(&self, incoming: &Incoming) -> Digest {
        request_digest(&DigestParts {
            tenant: incoming.tenant.as_deref().unwrap_or(&self.default_tenant),
            path: &incoming.path,
            content_type: incoming.content_type.as_deref().map(str::as_bytes),
            content_encoding: incoming.content_encoding.as_deref().map(str::as_bytes),
            idempotency_key: incoming.idempotency_key.as_deref(),
            body: &incoming.body,
        })
    }

    /// Undoes the body's compression; holds what it expands to beside it, nothing if it was not compressed.
    fn decompress(
        &self,
        incoming: &Incoming,
        reservation: &mut Reservation,
    ) -> Result<Result<Bytes, Undecodable>, Refusal> {
        let received = reservation.bytes();
        let encoding = incoming.content_encoding.as_deref();
        let result = within(reservation, |room| {
            wire::decompress(incoming.body.clone(), encoding, self.body_bytes_max, room)
        })?;
        let (reason, too_large) = match &result {
            Ok(body) => {
                let is_the_same = body.as_ptr() == incoming.body.as_ptr();
                reservation.shrink_to(received + if is_the_same { 0 } else { body.len() });
                return Ok(result.map_err(|error| Undecodable::unread("", &error)));
            }
            Err(DecompressError::NoRoom) => return Err(Refusal::Busy),
            Err(DecompressError::TooLarge { .. }) => ("body_too_large", true),
            Err(DecompressError::UnknownEncoding(_)) => ("unknown_content_encoding", false),
            Err(DecompressError::Broken { .. }) => ("broken_compression", false),
        };
        reservation.shrink_to(received);
        Ok(result.map_err(|error| Undecodable {
            too_large,
            ..Undecodable::unread(reason, &error)
        }))
    }

    /// Rows and letters of the pieces, and the bytes that they hold until they are committed.
    fn encode(
        &self,
        pieces: Vec<Piece<'_>>,
        text: &str,
        incoming: &Incoming,
        origin: &Origin,
        reservation: &mut Reservation,
    ) -> Result<(WriteRequest, usize), Refusal> {
        let count = pieces.len();
        let lengths = || pieces.iter().map(|piece| piece.text().len());
        let around = text.len().saturating_sub(lengths().sum());
        let scratch = EVENT_COPIES * (lengths().max().unwrap_or_default() + around);
        let base = reservation.bytes() + scratch + count * size_of::<Claim>();
        let expected = text.len() + count * ROW_OVERHEAD_BYTES;
        reserve(reservation, base + EncodedRows::bytes_with(expected, count))?;
        let mut targets = self.targets.as_ref().map(RequestTargets::new);
        let mut arrival = self.arrival(text, incoming, origin);
        let mut rows = EncodedRows::with_capacity(expected, count);
        let mut claims = Vec::with_capacity(count);
        let mut dead_letters = Vec::new();
        let mut letter_bytes = 0;
        for (position, piece) in (origin.first_position..).zip(pieces) {
            if position > origin.first_position {
                // Repeated in every event, a large one would multiply the body.
                let wrapper = arrival.wrapper.take();
                arrival.wrapper = wrapper.filter(|wrapper| wrapper.len() <= WRAPPER_BYTES_MAX);
            }
            // Events without a time stay in the order in which they were sent.
            arrival.at = Timestamp(origin.arrived.0.saturating_add(i64::from(position)));
            let (raw, reason, detail) = match &piece {
                Piece::Event(raw) => match self.normaliser.normalise(raw.clone(), &arrival) {
                    Ok(event) => {
                        claims.push(Claim {
                            own_id: event.own_id,
                            time: event.claimed_time,
                            position,
                        });
                        rows.make_room(&event, |bytes| reserve(reservation, base + letter_bytes + bytes))?;
                        let target = targets
                            .as_mut()
                            .map(|targets| targets.of(&event.tenant, event.timestamp));
                        let pattern = rows.push(&event, origin.ingested, target);
                        if let (Some(patterns), Some(pattern)) = (&self.patterns, pattern) {
                            patterns.note(&event, pattern);
                        }
                        continue;
                    }
                    Err(unusable) => (raw.text(), unusable.name(), unusable.to_string()),
                },
                Piece::Bad { raw, reason } => (*raw, reason.name(), reason.to_string()),
            };
            let kept = match &piece {
                // It may hold many events, which stand nowhere else.
                Piece::Bad {
                    reason: BadReason::TooManyEvents | BadReason::RestAfterError,
                    ..
                } => raw.as_bytes(),
                Piece::Bad { .. } | Piece::Event(_) => self.cut(raw.as_bytes()),
            };
            letter_bytes += letter_memory(kept.len());
            reserve(reservation, base + rows.held_bytes() + letter_bytes)?;
            dead_letters.push(DeadLetter {
                raw: kept.to_vec(),
                ..self.letter(reason, &detail, raw, position)
            });
        }
        let noted = set_ids(&mut rows, &claims, &origin.digest, origin.counts);
        rows.give_back();
        let held = rows.held_bytes() + rows.len() * ROW_COMMIT_BYTES + letter_bytes;
        let request = WriteRequest {
            digest: noted,
            received: u32::try_from(count).unwrap_or(u32::MAX),
            rows,
            dead_letters,
            body: incoming.body.clone(),
            source: self.source(incoming),
        };
        Ok((request, held))
    }

    /// What is known of a request's events from outside of them.
    fn arrival(&self, text: &str, incoming: &Incoming, origin: &Origin) -> Arrival {
        let tenant = incoming.tenant.as_deref().or_else(|| self.normaliser.only_tenant());
        Arrival {
            at: origin.arrived,
            // Copied: one that all requests share, all processors would count up and down for each event.
            tenant: tenant.map(Arc::from),
            wrapper: wire::around(text, incoming.content_type.as_deref(), &self.split_settings()).map(Arc::from),
        }
    }

    fn split_settings(&self) -> SplitSettings<'_> {
        SplitSettings {
            wrappers: &self.events.wrappers,
            events_max: self.events.per_request_max,
        }
    }

    pub(super) fn target(&self, event: &LogEvent<'_>) -> Option<Arc<str>> {
        self.targets
            .as_ref()
            .map(|targets| targets.target(&event.tenant, event.timestamp))
    }

    pub(super) fn source(&self, incoming: &Incoming) -> Arc<Source> {
        Arc::new(Source {
            tenant: incoming
                .tenant
                .clone()
                .unwrap_or_else(|| Arc::clone(&self.default_tenant)),
            address: incoming.address,
            content_type: incoming.content_type.clone(),
            content_encoding: incoming.content_encoding.clone(),
            path: incoming.path.clone(),
        })
    }
}

/// Makes the reservation at least `bytes` large.
pub(super) fn reserve(reservation: &mut Reservation, bytes: usize) -> Result<(), Refusal> {
    if reservation.grow_to(bytes) {
        Ok(())
    } else if bytes > reservation.limit() {
        Err(Refusal::NeverFits { bytes })
    } else {
        Err(Refusal::Busy)
    }
}

/// Lets a step ask for memory beside what is held already; what it was refused ends the request.
fn within<T>(reservation: &mut Reservation, step: impl FnOnce(&mut Room<'_>) -> T) -> Result<T, Refusal> {
    let held = reservation.bytes();
    let mut refusal = None;
    let outcome = step(&mut |bytes| {
        refusal = reserve(reservation, held.saturating_add(bytes)).err();
        refusal.is_none()
    });
    refusal.map_or(Ok(outcome), Err)
}

/// The body as text; what is no UTF-8 becomes replacement characters, in a copy for which memory is reserved.
fn readable<'b>(body: &'b [u8], reservation: &mut Reservation) -> Result<Cow<'b, str>, Refusal> {
    if let Ok(text) = str::from_utf8(body) {
        return Ok(Cow::Borrowed(text));
    }
    let replaced = |invalid: &[u8]| if invalid.is_empty() { "" } else { "\u{fffd}" };
    let bytes = body
        .utf8_chunks()
        .map(|chunk| chunk.valid().len() + replaced(chunk.invalid()).len())
        .sum();
    reserve(reservation, reservation.bytes().saturating_add(bytes))?;
    let mut text = String::with_capacity(bytes);
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(replaced(chunk.invalid()));
    }
    Ok(Cow::Owned(text))
}

//! One request's bytes become rows: decompress, find out how events stand in them, hand them to `encode`. Pure CPU work,
//! done in the request's own task.
//!
//! Memory is reserved before it is used; what can't be reserved ends the request with 429.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{
    Incoming, Refusal, admission::Reservation, encode::Encoding, identity::Origin, kept::Undecodable,
    patterns::Patterns,
};
use crate::{
    config,
    elasticsearch::Targets,
    event::{Arrival, Digest, DigestParts, InvalidAliases, LogEvent, Normaliser, Timestamp, request_digest},
    timescale::{Source, WriteRequest},
    wire::{self, DecompressError, Framing, Room, SplitSettings},
};

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
        let framing = match Framing::of(&text, content_type, self.split_settings()) {
            Ok(framing) => framing,
            Err(error) => {
                let undecodable = Undecodable::unread(error.name(), &error);
                return self.keep_undecodable(incoming, digest, undecodable, reservation);
            }
        };
        let arrival = self.arrival(&framing, incoming, origin, reservation)?;
        let mut encoding = Encoding::begin(self, origin, arrival, text.len(), reservation)?;
        framing.split(&mut encoding);
        let (request, held) = encoding.finish(incoming)?;
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

    /// What is known of a request's first event from outside of it; holds what stands around the events.
    fn arrival(
        &self,
        framing: &Framing<'_, '_>,
        incoming: &Incoming,
        origin: &Origin,
        reservation: &mut Reservation,
    ) -> Result<Arrival, Refusal> {
        let tenant = incoming.tenant.as_deref().or_else(|| self.normaliser.only_tenant());
        let before = reservation.bytes();
        let mut wrapper: Option<Arc<str>> = None;
        if let Some(around) = within(reservation, |room| framing.around(room))? {
            // Held twice while it is copied.
            reserve(reservation, reservation.bytes() + around.len())?;
            wrapper = Some(Arc::from(around));
        }
        reservation.shrink_to(before + wrapper.as_ref().map_or(0, |wrapper| wrapper.len()));
        Ok(Arrival {
            at: origin.arrived,
            // Copied: one that all requests share, all processors would count up and down for each event.
            tenant: tenant.map(Arc::from),
            wrapper,
        })
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

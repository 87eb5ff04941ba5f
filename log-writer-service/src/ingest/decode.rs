//! One request's bytes become rows: decompress, split, normalise, encode. Pure CPU work, done in the request's own task.
//!
//! Memory is reserved before it is used; what can't be reserved ends the request with 429.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{
    Incoming, Refusal,
    admission::Reservation,
    identity::{Claim, Origin, set_ids},
    patterns::Patterns,
};
use crate::{
    config,
    elasticsearch::Targets,
    event::{Arrival, Digest, DigestParts, InvalidAliases, LogEvent, Normaliser, RawEvent, Timestamp, request_digest},
    timescale::{DeadLetter, EncodedRows, Source, Stage, WriteRequest},
    wire::{self, BadReason, DecompressError, Piece, SplitSettings},
};

/// What an encoded row needs beside the event's own text: lengths and the columns that the service sets.
const ROW_OVERHEAD_BYTES: usize = 160;

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

/// Why nothing of a body could be read.
#[derive(Debug, Clone)]
pub struct Undecodable {
    /// Stable name, as in the dead letter's `reason`.
    pub reason: String,
    /// For the sender's eyes: what and why.
    pub detail: String,
    /// 413 instead of 400.
    pub too_large: bool,
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
            Err(Refusal::NeverFits { bytes }) => {
                // Sent again it would be refused again, for ever.
                let detail = format!(
                    "it needs {bytes} bytes of memory, more than http.inflight_bytes_max; send smaller batches"
                );
                let undecodable = Undecodable {
                    reason: "request_too_large".to_owned(),
                    detail,
                    too_large: true,
                };
                let mut decoded = self.keep_body(incoming, origin.digest, undecodable);
                // Its sender drops it after a 413: all of it is kept, to be redriven where there is more room.
                for letter in &mut decoded.request.dead_letters {
                    letter.raw = incoming.body.to_vec();
                }
                Ok(decoded)
            }
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
            Err(undecodable) => return Ok(self.keep_body(incoming, digest, undecodable)),
        };
        let content_type = incoming.content_type.as_deref();
        if let Some(binary) = wire::is_binary(content_type, &body) {
            let undecodable = Undecodable {
                reason: binary.name().to_owned(),
                detail: binary.to_string(),
                too_large: false,
            };
            return Ok(self.keep_body(incoming, digest, undecodable));
        }
        let text = String::from_utf8_lossy(&body);
        if matches!(text, Cow::Owned(_)) {
            reserve(reservation, reservation.bytes() + text.len())?;
        }
        let settings = SplitSettings {
            wrappers: &self.events.wrappers,
            events_max: self.events.per_request_max,
        };
        let pieces = match wire::split(&text, content_type, &settings) {
            Ok(pieces) => pieces,
            Err(error) => {
                let undecodable = Undecodable {
                    reason: error.name().to_owned(),
                    detail: error.to_string(),
                    too_large: false,
                };
                return Ok(self.keep_body(incoming, digest, undecodable));
            }
        };
        let arrival = Arrival {
            at: origin.arrived,
            tenant: incoming.tenant.clone(),
            wrapper: wire::around(&text, content_type, &settings).map(Arc::from),
        };
        let request = self.encode(pieces, text.len(), incoming, origin, reservation, arrival)?;
        Ok(Decoded {
            request,
            undecodable: None,
        })
    }

    /// A request of which nothing but a dead letter is kept.
    pub(super) fn keep_body(&self, incoming: &Incoming, digest: Digest, undecodable: Undecodable) -> Decoded {
        let kept = if undecodable.too_large {
            &[][..]
        } else {
            self.cut(&incoming.body)
        };
        let letter = DeadLetter {
            stage: Stage::Decode,
            reason: undecodable.reason.clone(),
            detail: undecodable.detail.clone(),
            raw: kept.to_vec(),
            raw_bytes: incoming.body_bytes,
            position: None,
        };
        let request = WriteRequest {
            digest,
            received: 1,
            rows: EncodedRows::new(),
            dead_letters: vec![letter],
            body: incoming.body.clone(),
            source: self.source(incoming),
        };
        Decoded {
            request,
            undecodable: Some(undecodable),
        }
    }

    /// A request that makes the decoder panic: a defect of ours, kept for whoever mends it.
    pub(super) fn keep_panicked(&self, incoming: &Incoming) -> Decoded {
        tracing::error!(
            path = incoming.path,
            body.bytes = incoming.body_bytes,
            "decoding a request panicked; it is kept as a dead letter"
        );
        let undecodable = Undecodable {
            reason: "decoder_panicked".to_owned(),
            detail: "decoding it panicked: a defect of the service".to_owned(),
            too_large: false,
        };
        self.keep_body(incoming, self.digest(incoming), undecodable)
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

    /// Expands the body, reserving in steps: what a body expands to is not known before.
    fn decompress(
        &self,
        incoming: &Incoming,
        reservation: &mut Reservation,
    ) -> Result<Result<Bytes, Undecodable>, Refusal> {
        let received = incoming.body.len();
        let mut guess = received.saturating_mul(8).max(64 * 1024).min(self.body_bytes_max);
        loop {
            reserve(reservation, received.saturating_add(guess))?;
            let result = wire::decompress(incoming.body.clone(), incoming.content_encoding.as_deref(), guess);
            match result {
                Ok(body) => {
                    reservation.shrink_to(received + body.len());
                    return Ok(Ok(body));
                }
                Err(DecompressError::TooLarge { .. }) if guess < self.body_bytes_max => {
                    guess = guess.saturating_mul(8).min(self.body_bytes_max);
                }
                Err(error) => {
                    let too_large = matches!(error, DecompressError::TooLarge { .. });
                    let reason = match &error {
                        DecompressError::TooLarge { .. } => "body_too_large",
                        DecompressError::UnknownEncoding(_) => "unknown_content_encoding",
                        DecompressError::Broken { .. } => "broken_compression",
                    };
                    return Ok(Err(Undecodable {
                        reason: reason.to_owned(),
                        detail: error.to_string(),
                        too_large,
                    }));
                }
            }
        }
    }

    fn encode(
        &self,
        pieces: Vec<Piece<'_>>,
        text_bytes: usize,
        incoming: &Incoming,
        origin: &Origin,
        reservation: &mut Reservation,
        mut arrival: Arrival,
    ) -> Result<WriteRequest, Refusal> {
        let received = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        let base = reservation.bytes() + pieces.len() * size_of::<Piece<'_>>();
        let expected = text_bytes + pieces.len() * ROW_OVERHEAD_BYTES;
        reserve(reservation, base + expected)?;
        let mut rows = EncodedRows::with_capacity(expected, pieces.len());
        let mut claims = Vec::with_capacity(pieces.len());
        let mut dead_letters = Vec::new();
        let mut dead_bytes = 0;
        for (position, piece) in (origin.first_position..).zip(pieces) {
            let letter = match piece {
                Piece::Event(raw) => match self.normaliser.normalise(raw.clone(), &arrival) {
                    Ok(event) => {
                        claims.push(Claim {
                            own_id: event.own_id,
                            time: event.claimed_time,
                            position,
                        });
                        let pattern = rows.push(&event, origin.ingested, self.target(&event).as_ref());
                        if let (Some(patterns), Some(pattern)) = (&self.patterns, pattern) {
                            patterns.note(&event, pattern);
                        }
                        None
                    }
                    Err(unusable) => {
                        Some(self.letter(unusable.name(), &unusable.to_string(), raw_text(&raw), position))
                    }
                },
                Piece::Bad { raw, reason } => {
                    let mut letter = self.letter(reason.name(), &reason.to_string(), raw, position);
                    if matches!(reason, BadReason::TooManyEvents | BadReason::RestAfterError) {
                        // It may hold many events, which stand nowhere else.
                        letter.raw = raw.as_bytes().to_vec();
                    }
                    Some(letter)
                }
            };
            // Repeated in every event, a large one would multiply the body.
            if arrival
                .wrapper
                .as_ref()
                .is_some_and(|wrapper| wrapper.len() > WRAPPER_BYTES_MAX)
            {
                arrival.wrapper = None;
            }
            if let Some(letter) = letter {
                dead_bytes += letter.raw.len() + letter.reason.len() + letter.detail.len() + size_of::<DeadLetter>();
                dead_letters.push(letter);
            }
            let needed = base + rows.held_bytes() + dead_bytes;
            if needed > reservation.bytes() {
                reserve(reservation, needed + 64 * 1024)?;
            }
        }
        let noted = set_ids(&mut rows, &claims, &origin.digest, origin.counts);
        reservation.shrink_to(incoming.body.len() + rows.held_bytes() + dead_bytes);
        Ok(WriteRequest {
            digest: noted,
            received,
            rows,
            dead_letters,
            body: incoming.body.clone(),
            source: self.source(incoming),
        })
    }

    pub(super) fn target(&self, event: &LogEvent<'_>) -> Option<Arc<str>> {
        self.targets
            .as_ref()
            .map(|targets| targets.target(&event.tenant, event.timestamp))
    }

    pub(super) fn letter(&self, reason: &str, detail: &str, raw: &str, position: u32) -> DeadLetter {
        DeadLetter {
            stage: Stage::Decode,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            raw: self.cut(raw.as_bytes()).to_vec(),
            raw_bytes: u64::try_from(raw.len()).unwrap_or(u64::MAX),
            position: Some(position),
        }
    }

    fn cut<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        raw.get(..self.dead_letter_bytes_max).unwrap_or(raw)
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
fn reserve(reservation: &mut Reservation, bytes: usize) -> Result<(), Refusal> {
    if reservation.grow_to(bytes) {
        Ok(())
    } else if bytes > reservation.limit() {
        Err(Refusal::NeverFits { bytes })
    } else {
        Err(Refusal::Busy)
    }
}

fn raw_text<'a>(raw: &'a RawEvent<'_>) -> &'a str {
    match raw {
        RawEvent::Object(text) | RawEvent::Value(text) => text,
        RawEvent::Text(text) => text,
    }
}

//! The rows and letters of one request, made while its body is cut ([`Taker`]): no list of its events is ever held.
//!
//! Memory is reserved before it is taken; a refusal ends the cutting and is returned by [`Encoding::finish`].

use super::{
    Incoming, Refusal,
    admission::Reservation,
    decode::{Decoder, reserve},
    identity::{Claim, Origin, set_ids},
    kept::letter_memory,
};
use crate::{
    elasticsearch::RequestTargets,
    event::{Arrival, LogEvent, Timestamp},
    timescale::{DeadLetter, EncodedRows, WriteRequest},
    wire::{BadReason, Enough, Piece, READ_IN_PLACE_BYTES_MAX, Taker},
};

/// The smallest event that is reckoned with: a body whose first one is tiny may go on with large ones.
const EVENT_BYTES_MIN: usize = 256;
/// What an encoded row needs beside the event's own text: lengths and the columns that the service sets.
const ROW_OVERHEAD_BYTES: usize = 160;
/// What its commit needs for each row: its place in the outbox's plan, its outcome. Until then its claim is held for it.
const ROW_COMMIT_BYTES: usize = 128;
const _: () = assert!(size_of::<Claim>() <= ROW_COMMIT_BYTES);
/// How often one event's text is held while it is normalised: unescaped, in `fields`, while that grows.
const EVENT_COPIES: usize = 3;
/// Members of a wrapper object that are larger than this together are noted in the first event only.
const WRAPPER_BYTES_MAX: usize = 4 * 1024;

/// A request under way from its body to what is committed.
pub(super) struct Encoding<'d, 'r> {
    decoder: &'d Decoder,
    origin: &'d Origin,
    arrival: Arrival,
    targets: Option<RequestTargets<'d>>,
    reservation: &'r mut Reservation,
    /// Of the body.
    bytes: usize,
    /// Bytes reserved for the body and what stands around its events.
    held: usize,
    /// Bytes reserved for one event while it is normalised.
    scratch: usize,
    rows: EncodedRows,
    claims: Vec<Claim>,
    dead_letters: Vec<DeadLetter>,
    letter_bytes: usize,
    /// Pieces so far.
    count: u32,
    refusal: Option<Refusal>,
}

impl<'d, 'r> Encoding<'d, 'r> {
    /// Begins with a body of so many bytes, as it is cut.
    ///
    /// # Errors
    /// The refusal of the memory that one event takes while it is normalised.
    pub(super) fn begin(
        decoder: &'d Decoder,
        origin: &'d Origin,
        arrival: Arrival,
        bytes: usize,
        reservation: &'r mut Reservation,
    ) -> Result<Self, Refusal> {
        let wrapper_bytes = arrival.wrapper.as_ref().map_or(0, |wrapper| wrapper.len());
        // Beside itself: its copies in the event that notes it.
        let held = reservation.bytes() + (EVENT_COPIES - 1) * wrapper_bytes;
        let scratch = EVENT_COPIES * bytes.min(READ_IN_PLACE_BYTES_MAX);
        reserve(reservation, held + scratch)?;
        Ok(Self {
            decoder,
            origin,
            arrival,
            targets: decoder.targets.as_ref().map(RequestTargets::new),
            reservation,
            bytes,
            held,
            scratch,
            rows: EncodedRows::new(),
            claims: Vec::new(),
            dead_letters: Vec::new(),
            letter_bytes: 0,
            count: 0,
            refusal: None,
        })
    }

    /// What is committed, and the bytes that it holds until then.
    ///
    /// # Errors
    /// The refusal on which it ended.
    pub(super) fn finish(self, incoming: &Incoming) -> Result<(WriteRequest, usize), Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let mut rows = self.rows;
        let digest = set_ids(&mut rows, &self.claims, &self.origin.digest, self.origin.counts);
        rows.give_back();
        let held = rows.held_bytes() + rows.len() * ROW_COMMIT_BYTES + self.letter_bytes;
        let request = WriteRequest {
            digest,
            received: self.count,
            rows,
            dead_letters: self.dead_letters,
            body: incoming.body.clone(),
            source: self.decoder.source(incoming),
        };
        Ok((request, held))
    }

    /// The place of the next event in its request.
    fn position(&self) -> u32 {
        self.origin.first_position.saturating_add(self.count)
    }

    /// Sets what is known of the next event from outside of it.
    fn arrive(&mut self) {
        if self.count > 0 {
            // Repeated in every event, a large one would multiply the body.
            let wrapper = self.arrival.wrapper.take();
            self.arrival.wrapper = wrapper.filter(|wrapper| wrapper.len() <= WRAPPER_BYTES_MAX);
        }
        // Events without a time stay in the order in which they were sent.
        let later = i64::from(self.position());
        self.arrival.at = Timestamp(self.origin.arrived.0.saturating_add(later));
    }

    /// Bytes held beside the rows.
    fn others_bytes(&self) -> usize {
        self.held + self.scratch + self.claims.capacity() * ROW_COMMIT_BYTES + self.letter_bytes
    }

    /// Makes room for as many events as the body has if they are all about as large as the first one.
    fn expect_events_of(&mut self, bytes: usize) -> Result<(), Refusal> {
        let count = self.bytes / bytes.max(EVENT_BYTES_MIN);
        // A few more, since the first may be larger than others; what is too small is copied when it grows.
        let likely = (count + count / 8 + 1).min(self.decoder.events.per_request_max);
        let expected = self.bytes + likely * ROW_OVERHEAD_BYTES;
        let bytes = likely * ROW_COMMIT_BYTES + EncodedRows::bytes_with(expected, likely);
        reserve(self.reservation, self.others_bytes() + bytes)?;
        self.claims = Vec::with_capacity(likely);
        self.rows = EncodedRows::with_capacity(expected, likely);
        Ok(())
    }

    /// Room for one more claim: half as many again, with the old ones held until they are copied.
    fn make_claim_room(&mut self) -> Result<(), Refusal> {
        if self.claims.len() < self.claims.capacity() {
            return Ok(());
        }
        let capacity = self.claims.len() + self.claims.len() / 2 + 1;
        let bytes = self.others_bytes() + self.rows.held_bytes() + capacity * ROW_COMMIT_BYTES;
        reserve(self.reservation, bytes)?;
        self.claims.reserve_exact(capacity - self.claims.len());
        Ok(())
    }

    /// Takes an event of so many bytes.
    fn encode_event(&mut self, event: &LogEvent<'_>, bytes: usize) -> Result<(), Refusal> {
        if self.claims.capacity() == 0 {
            self.expect_events_of(bytes)?;
        }
        self.make_claim_room()?;
        self.claims.push(Claim {
            own_id: event.own_id,
            time: event.claimed_time,
            position: self.position(),
        });
        let others = self.others_bytes();
        self.rows
            .make_room(event, |bytes| reserve(self.reservation, others + bytes))?;
        let target = self
            .targets
            .as_mut()
            .map(|targets| targets.of(&event.tenant, event.timestamp));
        let pattern = self.rows.push(event, self.origin.ingested, target);
        if let (Some(patterns), Some(pattern)) = (&self.decoder.patterns, pattern) {
            patterns.note(event, pattern);
        }
        self.count += 1;
        Ok(())
    }

    fn encode_piece(&mut self, piece: &Piece<'_>) -> Result<(), Refusal> {
        let (raw, reason, detail) = match piece {
            Piece::Event(raw) => {
                let text = raw.text();
                if self.scratch < EVENT_COPIES * text.len() {
                    self.scratch = EVENT_COPIES * text.len();
                    reserve(self.reservation, self.others_bytes() + self.rows.held_bytes())?;
                }
                match self.decoder.normaliser.normalise(raw.clone(), &self.arrival) {
                    Ok(event) => return self.encode_event(&event, text.len()),
                    Err(unusable) => (text, unusable.name(), unusable.to_string()),
                }
            }
            Piece::Bad { raw, reason } => (*raw, reason.name(), reason.to_string()),
        };
        let kept = match piece {
            // It may hold many events, which stand nowhere else.
            Piece::Bad {
                reason: BadReason::TooManyEvents | BadReason::RestAfterError,
                ..
            } => raw.as_bytes(),
            Piece::Bad { .. } | Piece::Event(_) => self.decoder.cut(raw.as_bytes()),
        };
        self.letter_bytes += letter_memory(kept.len());
        reserve(self.reservation, self.others_bytes() + self.rows.held_bytes())?;
        self.dead_letters.push(DeadLetter {
            raw: kept.to_vec(),
            ..self.decoder.letter(reason, &detail, raw, self.position())
        });
        self.count += 1;
        Ok(())
    }

    fn unless_refused(&mut self, taken: Result<(), Refusal>) -> Result<(), Enough> {
        taken.map_err(|refusal| {
            self.refusal = Some(refusal);
            Enough
        })
    }
}

impl<'a> Taker<'a> for Encoding<'_, '_> {
    fn read_object(&mut self, text: &'a str) -> Result<Option<usize>, Enough> {
        self.arrive();
        let Some((event, length)) = self.decoder.normaliser.normalise_first(text, &self.arrival) else {
            return Ok(None);
        };
        let taken = self.encode_event(&event, length);
        self.unless_refused(taken)?;
        Ok(Some(length))
    }

    fn take_piece(&mut self, piece: Piece<'a>) -> Result<(), Enough> {
        self.arrive();
        let taken = self.encode_piece(&piece);
        self.unless_refused(taken)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        config::{Config, DEFAULT_FILE},
        event::StoredEvent,
        ingest::admission::Admission,
        timescale::{copy_stream, read_stream},
    };

    const NOW: Timestamp = Timestamp(1_795_262_401_000_000);

    fn decoder() -> Decoder {
        let config: Config = toml::from_str(DEFAULT_FILE).unwrap();
        Decoder::new(&config, None, None).unwrap()
    }

    fn incoming(body: String) -> Incoming {
        Incoming {
            body_bytes: body.len() as u64,
            body: Bytes::from(body),
            path: "/ingest".to_owned(),
            content_type: Some("application/json".to_owned()),
            content_encoding: None,
            idempotency_key: None,
            tenant: None,
            address: None,
        }
    }

    fn stored(body: String) -> Vec<StoredEvent> {
        let mut reservation = Admission::new(1 << 30).open();
        let decoded = decoder().decode(&incoming(body), &mut reservation, NOW).unwrap();
        assert_eq!(decoded.request.dead_letters.len(), 0);
        read_stream(&copy_stream(&decoded.request.rows)).unwrap()
    }

    #[test]
    fn what_rows_grow_to_is_reserved() {
        // The first one is no measure for those that follow.
        let first = format!(r#"{{"message":"{}"}}"#, "m".repeat(2_000));
        let body = format!("[{first}{}]", ",{}".repeat(5_000));
        let incoming = incoming(body);
        let admission = Admission::new(1 << 30);
        let mut reservation = admission.open();
        assert!(reservation.grow_to(incoming.body.len()));
        let decoded = decoder().decode(&incoming, &mut reservation, NOW).unwrap();
        let rows = &decoded.request.rows;
        assert_eq!(rows.len(), 5_001);
        let held = rows.held_bytes() + rows.len() * ROW_COMMIT_BYTES;
        assert!(reservation.bytes() >= incoming.body.len() + held);
        drop(reservation);
        assert_eq!(admission.held(), 0);

        let scarce = Admission::new(incoming.body.len() + 200_000);
        let (mut other, mut reservation) = (scarce.open(), scarce.open());
        assert!(other.grow_to(100_000) && reservation.grow_to(incoming.body.len()));
        let refused = decoder().decode_from(
            &incoming,
            &Origin {
                digest: decoder().digest(&incoming),
                counts: true,
                first_position: 0,
                arrived: NOW,
                ingested: NOW,
            },
            &mut reservation,
        );
        assert!(refused.is_err(), "the rows need more than is free");
    }

    #[test]
    fn objects_read_in_place_and_cut_out_are_the_same_rows() {
        // `é` lies across the end of what is read in place.
        let before = r#"{"message":""#;
        let large = "m".repeat(READ_IN_PLACE_BYTES_MAX - before.len() - 1) + &"é".repeat(4_000);
        let events = stored(format!(
            r#"[{{"message":"first"}},{before}{large}"}},{{"message":"last"}}]"#
        ));
        let read: Vec<(&str, i64)> = events
            .iter()
            .map(|event| (event.texts.columns().message, event.timestamp.0 - NOW.0))
            .collect();
        assert_eq!(read, [("first", 0), (&*large, 1), ("last", 2)]);
    }

    #[test]
    fn a_large_wrapper_is_noted_in_the_first_event_only() {
        for (bytes, noted) in [(10, [true, true]), (WRAPPER_BYTES_MAX, [true, false])] {
            let events = stored(format!(r#"{{"env":"{}","data":[{{}},{{}}]}}"#, "e".repeat(bytes)));
            let is_noted = |event: &StoredEvent| {
                let fields = event.texts.columns().fields.unwrap_or_default();
                fields.contains("wrapper")
            };
            assert_eq!(events.iter().map(is_noted).collect::<Vec<_>>(), noted, "{bytes}");
        }
    }
}

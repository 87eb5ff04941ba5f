//! A fixed replay: the same requests to rows, and the same rows to bulk bodies, for counting instructions and for timing
//! each step alone.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;

use super::stored::CONFIG;
use crate::{
    elasticsearch::{BulkBody, DocumentWriter, Verdict, document_id, read_answer},
    event::{Arrival, LogEvent, Normaliser, StoredEvent, Timestamp},
    ingest::{Incoming, Ingestor, NewPatterns, Patterns, Readiness},
    timescale::{EncodedRows, copy_stream, read_stream},
    wire::{Enough, Framing, Piece, SplitSettings, Taker},
};

const REQUESTS: usize = 10;
const PER_REQUEST: usize = 100;
/// 2026-11-21T12:00:01Z.
const NOW: Timestamp = Timestamp(1_795_262_401_000_000);

/// What is replayed.
#[derive(Debug)]
pub struct Replay {
    ingestor: Ingestor,
    /// Kept: without a receiver no kind of message would ever be known.
    _new_patterns: NewPatterns,
    bodies: Vec<Bytes>,
    /// The rows of each body as COPY sends them.
    streams: Vec<Vec<u8>>,
    documents: DocumentWriter,
    normaliser: Normaliser,
}

impl Replay {
    /// Events of one pass.
    pub const EVENTS: usize = REQUESTS * PER_REQUEST;

    /// Makes what is replayed.
    pub fn prepare() -> Self {
        let (patterns, new_patterns) = Patterns::new();
        let ingestor =
            Ingestor::new(&CONFIG, None, Readiness::default(), patterns).expect("the default aliases can be used");
        let bodies: Vec<Bytes> = (0..REQUESTS).map(|number| body(number).into()).collect();
        // As `jsonb` shows it: with blanks.
        let streams = (0..REQUESTS)
            .map(|number| {
                let shown = body(number).replace("\":", "\": ").replace(",\"", ", \"");
                let request = ingestor.decode_now(&incoming(&shown.into()), NOW);
                copy_stream(&request.expect("memory enough").rows)
            })
            .collect();
        let documents = DocumentWriter::new(&CONFIG.elasticsearch).expect("nothing is promoted");
        Self {
            ingestor,
            _new_patterns: new_patterns,
            bodies,
            streams,
            documents,
            normaliser: Normaliser::new(&CONFIG.events).expect("the default aliases can be used"),
        }
    }

    /// Takes every request: digest, split, normalise, encode, ids.
    pub fn receive(&self) {
        for body in &self.bodies {
            let request = self.ingestor.decode_now(&incoming(body), NOW).expect("memory enough");
            assert_eq!(request.rows.len(), PER_REQUEST);
        }
    }

    /// Reads every COPY back and makes its bulk body.
    pub fn deliver(&self) {
        for stream in &self.streams {
            let bulk = self.bulk_body(&read_stream(stream).expect("rows of our own"));
            assert_eq!(bulk.len(), PER_REQUEST);
        }
    }

    /// Splits every body and normalises its events, and nothing else of [`Self::receive`].
    pub fn events(&self) -> Vec<LogEvent<'_>> {
        let settings = SplitSettings {
            wrappers: &CONFIG.events.wrappers,
            events_max: CONFIG.events.per_request_max,
        };
        let arrival = Arrival {
            at: NOW,
            tenant: None,
            wrapper: None,
        };
        let mut reader = Reader {
            normaliser: &self.normaliser,
            arrival: &arrival,
            events: Vec::with_capacity(Self::EVENTS),
        };
        for body in &self.bodies {
            let text = str::from_utf8(body).expect("written as text");
            let framing = Framing::of(text, Some("application/json"), settings).expect("an array");
            framing.split(&mut reader);
        }
        let events = reader.events;
        assert_eq!(events.len(), Self::EVENTS);
        events
    }

    /// Encodes events as rows, as one request's; their bytes.
    pub fn encode(&self, events: &[LogEvent<'_>]) -> usize {
        let target = Arc::from("logs-app-default");
        let mut rows = EncodedRows::with_capacity(events.len() * 600, events.len());
        for event in events {
            rows.push(event, NOW, Some(&target));
        }
        rows.bytes()
    }

    /// The rows of every COPY, read back.
    pub fn stored(&self) -> Vec<StoredEvent> {
        let read = |stream: &Vec<u8>| read_stream(stream).expect("rows of our own");
        self.streams.iter().flat_map(read).collect()
    }

    /// The bulk body of these rows.
    pub fn bulk_body(&self, events: &[StoredEvent]) -> BulkBody {
        let mut bulk = BulkBody::new(CONFIG.elasticsearch.naming);
        for event in events {
            let id = document_id(event.id, event.timestamp, &event.tenant, "default");
            bulk.push("logs-app-default", &id, event, &self.documents);
        }
        bulk
    }

    /// What Elasticsearch answers when it has indexed [`Self::EVENTS`] documents.
    pub fn bulk_answer() -> String {
        let item = r#"{"create":{"_index":".ds-logs-app-default-2026.11.21-000001","status":201}}"#;
        format!(r#"{{"items":[{}]}}"#, vec![item; Self::EVENTS].join(","))
    }

    /// Reads such an answer; how many documents are indexed.
    pub fn read_answer(answer: &str) -> usize {
        let verdicts = read_answer(200, answer.as_bytes(), Self::EVENTS).expect("an answer");
        let indexed = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Indexed { .. }));
        indexed.count()
    }
}

/// Takes events as they are met.
struct Reader<'n, 'a> {
    normaliser: &'n Normaliser,
    arrival: &'n Arrival,
    events: Vec<LogEvent<'a>>,
}

impl<'a> Taker<'a> for Reader<'_, 'a> {
    fn read_object(&mut self, text: &'a str) -> Result<Option<usize>, Enough> {
        let (event, length) = self.normaliser.normalise_first(text, self.arrival).expect("an event");
        self.events.push(event);
        Ok(Some(length))
    }

    /// None comes: every event is read where it stands, and all are counted in the end.
    fn take_piece(&mut self, _piece: Piece<'a>) -> Result<(), Enough> {
        Ok(())
    }
}

fn incoming(body: &Bytes) -> Incoming {
    Incoming {
        body: body.clone(),
        body_bytes: body.len() as u64,
        path: "/ingest".to_owned(),
        content_type: Some("application/json".to_owned()),
        content_encoding: None,
        idempotency_key: None,
        tenant: None,
        address: None,
    }
}

/// Events of 450 bytes, as `make bench` sends them: a tenth errors, a tenth warnings, 30 % with a correlation id, 20 % with
/// a user, 20 % with a trace, none with an id of its own.
fn body(request: usize) -> String {
    const LEVELS: [&str; 10] = [
        "INFO", "INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "INFO", "INFO", "ERROR",
    ];
    let mut body = String::new();
    for (number, level) in (request * PER_REQUEST..(request + 1) * PER_REQUEST).zip(LEVELS.into_iter().cycle()) {
        body.push(if body.is_empty() { '[' } else { ',' });
        push_event(&mut body, number, level).expect("a string takes text");
    }
    body.push(']');
    body
}

fn push_event(body: &mut String, number: usize, level: &str) -> std::fmt::Result {
    write!(
        body,
        "{{\"timestamp\":\"2026-11-21T12:00:00.{number:06}Z\",\"level\":\"{level}\",\"service\":\"orders\",\
         \"host\":\"node-{:02}\",\"message\":\"GET /api/v1/orders/{number} answered 200 in {} ms to client 10.4.117.{}, cache miss for shard {} \
         of region eu-central-1\",\"tags\":[\"web\",\"checked\"],\"performance_metrics\":{{\"duration_ms\":{}}},\
         \"fields\":{{\"region\":\"eu-central-1\",\"number\":{number},\"request\":{{\"method\":\"GET\",\
         \"path\":\"/api/v1/orders\",\"bytes\":{}}}}}",
        number % 16,
        number % 977,
        number % 250,
        number % 64,
        number % 977,
        number * 37 % 50_000,
    )?;
    if number % 10 < 3 {
        write!(
            body,
            ",\"correlation_id\":\"9e3779b9-7f4a-4c15-b39c-{:012x}\"",
            number / 70
        )?;
    }
    if number % 5 == 1 {
        write!(body, ",\"user_id\":\"user-{number:05}\"")?;
    }
    if number % 5 == 3 {
        write!(body, ",\"trace_id\":\"4bf92f3577b34da6a3ce929d{number:08x}\"")?;
    }
    body.write_char('}')
}

//! A fixed replay: the same requests to rows, and the same rows to bulk bodies, for counting instructions.

use std::fmt::Write as _;

use bytes::Bytes;

use super::stored::CONFIG;
use crate::{
    elasticsearch::{BulkBody, DocumentWriter, document_id},
    event::Timestamp,
    ingest::{Incoming, Ingestor, NewPatterns, Patterns, Readiness},
    timescale::{copy_stream, read_stream},
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
            let mut bulk = BulkBody::new(CONFIG.elasticsearch.naming);
            for event in read_stream(stream).expect("rows of our own") {
                let id = document_id(event.id, event.timestamp, &event.tenant, "default");
                bulk.push("logs-app-default", &id, &event, &self.documents);
            }
            assert_eq!(bulk.len(), PER_REQUEST);
        }
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

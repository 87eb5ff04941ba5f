//! What is sent: bodies of every kind that Vector's http sink makes, and what must be stored of them.
//!
//! Every event has a marker of its own, the first word of its message, that no other event of the run has: by it an
//! event is found again in both stores, whatever id it got there.

use std::{io::Write as _, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use crate::client::Request;

/// First word of the messages that the database refuses: see [`super::run`].
pub(super) const POISON: &str = "poison";

/// One event as sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// First word of its message; the second one, if the first is [`POISON`].
    pub marker: String,
    /// The event; a text for a line of text.
    pub event: Value,
    /// What must become of it.
    pub fate: Fate,
}

/// What must become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// One row under its own id.
    StoredAs(Uuid),
    /// One row; its id is derived, or shared with another event that may have come first.
    Stored,
    /// One dead letter of the stage `store`.
    Refused,
}

/// One body, as it is sent until it is acknowledged.
#[derive(Debug, Clone)]
pub struct Body {
    /// Its kind, for messages.
    pub kind: Kind,
    /// The same bytes every time.
    pub request: Request,
    /// The events in it, usable ones.
    pub events: Vec<Sent>,
    /// Lines in it that are no JSON: dead letters of the stage `decode`.
    pub broken_lines: usize,
    /// Time before it is sent for the first time.
    pub pause: Duration,
}

/// What is special about a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ids of their own.
    OwnIds,
    /// Times and no ids.
    TimesOnly,
    /// Some events that other bodies bring too, with the same id.
    Shared,
    /// An id that an event of another body has too, with another message.
    Conflict,
    /// Events of days ago.
    Late,
    /// Text lines with an `Idempotency-Key`.
    KeyedText,
    /// Lines that are no JSON among good ones.
    BrokenLines,
    /// A row that PostgreSQL refuses among good ones.
    Poison,
    /// Measurements under names that the mapping does not have: a full one refuses them.
    NewNames,
    /// Many events.
    Large,
}

/// One of each at least; then by chance, the first ones more often.
const KINDS: [Kind; 13] = [
    Kind::OwnIds,
    Kind::TimesOnly,
    Kind::Shared,
    Kind::NewNames,
    Kind::OwnIds,
    Kind::TimesOnly,
    Kind::Shared,
    Kind::Conflict,
    Kind::Late,
    Kind::KeyedText,
    Kind::BrokenLines,
    Kind::NewNames,
    Kind::Large,
];

/// Events that several bodies bring.
const SHARED: usize = 40;

/// Draws bodies.
#[derive(Debug)]
pub(super) struct Author<'a> {
    rng: &'a mut Rng,
    now: DateTime<Utc>,
    number: usize,
    shared: Vec<(Value, Uuid, String)>,
}

impl<'a> Author<'a> {
    /// The same generator and clock draw the same bodies.
    pub(super) fn new(rng: &'a mut Rng, now: DateTime<Utc>) -> Self {
        let mut author = Self {
            rng,
            now,
            number: 0,
            shared: Vec::new(),
        };
        for _ in 0..SHARED {
            let (event, marker, id) = author.event_with_id(Duration::ZERO);
            author.shared.push((event, id, marker));
        }
        author
    }

    /// `count` bodies: one with poison, each other kind, the rest by chance; in a random order.
    pub(super) fn bodies(&mut self, count: usize, pause: Duration) -> Vec<Body> {
        let mut bodies = vec![self.body(Kind::Poison)];
        let mut twin = None;
        while bodies.len() < count {
            let kind = match KINDS.get(bodies.len() - 1) {
                Some(kind) => *kind,
                None => KINDS[self.rng.usize(..KINDS.len()).min(self.rng.usize(..KINDS.len()))],
            };
            let mut body = self.body(kind);
            if kind == Kind::Conflict {
                // With an event of the conflicting body before this one: each id is in two bodies at most.
                if let Some((id, time)) = twin.take() {
                    self.add_conflict(&mut body, id, &time);
                } else if let Some(Sent { event, fate, .. }) = body.events.first_mut()
                    && let Fate::StoredAs(id) = *fate
                {
                    twin = Some((id, event["timestamp"].clone()));
                    *fate = Fate::Stored;
                }
            }
            bodies.push(body);
        }
        for body in &mut bodies {
            let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
            body.pause = Duration::from_micros(self.rng.u64(..=micros));
        }
        self.rng.shuffle(&mut bodies);
        bodies
    }

    fn body(&mut self, kind: Kind) -> Body {
        let count = match kind {
            Kind::Large => self.rng.usize(80..=110),
            _ => self.rng.usize(3..=50),
        };
        let mut events: Vec<Sent> = (0..count).map(|_| self.sent(kind)).collect();
        let mut broken_lines = 0;
        match kind {
            Kind::Shared => {
                let mut chosen: Vec<usize> = (0..SHARED).collect();
                self.rng.shuffle(&mut chosen);
                for index in chosen.into_iter().take(8) {
                    let (event, id, marker) = self.shared[index].clone();
                    let fate = Fate::StoredAs(id);
                    events.push(Sent { marker, event, fate });
                }
            }
            Kind::Poison => {
                let (mut event, marker, _) = self.event_with_id(Duration::ZERO);
                event["message"] = json!(format!("{POISON} {marker}"));
                let place = self.rng.usize(..=events.len());
                let fate = Fate::Refused;
                events.insert(place, Sent { marker, event, fate });
            }
            Kind::BrokenLines => broken_lines = self.rng.usize(1..=3),
            _ => {}
        }
        let request = self.request(kind, &events, broken_lines);
        Body {
            kind,
            request,
            events,
            broken_lines,
            pause: Duration::ZERO,
        }
    }

    fn add_conflict(&mut self, body: &mut Body, id: Uuid, time: &Value) {
        let (mut event, marker, _) = self.event_with_id(Duration::ZERO);
        event["event_id"] = json!(id);
        event["timestamp"] = time.clone();
        let fate = Fate::Stored;
        body.events.push(Sent { marker, event, fate });
        body.request = self.request(Kind::Conflict, &body.events, 0);
    }

    fn sent(&mut self, kind: Kind) -> Sent {
        match kind {
            Kind::KeyedText => {
                let marker = self.marker();
                let event = Value::String(format!("{marker} a line of text {}", self.rng.u32(..)));
                Sent {
                    marker,
                    event,
                    fate: Fate::Stored,
                }
            }
            Kind::TimesOnly => {
                let (event, marker) = self.event(self.now);
                Sent {
                    marker,
                    event,
                    fate: Fate::Stored,
                }
            }
            _ => {
                let age = if kind == Kind::Late {
                    Duration::from_secs(self.rng.u64(30 * 3600..5 * 86_400))
                } else {
                    Duration::ZERO
                };
                let (mut event, marker, id) = self.event_with_id(age);
                if kind == Kind::NewNames {
                    event["performance_metrics"][format!("new_{}", self.rng.u8(..))] = json!(1);
                }
                Sent {
                    marker,
                    event,
                    fate: Fate::StoredAs(id),
                }
            }
        }
    }

    fn marker(&mut self) -> String {
        self.number += 1;
        format!("m{}", self.number)
    }

    fn event_with_id(&mut self, age: Duration) -> (Value, String, Uuid) {
        let time = self.now - TimeDelta::from_std(age).unwrap_or_default();
        let (mut event, marker) = self.event(time);
        let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        event["event_id"] = json!(id);
        (event, marker, id)
    }

    fn event(&mut self, time: DateTime<Utc>) -> (Value, String) {
        let marker = self.marker();
        let time = time + TimeDelta::microseconds(self.rng.i64(0..1_000_000));
        let level = ["trace", "debug", "info", "warn", "error", "fatal"][self.rng.usize(..6)];
        let words: String = (0..self.rng.usize(1..40)).map(|_| " word").collect();
        let event = json!({
            "timestamp": time.to_rfc3339_opts(SecondsFormat::Micros, true),
            "level": level,
            "service": format!("service-{}", self.rng.u8(..5)),
            "host": format!("host-{}", self.rng.u8(..3)),
            "message": format!("{marker}{words}"),
            "correlation_id": format!("{:016x}", self.rng.u64(..)),
            "tags": ["eu", format!("shard-{}", self.rng.u8(..8))],
            "performance_metrics": { "ms": self.rng.u16(..) },
            "number": self.rng.u32(..),
            "detail": { "text": "\"quoted\" \\ Ω", "list": [1, self.rng.u8(..)] },
        });
        (event, marker)
    }

    fn request(&mut self, kind: Kind, events: &[Sent], broken_lines: usize) -> Request {
        let mut lines: Vec<String> = events
            .iter()
            .map(|sent| match &sent.event {
                Value::String(line) => line.clone(),
                event => event.to_string(),
            })
            .collect();
        for _ in 0..broken_lines {
            let place = self.rng.usize(..=lines.len());
            lines.insert(place, format!("{{\"broken\": \"{}", self.rng.u64(..)));
        }
        let (body, content_type) = match kind {
            Kind::KeyedText => (lines.join("\n"), "text/plain"),
            Kind::BrokenLines | Kind::TimesOnly => (lines.join("\n"), "application/x-ndjson"),
            _ if self.rng.bool() => (lines.join("\n"), "application/x-ndjson"),
            _ => (format!("[{}]", lines.join(",")), "application/json"),
        };
        let (bytes, encoding) = match self.rng.u8(..3) {
            0 => (gzip(body.as_bytes()), Some("gzip")),
            1 => (
                zstd::encode_all(body.as_bytes(), 3).expect("zstd works in memory"),
                Some("zstd"),
            ),
            _ => (body.into_bytes(), None),
        };
        let mut request = Request::new("POST", "/ingest", bytes).header("content-type", content_type);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        if kind == Kind::KeyedText {
            request = request.header("idempotency-key", &format!("key-{:x}", self.rng.u128(..)));
        }
        request
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip works in memory");
    encoder.finish().expect("gzip works in memory")
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use chrono::DateTime;

    use super::{Author, Fate, Kind};

    #[test]
    fn the_same_seed_makes_the_same_bodies() {
        let bodies = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
            let bodies = Author::new(&mut rng, now).bodies(60, Duration::from_millis(100));
            bodies
                .into_iter()
                .map(|body| (body.request.encode(), body.pause))
                .collect::<Vec<_>>()
        };
        assert_eq!(bodies(7), bodies(7));
        assert_ne!(bodies(7), bodies(8));
    }

    #[test]
    fn every_kind_is_there_and_only_shared_events_stand_twice() {
        let mut rng = fastrand::Rng::with_seed(1);
        let bodies = Author::new(&mut rng, chrono::Utc::now()).bodies(60, Duration::ZERO);
        for kind in super::KINDS {
            assert!(bodies.iter().any(|body| body.kind == kind), "{kind:?}");
        }
        let mut seen = HashSet::new();
        let mut poison = 0;
        for body in &bodies {
            poison += body.events.iter().filter(|sent| sent.fate == Fate::Refused).count();
            for sent in &body.events {
                let again = !seen.insert(sent.marker.clone());
                assert!(!again || body.kind == Kind::Shared, "{sent:?}");
            }
        }
        assert_eq!(poison, 1);
    }
}

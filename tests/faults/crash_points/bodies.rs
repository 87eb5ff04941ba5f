//! What is sent, and what must be stored of it.

use chrono::{DateTime, TimeDelta, Utc};
use log_writer_tests::client::Request;
use serde_json::{Value, json};
use uuid::{NoContext, Timestamp, Uuid};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Three events of now.
    Plain,
    /// More than one message of a COPY.
    Large,
    /// Two new events and one that is stored already: by the staging table.
    Shared,
    /// Two events and one that PostgreSQL refuses: bisected in the late lane.
    Poisoned,
    /// Three events of two days ago: by the late lane.
    Late,
    /// A body that can't be read: kept whole, answered 400.
    Undecodable,
}

/// One request and what must come of it.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) request: Request,
    /// The answer at the end.
    pub(crate) status: u16,
    /// Events that must be stored.
    pub(crate) stored: Vec<Uuid>,
    /// Events that PostgreSQL refuses.
    pub(crate) refused: Vec<Uuid>,
    /// Dead letters that must be kept.
    pub(crate) letters: usize,
}

/// Statements that make the database refuse every event whose message begins with `poison`.
pub(crate) const REFUSE_POISON: [&str; 2] = [
    "create or replace function public.refuse_poison() returns trigger language plpgsql as $$ begin
       if new.message like 'poison%' then raise exception 'poison' using errcode = '22000'; end if;
       return new; end $$",
    "create trigger refuse_poison before insert on public.application_logs
       for each row execute function public.refuse_poison()",
];

/// The statement that ends it.
pub(crate) const ACCEPT_POISON: &str = "drop trigger refuse_poison on public.application_logs";

/// An event that bodies of the kind [`Kind::Shared`] bring again.
pub(crate) fn shared_event() -> Value {
    event(Utc::now(), "shared")
}

impl Body {
    pub(crate) fn new(kind: Kind, shared: &Value) -> Self {
        let now = Utc::now();
        let fresh = |count: usize, text: &str| -> Vec<Value> { (0..count).map(|_| event(now, text)).collect() };
        let late = now - TimeDelta::days(2);
        match kind {
            Kind::Plain => Self::of(fresh(3, "plain"), 3, 0),
            Kind::Large => Self::of(fresh(250, &"large ".repeat(1_000)), 250, 0),
            Kind::Shared => Self::of([fresh(2, "beside the shared one"), vec![shared.clone()]].concat(), 2, 0),
            Kind::Poisoned => Self::of([fresh(2, "neighbour"), fresh(1, "poison")].concat(), 2, 1),
            Kind::Late => Self::of((0..3).map(|_| event(late, "late")).collect(), 3, 0),
            Kind::Undecodable => Self {
                request: Request::new("POST", "/ingest", format!("no gzip {}", Uuid::new_v4()))
                    .header("content-type", "application/json")
                    .header("content-encoding", "gzip"),
                status: 400,
                stored: Vec::new(),
                refused: Vec::new(),
                letters: 1,
            },
        }
    }

    /// The first so many events are to be stored, the last so many are refused.
    fn of(events: Vec<Value>, stored: usize, letters: usize) -> Self {
        let id = |event: &Value| {
            event["event_id"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .expect("an id")
        };
        Self {
            stored: events[..stored].iter().map(id).collect(),
            refused: events[events.len() - letters..].iter().map(id).collect(),
            request: Request::json(&Value::Array(events)),
            status: 200,
            letters,
        }
    }
}

fn event(time: DateTime<Utc>, message: &str) -> Value {
    let seconds = u64::try_from(time.timestamp()).expect("after 1970");
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, time.timestamp_subsec_nanos()));
    json!({ "event_id": id, "timestamp": time.to_rfc3339(), "level": "warn", "service": "faults", "message": message })
}

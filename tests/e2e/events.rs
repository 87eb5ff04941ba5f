//! Events as a test makes them: each with a time and a v7 id of its own.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::{NoContext, Timestamp, Uuid};

/// Events with ids and times of just now, a millisecond apart.
pub(crate) fn fresh(count: usize) -> Value {
    let now = Utc::now();
    let events = (0..count).map(|number| {
        let time = now - TimeDelta::milliseconds(i64::try_from(number).expect("few events"));
        event(time, &format!("event {number}"))
    });
    Value::Array(events.collect())
}

/// One event with a v7 id of its time.
pub(crate) fn event(time: DateTime<Utc>, message: &str) -> Value {
    let seconds = u64::try_from(time.timestamp()).expect("after 1970");
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, time.timestamp_subsec_nanos()));
    json!({
        "event_id": id, "timestamp": time.to_rfc3339(), "level": "warn", "service": "e2e", "host": "test-host",
        "message": message, "tags": ["a", "b"], "performance_metrics": { "duration_ms": 1.5 },
        "error_code": "E1", "nested": { "list": [1, null, { "deep": true }] },
    })
}

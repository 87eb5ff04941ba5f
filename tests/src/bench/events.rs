//! The events that are sent: 450 bytes each, without an id of their own, as Vector sends what it read from a file.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use uuid::Uuid;

/// Bodies of JSON arrays of events that happened a few microseconds apart, up to `now`.
///
/// A tenth are errors, a tenth warnings; 30 % have a correlation id, 20 % a user, 20 % a trace.
#[must_use]
pub fn bodies(now: DateTime<Utc>, requests: usize, per_request: usize) -> Vec<String> {
    let events = requests * per_request;
    let first = now - TimeDelta::microseconds(10 * i64::try_from(events).unwrap_or_default());
    (0..requests)
        .map(|request| {
            let mut body = String::with_capacity(per_request * 480);
            for number in request * per_request..(request + 1) * per_request {
                body.push(if body.is_empty() { '[' } else { ',' });
                let time = first + TimeDelta::microseconds(10 * i64::try_from(number).unwrap_or_default());
                push_event(&mut body, number, time);
            }
            body.push(']');
            body
        })
        .collect()
}

fn push_event(body: &mut String, number: usize, time: DateTime<Utc>) {
    const LEVELS: [&str; 10] = [
        "INFO", "INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "INFO", "INFO", "ERROR",
    ];
    const SERVICES: [&str; 6] = ["orders", "payments", "catalog", "gateway", "search", "mail"];
    write!(
        body,
        "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"service\":\"{}\",\"host\":\"node-{:02}\",\
         \"message\":\"GET /api/v1/orders/{number} answered 200 in {} ms to client 10.4.117.{}, cache miss for shard {} of region eu-central-1\",\
         \"tags\":[\"web\",\"checked\"],\"performance_metrics\":{{\"duration_ms\":{}}},\
         \"fields\":{{\"region\":\"eu-central-1\",\"number\":{number},\"request\":{{\"method\":\"GET\",\"path\":\"/api/v1/orders\",\"bytes\":{}}}}}",
        time.to_rfc3339_opts(SecondsFormat::Micros, true),
        LEVELS[number % LEVELS.len()],
        SERVICES[number / 7 % SERVICES.len()],
        number % 16,
        number % 977,
        number % 250,
        number % 64,
        number % 977,
        number * 37 % 50_000,
    )
    .expect("a string takes text");
    // Spread, so that indexes meet values as they come: in no order.
    let spread = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    if number % 10 < 3 {
        let id = Uuid::from_u128((number as u128 / 70).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        write!(body, ",\"correlation_id\":\"{id}\"").expect("a string takes text");
    }
    if number % 5 == 1 {
        write!(body, ",\"user_id\":\"user-{:05}\"", spread >> 64 & 0x3fff).expect("a string takes text");
    }
    if number % 5 == 3 {
        write!(body, ",\"trace_id\":\"{spread:032x}\"").expect("a string takes text");
    }
    body.push('}');
}

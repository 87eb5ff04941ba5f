//! The events that are sent, without an id of their own, as Vector sends what it read from a file.

use std::{fmt::Write as _, ops::Range};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use uuid::Uuid;

const LEVELS: [&str; 10] = [
    "INFO", "INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "INFO", "INFO", "ERROR",
];
const SERVICES: [&str; 6] = ["orders", "payments", "catalog", "gateway", "search", "mail"];

/// What an event looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 450 bytes: a tenth errors, a tenth warnings; 30 % have a correlation id, 20 % a user, 20 % a trace.
    Typical,
    /// So many bytes (200 at least): the same levels, what is beyond a short message in `fields`.
    Bytes(usize),
}

/// Bodies of JSON arrays of the events with these numbers, which happened a few microseconds apart, up to `now`.
#[must_use]
pub fn bodies(now: DateTime<Utc>, numbers: Range<usize>, per_request: usize, shape: Shape) -> Vec<String> {
    let requests = numbers.clone().step_by(per_request);
    requests
        .map(|first| {
            let mut body = String::new();
            for number in first..(first + per_request).min(numbers.end) {
                body.push(if body.is_empty() { '[' } else { ',' });
                let before = i64::try_from(numbers.end - number).unwrap_or_default();
                let time = now - TimeDelta::microseconds(10 * before);
                match shape {
                    Shape::Typical => push_typical(&mut body, number, time),
                    Shape::Bytes(bytes) => push_of_size(&mut body, number, time, bytes),
                }
            }
            body.push(']');
            body
        })
        .collect()
}

/// Members of `fields`, of 47 bytes each, fill the event until it is about as large.
fn push_of_size(body: &mut String, number: usize, time: DateTime<Utc>, bytes: usize) {
    let enough = (body.len() + bytes).saturating_sub(24);
    write!(
        body,
        "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"service\":\"{}\",\
         \"message\":\"GET /api/v1/orders/{number} answered 200\",\"fields\":{{\"number\":{number}",
        time.to_rfc3339_opts(SecondsFormat::Micros, true),
        LEVELS[number % LEVELS.len()],
        SERVICES[number / 7 % SERVICES.len()],
    )
    .expect("a string takes text");
    for member in 0.. {
        if body.len() >= enough {
            break;
        }
        let text = spread(number * 1_000 + member);
        write!(body, ",\"member-{member:03}\":\"{text:032x}\"").expect("a string takes text");
    }
    body.push_str("}}");
}

/// Spread, so that indexes meet values as they come: in no order.
fn spread(number: usize) -> u128 {
    (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn push_typical(body: &mut String, number: usize, time: DateTime<Utc>) {
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
    if number % 10 < 3 {
        let id = Uuid::from_u128(spread(number / 70));
        write!(body, ",\"correlation_id\":\"{id}\"").expect("a string takes text");
    }
    if number % 5 == 1 {
        write!(body, ",\"user_id\":\"user-{:05}\"", spread(number) >> 64 & 0x3fff).expect("a string takes text");
    }
    if number % 5 == 3 {
        write!(body, ",\"trace_id\":\"{:032x}\"", spread(number)).expect("a string takes text");
    }
    body.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn events_are_about_as_large_as_asked() {
        for bytes in [200, 450, 2_000, 20_000] {
            let bodies = bodies(Utc::now(), 0..30, 10, Shape::Bytes(bytes));
            assert_eq!(bodies.len(), 3);
            for body in bodies {
                let events: Vec<Value> = serde_json::from_str(&body).expect("an array of events");
                assert_eq!(events.len(), 10);
                let each = body.len() / events.len();
                assert!(each.abs_diff(bytes) < 50, "{each} bytes instead of {bytes}");
            }
        }
    }

    #[test]
    fn a_body_holds_the_events_with_its_numbers() {
        let bodies = bodies(Utc::now(), 100..250, 100, Shape::Typical);
        let numbers: Vec<u64> = bodies
            .iter()
            .flat_map(|body| serde_json::from_str::<Vec<Value>>(body).expect("an array of events"))
            .map(|event| event["fields"]["number"].as_u64().expect("a number"))
            .collect();
        assert_eq!(numbers, (100..250).collect::<Vec<_>>());
    }
}

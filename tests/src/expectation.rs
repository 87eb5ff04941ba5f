//! What must be stored of a recorded event, by plain `serde_json`.
//!
//! Shares no code with the service and knows only the names that occur in the recordings.

use std::collections::BTreeSet;

use chrono::DateTime;
use serde_json::{Map, Value};

use crate::rows::StoredRow;

/// Differences between a recorded event and its row; empty if they agree.
///
/// The columns are compared with what the recorded names mean; everything else must be found under its own path in
/// `fields`, and `fields` must hold nothing that was not sent.
#[must_use]
pub fn differences(event: &Value, row: &StoredRow) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |what: &str, expected: Option<String>, actual: Option<&str>| {
        if expected.as_deref() != actual {
            found.push(format!("{what}: expected {expected:?}, stored {actual:?}"));
        }
    };
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.replace('\0', "\u{fffd}")),
        other => Some(other.to_string()),
    };
    if let Value::String(line) = event {
        expect("message", Some(line.clone()), row.text("message"));
        expect("level", Some("INFO".to_owned()), row.text("level"));
        return found;
    }
    let level = event["severity_text"]
        .as_str()
        .or(event["level"].as_str())
        .unwrap_or("INFO");
    expect("level", Some(level.to_uppercase()), row.text("level"));
    let service = first(event, &["service", "resources/service.name"]);
    expect(
        "service",
        text(&service).or(Some("unknown".to_owned())),
        row.text("service"),
    );
    expect(
        "host",
        text(&first(event, &["host", "resources/host.name"])),
        row.text("host"),
    );
    for column in ["correlation_id", "user_id", "trace_id", "span_id"] {
        expect(column, text(&event[column]), row.text(column));
    }
    match &event["message"] {
        Value::Object(_) => {
            let stored = row
                .text("message")
                .and_then(|text| serde_json::from_str::<Value>(text).ok());
            expect(
                "message",
                Some(event["message"].to_string()),
                stored.map(|value| value.to_string()).as_deref(),
            );
        }
        message => expect("message", text(message).or(Some(String::new())), row.text("message")),
    }
    if let Some(expected) = time_us(&event["timestamp"]) {
        expect(
            "timestamp",
            Some(expected.to_string()),
            Some(&row.timestamp_us.to_string()),
        );
    }
    let tags = event["tags"].as_array().cloned().unwrap_or_default();
    let tags: Vec<String> = tags.iter().filter_map(text).collect();
    expect("tags", Some(format!("{tags:?}")), Some(&format!("{:?}", row.tags)));
    compare_objects(event, row, &mut found);
    found
}

/// `performance_metrics`, `error_details` and `fields`.
fn compare_objects(event: &Value, row: &StoredRow, found: &mut Vec<String>) {
    for (name, stored) in [
        ("performance_metrics", &row.performance_metrics),
        ("error_details", &row.error_details),
    ] {
        let sent = if event[name].is_object() {
            event[name].clone()
        } else {
            Value::Object(Map::new())
        };
        if !same(&sent, stored) {
            found.push(format!("{name}: expected {sent}, stored {stored}"));
        }
    }
    let mut sent = BTreeSet::new();
    for (name, value) in event.as_object().expect("an event is an object") {
        if !COLUMNS.contains(&name.as_str()) {
            // Members of a sent `fields` stand beside the other unknown members.
            let path = if name == "fields" {
                String::new()
            } else {
                format!("/{name}")
            };
            leaves(&path, value, &mut sent);
        }
    }
    let mut stored = BTreeSet::new();
    for (name, value) in row.fields.as_object().expect("fields is an object") {
        if name != "_log_writer" {
            leaves(&format!("/{name}"), value, &mut stored);
        }
    }
    for leaf in stored.difference(&sent) {
        found.push(format!("fields has {} = {}, which was not sent", leaf.0, leaf.1));
    }
    for leaf in sent.difference(&stored) {
        // A nested name that became a column (`resources` → `service.name`) may have left `fields`.
        let in_a_column = row
            .texts
            .iter()
            .any(|(_, text)| plain(&Value::String(text.clone())) == leaf.1);
        let moved = in_a_column && leaf.0.starts_with("/resources/");
        if !moved && leaf.0 != "/severity_number" {
            found.push(format!("{} = {} was sent and is nowhere", leaf.0, leaf.1));
        }
    }
}

/// Names of the recordings that have a column of their own.
const COLUMNS: [&str; 13] = [
    "timestamp",
    "level",
    "severity_text",
    "message",
    "service",
    "host",
    "correlation_id",
    "user_id",
    "trace_id",
    "span_id",
    "tags",
    "error_details",
    "performance_metrics",
];

fn first(event: &Value, paths: &[&str]) -> Value {
    paths
        .iter()
        .map(|path| path.split('/').fold(event, |value, name| &value[name]))
        .find(|value| !value.is_null())
        .cloned()
        .unwrap_or(Value::Null)
}

/// A recorded time in microseconds: RFC 3339, or epoch milliseconds.
#[must_use]
pub fn time_us(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros()),
        Value::Number(number) => number.as_i64().map(|millis| millis * 1000),
        _ => None,
    }
}

/// Every scalar with its path, numbers by value and text as PostgreSQL can keep it.
fn leaves(path: &str, value: &Value, into: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                leaves(&format!("{path}/{name}"), member, into);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (position, element) in elements.iter().enumerate() {
                leaves(&format!("{path}/{position}"), element, into);
            }
        }
        scalar => {
            into.insert((path.to_owned(), plain(scalar)));
        }
    }
}

fn plain(scalar: &Value) -> String {
    match scalar {
        // PostgreSQL's `numeric` has no negative zero and writes 1e308 with all its digits.
        Value::Number(number) => number
            .as_f64()
            .map_or_else(|| number.to_string(), |number| format!("{}", number + 0.0)),
        Value::String(text) => Value::String(text.replace('\0', "\u{fffd}")).to_string(),
        other => other.to_string(),
    }
}

/// Whether two JSON values mean the same.
#[must_use]
pub fn same(left: &Value, right: &Value) -> bool {
    let (mut of_left, mut of_right) = (BTreeSet::new(), BTreeSet::new());
    leaves("", left, &mut of_left);
    leaves("", right, &mut of_right);
    of_left == of_right
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{differences, same};
    use crate::rows::StoredRow;

    #[test]
    fn values_are_the_same_by_meaning_and_not_by_text() {
        assert!(same(
            &json!({ "a": [1, { "b": -0.0 }] }),
            &json!({ "a": [1.0, { "b": 0 }] })
        ));
        for (left, right) in [
            (json!({ "a": 1 }), json!({ "a": "1" })),
            (json!({ "a": null }), json!({})),
            (json!([1, 2]), json!([2, 1])),
            (json!({ "a": {} }), json!({ "a": [] })),
        ] {
            assert!(!same(&left, &right), "{left} {right}");
        }
    }

    #[test]
    fn a_row_that_lost_invented_or_changed_something_differs() {
        let event = json!({ "timestamp": "1970-01-01T00:00:01Z", "level": "info", "message": "m", "x": { "y": 1 },
            "fields": { "n": 1 }, "tags": ["a"] });
        let row = |fields: Value, message: &str, timestamp_us: i64| StoredRow {
            id: uuid::Uuid::nil(),
            timestamp_us,
            tenant: "default".to_owned(),
            texts: [("level", "INFO"), ("service", "unknown"), ("message", message)]
                .map(|(name, text)| (name, text.to_owned()))
                .to_vec(),
            tags: vec!["a".to_owned()],
            fields,
            error_details: json!({}),
            performance_metrics: json!({}),
            ai_analysis: json!({}),
        };
        let whole = json!({ "x": { "y": 1 }, "n": 1, "_log_writer": { "nanos": 5 } });
        assert_eq!(
            differences(&event, &row(whole.clone(), "m", 1_000_000)),
            Vec::<String>::new()
        );
        assert_eq!(
            differences(&event, &row(json!({ "n": 1 }), "m", 1_000_000)).len(),
            1,
            "lost"
        );
        let invented = json!({ "x": { "y": 1 }, "n": 1, "z": 0 });
        assert_eq!(differences(&event, &row(invented, "m", 1_000_000)).len(), 1, "invented");
        assert_eq!(
            differences(&event, &row(whole.clone(), "n", 1_000_000)).len(),
            1,
            "changed"
        );
        assert_eq!(differences(&event, &row(whole, "m", 2)).len(), 1, "another time");
    }
}

//! Whole events: the shapes of real senders, the rules of normalising, and properties over any JSON.

mod properties;
mod rules;
mod senders;

use std::{borrow::Cow, time::Duration};

use serde_json::{Map, Value, json};

use super::{Arrival, LogEvent, Normaliser, RawEvent, Timestamp, Unusable};
use crate::config::Events;

/// 2026-11-21T00:00:00Z.
const ARRIVAL: Timestamp = Timestamp(1_795_219_200_000_000);

/// Section `[events]` as delivered.
pub(super) fn default_settings() -> Events {
    let file: toml::Table = toml::from_str(include_str!("../../../config.default.toml")).unwrap();
    file["events"].clone().try_into().unwrap()
}

fn arrival() -> Arrival {
    Arrival {
        at: ARRIVAL,
        tenant: None,
        wrapper: None,
    }
}

/// A normaliser with the delivered settings, changed.
fn normaliser(change: impl FnOnce(&mut Events)) -> Normaliser {
    let mut settings = default_settings();
    change(&mut settings);
    Normaliser::new(&settings).unwrap()
}

/// A normaliser that accepts times of ten years.
fn patient() -> Normaliser {
    normaliser(|settings| settings.accept_past = Duration::from_hours(24 * 3650))
}

fn object(text: &str) -> RawEvent<'_> {
    RawEvent::Object(text)
}

/// What an event says, as JSON: columns that are null, empty or have their default are left out.
fn shown(event: &LogEvent<'_>) -> Value {
    let text = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| json!(text));
    let parsed = |text: &str| (!text.is_empty()).then(|| serde_json::from_str::<Value>(text).unwrap());
    let mut shown = Map::new();
    for (name, value) in [
        ("id", event.own_id.map(|id| json!(id.to_string()))),
        (
            "time",
            (event.timestamp != ARRIVAL).then(|| json!(event.timestamp.to_rfc3339())),
        ),
        ("tenant", (*event.tenant != *"default").then(|| json!(*event.tenant))),
        (
            "level",
            (event.level != super::Level::Info).then(|| json!(event.level.as_str())),
        ),
        ("service", (event.service != "unknown").then(|| json!(event.service))),
        ("host", text(&event.host)),
        ("message", (!event.message.is_empty()).then(|| json!(event.message))),
        ("correlation_id", text(&event.correlation_id)),
        ("user_id", text(&event.user_id)),
        ("trace_id", text(&event.trace_id)),
        ("span_id", text(&event.span_id)),
        ("tags", (!event.tags.is_empty()).then(|| json!(event.tags))),
        ("fields", parsed(&event.fields)),
        ("error_details", event.error_details.as_deref().and_then(parsed)),
        (
            "performance_metrics",
            event.performance_metrics.as_deref().and_then(parsed),
        ),
        ("ai_analysis", event.ai_analysis.as_deref().and_then(parsed)),
    ] {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    }
    Value::Object(shown)
}

fn normalised(normaliser: &Normaliser, json: &str) -> Value {
    shown(&normaliser.normalise(object(json), &arrival()).unwrap())
}

fn refused(json: &str) -> Option<Unusable> {
    normaliser(|_| {}).normalise(object(json), &arrival()).err()
}

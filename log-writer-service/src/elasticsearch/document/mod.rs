//! The document of an event: a fixed set of names, written straight into the bulk body.
//!
//! Promises: one line of JSON that the mapping of `es-templates/logs_mappings.json` takes, whatever the event holds.
//! Free content stands only under `fields`, `error_details`, `performance_metrics` and `ai_analysis`, shaped.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{error::SearchError, json, promoted::Promoted, shape};
use crate::{
    config,
    event::{StoredEvent, Timestamp},
};

/// Writes documents.
#[derive(Debug, Clone)]
pub struct DocumentWriter {
    promoted: Promoted,
}

impl DocumentWriter {
    /// A writer for the promoted fields of the configuration.
    ///
    /// # Errors
    /// [`SearchError::Settings`] for a promoted name or type that cannot be.
    pub fn new(settings: &config::Elasticsearch) -> Result<Self, SearchError> {
        let promoted = Promoted::new(&settings.promote)?;
        Ok(Self { promoted })
    }

    /// Appends the event's document, one line without its end.
    pub fn write(&self, event: &StoredEvent, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"@timestamp\":");
        push_time(out, event.timestamp);
        out.extend_from_slice(b",\"event\":{\"id\":\"");
        out.extend_from_slice(
            event
                .id
                .hyphenated()
                .encode_lower(&mut Uuid::encode_buffer())
                .as_bytes(),
        );
        out.extend_from_slice(b"\",\"id_tail\":");
        let [.., a, b, c, d] = *event.id.as_bytes();
        json::push_number(out, u32::from_be_bytes([a, b, c, d]), 1);
        out.extend_from_slice(b",\"ingested\":");
        push_time(out, event.ingested_at);
        out.push(b'}');
        let texts = event.texts.columns();
        push_text(out, "level", Some(texts.level));
        push_text(out, "service", Some(texts.service));
        if let Some(host) = texts.host {
            out.extend_from_slice(b",\"host\":{\"name\":");
            json::push_string(out, host);
            out.push(b'}');
        }
        push_text(out, "message", Some(texts.message));
        push_text(out, "correlation_id", texts.correlation_id);
        push_text(out, "user_id", texts.user_id);
        push_text(out, "trace_id", texts.trace_id);
        push_text(out, "span_id", texts.span_id);
        push_text(out, "tenant", Some(&event.tenant));
        push_tags(out, &texts.tags);
        if let Some(fields) = texts.fields {
            self.promoted.push(out, fields);
            out.extend_from_slice(b",\"fields\":");
            shape::push_object(out, fields);
        }
        if let Some(details) = texts.error_details {
            out.extend_from_slice(b",\"error_details\":");
            shape::push_object(out, details);
        }
        if let Some(metrics) = texts.performance_metrics {
            out.extend_from_slice(b",\"performance_metrics\":");
            shape::push_metrics(out, metrics);
        }
        if let Some(analysis) = texts.ai_analysis {
            out.extend_from_slice(b",\"ai_analysis\":");
            shape::push_object(out, analysis);
        }
        out.push(b'}');
    }
}

fn push_text(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    let Some(text) = text else { return };
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    json::push_string(out, text);
}

fn push_tags(out: &mut Vec<u8>, tags: &[&str]) {
    for (position, tag) in tags.iter().enumerate() {
        out.extend_from_slice(if position == 0 { b",\"tags\":[" } else { b"," });
        json::push_string(out, tag);
    }
    if !tags.is_empty() {
        out.push(b']');
    }
}

/// Writes `"2026-11-21T00:00:00.123456Z"`: always six digits.
fn push_time(out: &mut Vec<u8>, timestamp: Timestamp) {
    out.push(b'"');
    match timestamp.rfc3339_bytes() {
        Some(text) => out.extend_from_slice(&text),
        // Beyond the year 262,000 it is chrono's last; PostgreSQL's own times end before 294,277.
        None => {
            let time = DateTime::<Utc>::from_timestamp_micros(timestamp.0).unwrap_or(DateTime::<Utc>::MAX_UTC);
            out.extend_from_slice(Timestamp::from(time).to_rfc3339().as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;

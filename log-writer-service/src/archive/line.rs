//! A line of an archive: an event with all its columns but the batch, under names that ingest understands, too.

use std::{borrow::Cow, sync::Arc};

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    event::{Level, LogEvent, StoredEvent, TextColumns, Timestamp},
    timescale::ArchivedEvent,
};

/// In order of a file.
pub(super) type Key = (Timestamp, Uuid);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    event_id: Uuid,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    ingested_at: Cow<'a, str>,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    span_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    fields: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error_details: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    performance_metrics: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ai_analysis: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<i64>,
}

/// A line that was read.
pub(super) struct Read<'a> {
    pub(super) id: Uuid,
    pub(super) event: LogEvent<'a>,
    pub(super) ingested_at: Timestamp,
    pub(super) pattern: Option<i64>,
}

/// Appends an event and a line feed.
pub(super) fn write(archived: &ArchivedEvent, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let ArchivedEvent { event, pattern } = archived;
    // No `..`: a column that is added must be archived, too.
    let StoredEvent {
        id,
        timestamp,
        ingested_at,
        batch_id: _,
        tenant,
        texts,
    } = event;
    let TextColumns {
        level,
        service,
        host,
        message,
        correlation_id,
        user_id,
        trace_id,
        span_id,
        fields,
        error_details,
        performance_metrics,
        ai_analysis,
        tags,
    } = texts.columns();
    let line = Line {
        event_id: *id,
        timestamp: timestamp.to_rfc3339().into(),
        ingested_at: ingested_at.to_rfc3339().into(),
        tenant: Cow::Borrowed(tenant),
        level: Cow::Borrowed(level),
        service: Cow::Borrowed(service),
        host: host.map(Cow::Borrowed),
        message: Cow::Borrowed(message),
        correlation_id: correlation_id.map(Cow::Borrowed),
        user_id: user_id.map(Cow::Borrowed),
        trace_id: trace_id.map(Cow::Borrowed),
        span_id: span_id.map(Cow::Borrowed),
        tags: tags.into_iter().map(Cow::Borrowed).collect(),
        fields: raw(fields)?,
        error_details: raw(error_details)?,
        performance_metrics: raw(performance_metrics)?,
        ai_analysis: raw(ai_analysis)?,
        pattern: *pattern,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}

fn raw(json: Option<&str>) -> Result<Option<&RawValue>, serde_json::Error> {
    json.map(serde_json::from_str).transpose()
}

/// Reads a line of a tenant's file.
pub(super) fn read<'a>(line: &'a [u8], tenant: &Arc<str>) -> Result<Read<'a>, String> {
    let line: Line<'a> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if *line.tenant != **tenant {
        return Err(format!("an event of tenant {:?}", line.tenant));
    }
    let json = |json: Option<&RawValue>| json.map(|json| json.get().to_owned());
    let event = LogEvent {
        own_id: Some(line.event_id),
        claimed_time: None,
        timestamp: time(&line.timestamp)?,
        tenant: Arc::clone(tenant),
        level: level(&line.level)?,
        service: line.service,
        host: line.host,
        message: line.message,
        correlation_id: line.correlation_id,
        user_id: line.user_id,
        trace_id: line.trace_id,
        span_id: line.span_id,
        tags: line.tags,
        fields: json(line.fields).unwrap_or_default().into(),
        error_details: json(line.error_details),
        performance_metrics: json(line.performance_metrics),
        ai_analysis: json(line.ai_analysis),
    };
    Ok(Read {
        id: line.event_id,
        event,
        ingested_at: time(&line.ingested_at)?,
        pattern: line.pattern,
    })
}

/// Where a line stands in its file.
pub(super) fn key(line: &[u8]) -> Result<Key, String> {
    #[derive(Deserialize)]
    struct Keyed<'a> {
        event_id: Uuid,
        #[serde(borrow)]
        timestamp: Cow<'a, str>,
    }
    let keyed: Keyed<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok((time(&keyed.timestamp)?, keyed.event_id))
}

fn time(text: &str) -> Result<Timestamp, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| Timestamp::from(time.to_utc()))
        .map_err(|error| format!("time {text:?}: {error}"))
}

fn level(text: &str) -> Result<Level, String> {
    use Level::{Debug, Error, Fatal, Info, Trace, Warn};
    [Trace, Debug, Info, Warn, Error, Fatal]
        .into_iter()
        .find(|level| level.as_str() == text)
        .ok_or_else(|| format!("level {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StoredTexts;

    fn archived() -> ArchivedEvent {
        ArchivedEvent {
            event: StoredEvent {
                id: Uuid::from_u128(7),
                timestamp: Timestamp(1_795_176_000_000_001),
                ingested_at: Timestamp(1_795_176_000_999_999),
                batch_id: 5,
                tenant: Arc::from("../blue \"x\"\n"),
                texts: StoredTexts::from(TextColumns {
                    level: "WARN",
                    service: "s\u{1}",
                    message: "é \\ \u{10ffff}\n",
                    correlation_id: Some(""),
                    user_id: Some("u"),
                    fields: Some(r#"{"a": 1.000, "b": 12345678901234567890123.5, "c": "\ud83d\ude00"}"#),
                    performance_metrics: Some("{}"),
                    ai_analysis: Some(r#"{"cause": null}"#),
                    tags: vec!["", "a,b"],
                    ..TextColumns::default()
                }),
            },
            pattern: Some(-3),
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let ArchivedEvent { event, pattern } = archived();
        let mut line = Vec::new();
        write(&archived(), &mut line).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        let read = read(&line, &event.tenant).unwrap();
        let sent = event.texts.columns();
        assert_eq!(
            (read.id, read.ingested_at, read.pattern),
            (event.id, event.ingested_at, pattern)
        );
        assert_eq!(key(&line).unwrap(), (event.timestamp, event.id));
        assert_eq!((read.event.timestamp, read.event.level), (event.timestamp, Level::Warn));
        assert_eq!(
            (&*read.event.service, &*read.event.message),
            (sent.service, sent.message)
        );
        assert_eq!(
            (read.event.host, read.event.correlation_id.as_deref()),
            (None, Some(""))
        );
        assert_eq!(read.event.tags, sent.tags);
        assert_eq!(Some(&*read.event.fields), sent.fields, "digit by digit");
        assert_eq!(read.event.performance_metrics.as_deref(), sent.performance_metrics);
        assert_eq!(
            (read.event.error_details, read.event.ai_analysis.as_deref()),
            (None, sent.ai_analysis)
        );
    }

    #[test]
    fn a_line_of_another_tenant_or_with_more_than_is_known_is_refused() {
        let mut line = Vec::new();
        write(&archived(), &mut line).unwrap();
        assert!(read(&line, &Arc::from("default")).is_err());
        let more = String::from_utf8(line)
            .unwrap()
            .replace("\"event_id\"", "\"new\":1,\"event_id\"");
        assert!(read(more.as_bytes(), &archived().event.tenant).is_err());
    }
}

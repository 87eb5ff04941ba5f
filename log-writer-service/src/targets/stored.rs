//! One event: normalised to what PostgreSQL takes, encoded as its COPY reads it, written as Elasticsearch takes it.

use std::sync::LazyLock;

use serde_json::Value;

use super::wire::is_json;
use crate::{
    config::{Config, DEFAULT_FILE},
    elasticsearch::DocumentWriter,
    event::{
        Arrival, DigestParts, LogEvent, Normaliser, RawEvent, StoredEvent, StoredTexts, TextColumns, Timestamp,
        derive_id, mask, request_digest,
    },
    timescale::{EncodedRows, copy_stream, read_stream},
};

/// 2026-11-21T00:00:00Z.
const ARRIVAL: Timestamp = Timestamp(1_795_219_200_000_000);
/// Bytes of a column that is indexed.
const INDEXED_BYTES_MAX: usize = 512;
/// A mask has at most five letters for one.
const PATTERN_BYTES_MAX: usize = 5 * 512;
/// What the mapping of Elasticsearch takes: bytes of a key, nesting of a flattened field.
const KEY_BYTES_MAX: usize = 512;
const DEPTH_MAX: usize = 50;

pub(super) static CONFIG: LazyLock<Config> =
    LazyLock::new(|| toml::from_str(DEFAULT_FILE).expect("the defaults can be read"));

fn normaliser(depth_max: usize) -> Normaliser {
    let mut events = CONFIG.events.clone();
    events.depth_max = depth_max;
    events.body_tenants = vec!["acme".to_owned()];
    Normaliser::new(&events).expect("the default aliases can be used")
}

/// What events of these bytes become: as text, and as JSON if they are.
fn events<'a>(text: &'a str, normaliser: &Normaliser) -> Vec<LogEvent<'a>> {
    let arrival = Arrival {
        at: ARRIVAL,
        tenant: None,
        wrapper: None,
    };
    let raws = [
        RawEvent::Text(text.into()),
        RawEvent::Value(text),
        RawEvent::Object(text),
    ];
    let mut events = Vec::new();
    for raw in raws {
        let normal = normaliser.normalise(raw.clone(), &arrival);
        assert_eq!(normal, normaliser.normalise(raw.clone(), &arrival));
        let is_whole = match &raw {
            RawEvent::Text(_) => true,
            RawEvent::Value(_) | RawEvent::Object(_) => is_json(text),
        };
        if matches!(raw, RawEvent::Object(_)) {
            assert_first(text, normal.as_ref().ok(), normaliser, &arrival);
        }
        if let Ok(event) = normal {
            assert!(is_whole, "read as JSON, which it is not: {text:?}");
            events.push(event);
        } else {
            assert!(
                !is_whole || matches!(raw, RawEvent::Object(_)),
                "any JSON value is an event: {text:?}"
            );
        }
    }
    events
}

/// The object that a text begins with is the same event where it stands as when it is cut out first.
fn assert_first(text: &str, whole: Option<&LogEvent<'_>>, normaliser: &Normaliser, arrival: &Arrival) {
    let Some((event, length)) = normaliser.normalise_first(text, arrival) else {
        assert_eq!(whole, None, "not read where it stands: {text:?}");
        return;
    };
    let (object, after) = text.split_at(length);
    assert_eq!(
        normaliser.normalise(RawEvent::Object(object), arrival).as_ref(),
        Ok(&event)
    );
    let is_alone = after.trim_matches([' ', '\n', '\r', '\t']).is_empty();
    assert_eq!(whole, is_alone.then_some(&event), "{text:?}");
}

/// Any event: PostgreSQL takes what it becomes.
pub fn normalise(data: &[u8]) {
    static DELIVERED: LazyLock<Normaliser> = LazyLock::new(|| normaliser(CONFIG.events.depth_max));
    static SHALLOW: LazyLock<Normaliser> = LazyLock::new(|| normaliser(3));
    let text = String::from_utf8_lossy(data);
    for (normaliser, depth_max) in [(&*DELIVERED, CONFIG.events.depth_max), (&*SHALLOW, 3)] {
        for event in events(&text, normaliser) {
            assert_storable(&event, depth_max);
        }
    }
}

fn assert_storable(event: &LogEvent<'_>, depth_max: usize) {
    let indexed = [
        Some(&event.service),
        event.host.as_ref(),
        event.correlation_id.as_ref(),
        event.user_id.as_ref(),
        event.trace_id.as_ref(),
        event.span_id.as_ref(),
    ];
    for text in indexed.into_iter().flatten() {
        assert!(text.len() <= INDEXED_BYTES_MAX && !text.contains('\0'), "{text:?}");
    }
    for text in event.tags.iter().chain([&event.message]) {
        assert!(!text.contains('\0'), "{text:?}");
    }
    for json in columns(event).into_iter().flatten() {
        let value: Value =
            serde_json::from_str(json).expect("a column of JSON is JSON that a double and UTF-8 can hold");
        // A member's value may be as deep as that; the column's own object is around it.
        assert!(value.is_object() && depth(&value) <= depth_max + 1, "{json}");
        assert_texts(&value, &|text| assert!(!text.contains('\0'), "{json}"));
    }
    assert!(mask(&event.message).len() <= PATTERN_BYTES_MAX);
    assert!(["default", "acme"].contains(&&*event.tenant));
}

fn columns<'e>(event: &'e LogEvent<'_>) -> [Option<&'e str>; 4] {
    [
        Some(&*event.fields).filter(|fields| !fields.is_empty()),
        event.error_details.as_deref(),
        event.performance_metrics.as_deref(),
        event.ai_analysis.as_deref(),
    ]
}

/// Containers within one another; recursion is bounded by what `serde_json` reads.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Shows every string and every name to `check`.
fn assert_texts(value: &Value, check: &impl Fn(&str)) {
    match value {
        Value::String(text) => check(text),
        Value::Array(values) => values.iter().for_each(|value| assert_texts(value, check)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            check(name);
            assert_texts(value, check);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Encoded and read again by the reader of PostgreSQL's own COPY: the same rows.
fn stored(data: &[u8]) -> Vec<StoredEvent> {
    static NORMALISER: LazyLock<Normaliser> = LazyLock::new(|| normaliser(CONFIG.events.depth_max));
    let text = String::from_utf8_lossy(data);
    let events = events(&text, &NORMALISER);
    let digest = request_digest(&DigestParts {
        tenant: "default",
        path: "/ingest",
        content_type: None,
        content_encoding: None,
        idempotency_key: None,
        body: data,
    });
    let mut rows = EncodedRows::new();
    for (row, event) in events.iter().enumerate() {
        rows.push(event, ARRIVAL, None);
        let derived = derive_id(event.claimed_time, &digest, 0);
        rows.set_ids(row, event.own_id.unwrap_or(derived), derived);
    }
    let read = read_stream(&copy_stream(&rows)).expect("a stream that its reader takes to the last byte");
    assert_eq!(read.len(), events.len());
    for (read, event) in read.iter().zip(&events) {
        assert_same(read, event);
    }
    read
}

/// Any event: COPY carries it unchanged.
pub fn copy(data: &[u8]) {
    stored(data);
}

fn assert_same(read: &StoredEvent, event: &LogEvent<'_>) {
    assert_eq!((read.timestamp, read.ingested_at), (event.timestamp, ARRIVAL));
    assert_eq!(event.own_id.unwrap_or(read.id), read.id);
    let texts = read.texts.columns();
    assert_eq!((&read.tenant, texts.level), (&event.tenant, event.level.as_str()));
    assert_eq!((texts.service, texts.message), (&*event.service, &*event.message));
    for (read, sent) in [
        (texts.host, &event.host),
        (texts.correlation_id, &event.correlation_id),
        (texts.user_id, &event.user_id),
        (texts.trace_id, &event.trace_id),
        (texts.span_id, &event.span_id),
    ] {
        assert_eq!(read, sent.as_deref());
    }
    assert_eq!(texts.tags, event.tags);
    let read = [
        texts.fields,
        texts.error_details,
        texts.performance_metrics,
        texts.ai_analysis,
    ];
    assert_eq!(read, columns(event));
}

/// Any stored event: its document is one line of JSON that the mapping takes.
pub fn document(data: &[u8]) {
    static WRITER: LazyLock<DocumentWriter> =
        LazyLock::new(|| DocumentWriter::new(&CONFIG.elasticsearch).expect("nothing is promoted"));
    for mut event in stored(data) {
        let sent = event.texts.columns();
        let objects = [
            sent.fields,
            sent.error_details,
            sent.performance_metrics,
            sent.ai_analysis,
        ]
        .map(|json| json.map(as_jsonb));
        let [fields, error_details, performance_metrics, ai_analysis] = objects.each_ref().map(Option::as_deref);
        event.texts = StoredTexts::from(TextColumns {
            fields,
            error_details,
            performance_metrics,
            ai_analysis,
            ..sent
        });
        let mut out = Vec::new();
        WRITER.write(&event, &mut out);
        assert!(!out.contains(&b'\n'));
        let document: Value = serde_json::from_slice(&out).expect("a document is JSON");
        assert_eq!(
            document.get("message").and_then(Value::as_str),
            Some(event.texts.columns().message)
        );
        for name in ["fields", "error_details", "performance_metrics", "ai_analysis"] {
            let free = document.get(name).unwrap_or(&Value::Null);
            assert!(free.is_null() || free.is_object() && depth(free) <= DEPTH_MAX, "{free}");
            assert_keys(free);
        }
    }
}

fn assert_keys(value: &Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                assert!(name.len() <= KEY_BYTES_MAX && !name.contains('\0'), "{name:?}");
                assert_keys(value);
            }
        }
        Value::Array(values) => values.iter().for_each(assert_keys),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// As the type gives it back: each name once, a blank after `:` and `,`.
fn as_jsonb(json: &str) -> String {
    let value: Value = serde_json::from_str(json).expect("a column of JSON is JSON");
    let mut out = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut out, Blanks);
    serde::Serialize::serialize(&value, &mut writer).expect("a value is JSON");
    String::from_utf8(out).expect("JSON is UTF-8")
}

struct Blanks;

impl serde_json::ser::Formatter for Blanks {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

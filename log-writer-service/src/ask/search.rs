//! `search_logs` in Elasticsearch's words: the same filters, the text as a phrase, newest first.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::elasticsearch::{FoundEvent, Targets};

/// Rows of a page where the caller names no number, as in `search_logs`.
const LIMIT: usize = 100;
/// Rows of a page at most, as in `search_logs` and in `index.max_result_window`.
const LIMIT_MAX: usize = 10_000;

/// What is to be asked.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) index: String,
    pub(super) body: Value,
}

/// The request for these parameters; `None` if there is no text in them, or something that only PostgreSQL understands.
pub(super) fn request(parameters: &Map<String, Value>, targets: &Targets) -> Option<Request> {
    let text = |name: &str| parameters.get(name).and_then(Value::as_str);
    let query = text("query")?;
    if parameters.contains_key("fields") {
        return None;
    }
    let index = targets.searched(text("tenant"))?;
    let mut filters = vec![json!({"match_phrase": {"message": {"query": query}}})];
    for (name, field) in [
        ("service", "service"),
        ("user_id", "user_id"),
        ("correlation_id", "correlation_id"),
        ("tenant", "tenant"),
    ] {
        if let Some(value) = text(name) {
            filters.push(json!({"term": {field: value}}));
        }
    }
    if let Some(level) = text("level") {
        filters.push(json!({"term": {"level": level.to_uppercase()}}));
    }
    if let Some(id) = text("trace_id") {
        filters.push(json!({"terms": {"trace_id": [id, id.to_lowercase()]}}));
    }
    for tag in parameters.get("tags").and_then(Value::as_array).into_iter().flatten() {
        filters.push(json!({"term": {"tags": tag}}));
    }
    if let Some(range) = time_range(parameters)? {
        filters.push(json!({"range": {"@timestamp": range}}));
    }
    let mut body = json!({
        "size": limit(parameters),
        "_source": false,
        "track_total_hits": false,
        "query": {"bool": {"filter": filters}},
        "sort": [
            {"@timestamp": {"order": "desc", "format": "strict_date_optional_time_nanos"}},
            {"event.id": {"order": "desc"}},
            {"tenant": {"order": "desc"}},
        ],
    });
    if let Some(before) = text("before") {
        let mut parts = before.splitn(3, '/');
        let after: Vec<&str> = parts.by_ref().collect();
        if after.len() < 3 {
            return None;
        }
        if let Some(body) = body.as_object_mut() {
            body.insert("search_after".to_owned(), json!(after));
        }
    }
    Some(Request { index, body })
}

/// The time asked for, the last hour by the rule of `search_logs`; the outer `None`: a time that only PostgreSQL can read.
fn time_range(parameters: &Map<String, Value>) -> Option<Option<Map<String, Value>>> {
    let names = [
        "start_time",
        "end_time",
        "before",
        "user_id",
        "correlation_id",
        "trace_id",
    ];
    let mut range = Map::new();
    if names.iter().all(|name| !parameters.contains_key(*name)) {
        range.insert("gte".to_owned(), json!("now-1h"));
    }
    for (name, bound) in [("start_time", "gte"), ("end_time", "lt")] {
        if let Some(time) = parameters.get(name).and_then(Value::as_str) {
            let time = DateTime::parse_from_rfc3339(time).ok()?;
            range.insert(bound.to_owned(), json!(time.to_rfc3339()));
        }
    }
    Some(Some(range).filter(|range| !range.is_empty()))
}

/// How many rows the caller asked for.
pub(super) fn limit(parameters: &Map<String, Value>) -> usize {
    let asked = parameters.get("limit").and_then(Value::as_i64);
    asked.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(1).clamp(1, LIMIT_MAX))
}

/// What PostgreSQL needs to find the same events; `None`: there are none.
pub(super) fn keys(found: &[FoundEvent]) -> Option<Value> {
    let (newest, oldest) = (found.first()?, found.last()?);
    Some(json!({
        "keys": found.iter().map(|event| json!({
            "id": event.id, "timestamp": rfc3339(event.timestamp), "tenant": event.tenant,
        })).collect::<Vec<Value>>(),
        "first": rfc3339(oldest.timestamp),
        "last": rfc3339(newest.timestamp),
    }))
}

/// `page_end` of the last event, as `search_logs` writes it.
pub(super) fn page_end(found: &[FoundEvent]) -> Option<String> {
    let last = found.last()?;
    Some(format!("{}/{}/{}", rfc3339(last.timestamp), last.id, last.tenant))
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

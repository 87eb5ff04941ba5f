//! Everything of the fake but `_bulk`: objects (templates, policy), data streams, `_mget`, deletes, the simulation.

use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::{State, lock, server::Reply};

pub(super) fn answer(state: &Arc<Mutex<State>>, method: &str, path_and_query: &str, body: &[u8]) -> Reply {
    let mut state = lock(state);
    state.requests.push(format!("{method} {path_and_query}"));
    let path = path_and_query
        .split('?')
        .next()
        .unwrap_or_default()
        .trim_matches('/')
        .replace("%2F", "/");
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let segments: Vec<&str> = path.split('/').collect();
    let (status, answer) = match (method, segments.as_slice()) {
        ("GET" | "HEAD", [""]) => (
            200,
            json!({ "name": "fake", "cluster_name": "fake", "cluster_uuid": "fake",
                "version": { "number": "8.19.2", "build_flavor": "default", "lucene_version": "9.12.2" },
                "tagline": "You Know, for Search" }),
        ),
        ("GET", ["_cluster", "health", ..]) => (200, json!({ "status": "green", "timed_out": false })),
        ("PUT", ["_ilm", "policy", _] | ["_component_template" | "_index_template", _]) => {
            state.objects.insert(path.clone(), body);
            (200, json!({ "acknowledged": true }))
        }
        ("GET" | "HEAD", ["_ilm", "policy", _] | ["_component_template" | "_index_template", _]) => {
            get_object(&state, &path)
        }
        ("GET", ["_index_template"]) => (200, all_templates(&state)),
        ("POST", ["_index_template", "_simulate_index", name]) => (200, simulate(&state, name)),
        ("POST" | "GET", ["_data_stream", name] | [name, "_mget"]) if may_not_read(&state, name) => (
            403,
            error(
                403,
                "security_exception",
                &format!("action [indices:data/read/mget] is unauthorized on [{name}]"),
            ),
        ),
        ("GET", ["_data_stream", name]) => get_stream(&state, name),
        ("PUT", ["_data_stream", name]) => {
            state.roll_over(name);
            (200, json!({ "acknowledged": true }))
        }
        ("POST", [stream, "_rollover"]) => {
            state.roll_over(stream);
            (200, json!({ "acknowledged": true, "rolled_over": true }))
        }
        ("POST" | "GET", [index, "_mget"]) => (200, mget(&state, Some(*index), &body)),
        ("POST" | "GET", ["_mget"]) => (200, mget(&state, None, &body)),
        ("GET", [index, "_mapping"]) => get_mapping(&state, index),
        ("DELETE", [index, "_doc", id]) => delete(&mut state, index, id),
        ("POST" | "GET", [_, "_refresh"]) => (200, json!({ "_shards": { "failed": 0 } })),
        _ => (
            400,
            error(
                400,
                "illegal_argument_exception",
                &format!("the fake does not know {method} /{path}"),
            ),
        ),
    };
    Reply::Whole(status, answer)
}

/// Whether look-ups in this stream or backing index are refused.
fn may_not_read(state: &State, name: &str) -> bool {
    let refused = state.look_ups_refused.as_deref();
    refused.is_some_and(|stream| name == stream || name.starts_with(&format!(".ds-{stream}-")))
}

/// The body of an error that concerns the whole request.
pub(super) fn error(status: u16, kind: &str, reason: &str) -> Value {
    let cause = json!({ "type": kind, "reason": reason });
    json!({ "error": { "root_cause": [cause], "type": kind, "reason": reason }, "status": status })
}

/// The data stream template of highest priority whose pattern matches.
pub(super) fn template_for<'a>(state: &'a State, name: &str) -> Option<&'a Value> {
    state
        .objects
        .iter()
        .filter(|(path, template)| {
            let patterns = template["index_patterns"].as_array().cloned().unwrap_or_default();
            path.starts_with("_index_template/")
                && patterns
                    .iter()
                    .any(|pattern| matches(pattern.as_str().unwrap_or_default(), name))
        })
        .map(|(_, template)| template)
        .max_by_key(|template| template["priority"].as_i64().unwrap_or(0))
        .filter(|template| !template["data_stream"].is_null())
}

/// `*` at any place.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    for (position, part) in parts.iter().enumerate() {
        if position + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
    }
    rest.is_empty()
}

fn get_object(state: &State, path: &str) -> (u16, Value) {
    let (kind, name) = path.rsplit_once('/').expect("an object has a kind and a name");
    let Some(object) = state.objects.get(path) else {
        return (
            404,
            error(404, "resource_not_found_exception", &format!("[{name}] missing")),
        );
    };
    let answer = match kind {
        "_ilm/policy" => {
            let mut shown = object.clone();
            shown["version"] = json!(1);
            shown["modified_date"] = json!("2026-11-21T00:00:00.000Z");
            json!({ name: shown })
        }
        "_component_template" => {
            json!({ "component_templates": [{ "name": name, "component_template": with_settings_as_shown(object) }] })
        }
        _ => json!({ "index_templates": [{ "name": name, "index_template": with_settings_as_shown(object) }] }),
    };
    (200, answer)
}

fn all_templates(state: &State) -> Value {
    let templates = state.objects.iter().filter_map(|(path, object)| {
        let name = path.strip_prefix("_index_template/")?;
        Some(json!({ "name": name, "index_template": with_settings_as_shown(object) }))
    });
    json!({ "index_templates": templates.collect::<Vec<Value>>() })
}

/// Elasticsearch shows settings nested under `index` and every scalar of them as text.
fn with_settings_as_shown(object: &Value) -> Value {
    let mut shown = object.clone();
    if let Some(settings) = shown.pointer_mut("/template/settings") {
        *settings = settings_as_shown(settings);
    }
    shown
}

fn settings_as_shown(settings: &Value) -> Value {
    let mut nested = Map::new();
    for (name, value) in flat("", settings) {
        let name = if name.starts_with("index.") {
            name
        } else {
            format!("index.{name}")
        };
        let (folders, leaf) = name.rsplit_once('.').expect("a prefix was added");
        let mut place = &mut nested;
        for folder in folders.split('.') {
            place = place
                .entry(folder)
                .or_insert_with(|| json!({}))
                .as_object_mut()
                .expect("a setting is no folder of settings");
        }
        place.insert(leaf.to_owned(), value);
    }
    Value::Object(nested)
}

fn flat(prefix: &str, value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| {
                let name = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flat(&name, member)
            })
            .collect(),
        Value::String(_) | Value::Array(_) => vec![(prefix.to_owned(), value.clone())],
        scalar => vec![(prefix.to_owned(), Value::String(scalar.to_string()))],
    }
}

fn simulate(state: &State, name: &str) -> Value {
    let Some(template) = template_for(state, name) else {
        return json!({ "template": { "settings": {}, "mappings": {}, "aliases": {} }, "overlapping": [] });
    };
    let mut merged = json!({ "settings": {}, "mappings": {}, "aliases": {} });
    let components = template["composed_of"].as_array().cloned().unwrap_or_default();
    let components = components.iter().filter_map(|component| {
        let name = component.as_str().unwrap_or_default();
        state.objects.get(&format!("_component_template/{name}"))
    });
    for part in components.chain([template]) {
        merge(
            &mut merged["settings"],
            &settings_as_shown(&part["template"]["settings"]),
        );
        merge(&mut merged["mappings"], &part["template"]["mappings"]);
    }
    merged["mappings"]["_data_stream_timestamp"] = json!({ "enabled": true });
    if let Some(dynamic) = merged.pointer_mut("/mappings/dynamic") {
        *dynamic = Value::String(dynamic.as_str().map_or_else(|| dynamic.to_string(), str::to_owned));
    }
    json!({ "template": merged, "overlapping": [] })
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}

fn get_stream(state: &State, name: &str) -> (u16, Value) {
    let found: Vec<Value> = state
        .streams
        .iter()
        .filter(|(stream, _)| matches(name, stream))
        .map(|(stream, indices)| {
            let shown: Vec<Value> = indices
                .iter()
                .map(|index| json!({ "index_name": index.name, "index_uuid": index.name }))
                .collect();
            json!({ "name": stream, "timestamp_field": { "name": "@timestamp" }, "indices": shown,
                "generation": indices.len(), "status": "GREEN", "template": "logs_template" })
        })
        .collect();
    if found.is_empty() && !name.contains('*') {
        return (
            404,
            error(404, "index_not_found_exception", &format!("no such index [{name}]")),
        );
    }
    (200, json!({ "data_streams": found }))
}

/// Indices are made by the templates that stand when it is asked: the fake keeps no mapping of its own.
fn get_mapping(state: &State, index: &str) -> (u16, Value) {
    let stream = state
        .streams
        .iter()
        .find(|(_, indices)| indices.iter().any(|backing| backing.name == index));
    match stream {
        Some((stream, _)) => (
            200,
            json!({ index: { "mappings": simulate(state, stream)["template"]["mappings"] } }),
        ),
        None => (
            404,
            error(404, "index_not_found_exception", &format!("no such index [{index}]")),
        ),
    }
}

fn mget(state: &State, index: Option<&str>, body: &Value) -> Value {
    let mut asked: Vec<(String, String)> = Vec::new();
    for id in body["ids"].as_array().into_iter().flatten() {
        asked.push((
            index.unwrap_or_default().to_owned(),
            id.as_str().unwrap_or_default().to_owned(),
        ));
    }
    for document in body["docs"].as_array().into_iter().flatten() {
        let named = document["_index"].as_str().or(index).unwrap_or_default();
        asked.push((
            named.to_owned(),
            document["_id"].as_str().unwrap_or_default().to_owned(),
        ));
    }
    let documents: Vec<Value> = asked
        .iter()
        .map(|(index, id)| {
            let backing = state.streams.values().flatten().find(|backing| &backing.name == index);
            match backing.map(|backing| backing.documents.get(id)) {
                None => json!({ "_index": index, "_id": id,
                    "error": { "type": "index_not_found_exception", "reason": format!("no such index [{index}]") } }),
                Some(None) => json!({ "_index": index, "_id": id, "found": false }),
                Some(Some(stored)) => json!({ "_index": index, "_id": id, "found": true, "_version": 1,
                    "_seq_no": stored.sequence, "_primary_term": 1, "_source": stored.source }),
            }
        })
        .collect();
    json!({ "docs": documents })
}

fn delete(state: &mut State, index: &str, id: &str) -> (u16, Value) {
    let backing = state
        .streams
        .values_mut()
        .flatten()
        .find(|backing| backing.name == index);
    match backing.map(|backing| backing.documents.remove(id)) {
        Some(Some(_)) => (200, json!({ "_index": index, "_id": id, "result": "deleted" })),
        Some(None) => (404, json!({ "_index": index, "_id": id, "result": "not_found" })),
        None => (
            404,
            error(404, "index_not_found_exception", &format!("no such index [{index}]")),
        ),
    }
}

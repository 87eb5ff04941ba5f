//! Whether an object in the cluster is the one that should be there. Pure.
//!
//! Elasticsearch gives back another text than it got: settings are strings under nested names, booleans of mappings may
//! be strings, defaults of policies and data streams are filled in, newer versions add dates. Both sides are brought
//! into one form; whatever differs then was changed by somebody.

use serde_json::{Map, Value};

use super::objects::{MANAGED_BY, ObjectKind};

/// Members that Elasticsearch adds to a template by itself.
const STAMPS: [&str; 4] = [
    "created_date",
    "created_date_millis",
    "modified_date",
    "modified_date_millis",
];

/// The object out of the answer to its `GET`, in the form of its `PUT`.
pub(super) fn unwrap(kind: ObjectKind, name: &str, answer: &Value) -> Option<Value> {
    let listed = |list: &str, member: &str| {
        let found = answer
            .get(list)?
            .as_array()?
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))?;
        found.get(member).cloned()
    };
    match kind {
        ObjectKind::Policy => {
            let policy = answer.get(name)?.get("policy")?.clone();
            Some(Value::Object(Map::from_iter([("policy".to_owned(), policy)])))
        }
        ObjectKind::ComponentTemplate => listed("component_templates", "component_template"),
        ObjectKind::IndexTemplate => listed("index_templates", "index_template"),
    }
}

/// Whether the object says that it is ours.
pub(super) fn is_ours(kind: ObjectKind, object: &Value) -> bool {
    let named = match kind {
        ObjectKind::Policy => object.get("policy"),
        ObjectKind::ComponentTemplate | ObjectKind::IndexTemplate => Some(object),
    };
    let managed_by = named.and_then(|named| named.pointer("/_meta/managed_by"));
    managed_by.and_then(Value::as_str) == Some(MANAGED_BY)
}

/// Whether the two are the same object.
pub(super) fn is_same(kind: ObjectKind, wanted: &Value, found: &Value) -> bool {
    normal(kind, wanted) == normal(kind, found)
}

fn normal(kind: ObjectKind, object: &Value) -> Value {
    let mut object = object.clone();
    match kind {
        ObjectKind::Policy => drop_action_defaults(&mut object),
        ObjectKind::ComponentTemplate | ObjectKind::IndexTemplate => {
            if let Some(members) = object.as_object_mut() {
                members.retain(|name, value| {
                    let is_default = matches!(value, Value::Null | Value::Bool(false))
                        || value.as_array().is_some_and(Vec::is_empty);
                    !STAMPS.contains(&name.as_str()) && !is_default
                });
            }
            if let Some(data_stream) = object.get_mut("data_stream").and_then(Value::as_object_mut) {
                data_stream.retain(|_, value| *value != Value::Bool(false));
            }
            if let Some(settings) = object.pointer_mut("/template/settings") {
                *settings = Value::Object(flat_settings(settings));
            }
        }
    }
    as_text(&object)
}

/// Drops what Elasticsearch fills into actions by itself: options that are off, and one that is on.
fn drop_action_defaults(object: &mut Value) {
    let Some(phases) = object.pointer_mut("/policy/phases").and_then(Value::as_object_mut) else {
        return;
    };
    for phase in phases.values_mut() {
        let Some(actions) = phase.get_mut("actions").and_then(Value::as_object_mut) else {
            continue;
        };
        for action in actions.values_mut() {
            if let Some(options) = action.as_object_mut() {
                options.retain(|name, value| {
                    *value != Value::Bool(false)
                        && !(name == "delete_searchable_snapshot" && *value == Value::Bool(true))
                });
            }
        }
    }
}

/// Settings as one level of dotted names that begin with `index.`, all values text.
pub(super) fn flat_settings(settings: &Value) -> Map<String, Value> {
    fn descend(prefix: &str, value: &Value, out: &mut Map<String, Value>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let name = if prefix.is_empty() {
                        name.clone()
                    } else {
                        format!("{prefix}.{name}")
                    };
                    descend(&name, value, out);
                }
            }
            leaf @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                let name = if prefix.starts_with("index.") {
                    prefix.to_owned()
                } else {
                    format!("index.{prefix}")
                };
                out.insert(name, as_text(leaf));
            }
        }
    }
    let mut out = Map::new();
    descend("", settings, &mut out);
    out
}

/// The value with every number and boolean as text.
pub(super) fn as_text(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), as_text(value)))
            .collect(),
        Value::Array(items) => items.iter().map(as_text).collect(),
        Value::Bool(_) | Value::Number(_) => Value::String(value.to_string()),
        Value::Null | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_the_same_however_they_are_nested_and_typed() {
        let wanted = json!({"_meta": {"managed_by": "log-writer"}, "version": 1, "template": {"settings": {
            "index.number_of_replicas": "1", "index": {"mapping": {"ignore_malformed": true}}}}});
        let found = json!({"template": {"settings": {"index": {"number_of_replicas": "1",
            "mapping": {"ignore_malformed": "true"}}}}, "version": 1, "_meta": {"managed_by": "log-writer"},
            "created_date_millis": 1_795_219_200_123_i64});
        assert!(is_same(ObjectKind::ComponentTemplate, &wanted, &found));
        for (at, other) in [
            ("/template/settings/index/number_of_replicas", json!("2")),
            (
                "/template/settings/index/mapping",
                json!({"ignore_malformed": "true", "depth": {"limit": "9"}}),
            ),
            ("/version", json!(2)),
        ] {
            let mut changed = found.clone();
            *changed.pointer_mut(at).unwrap() = other;
            assert!(!is_same(ObjectKind::ComponentTemplate, &wanted, &changed), "{at}");
        }
    }

    #[test]
    fn defaults_that_elasticsearch_fills_in_are_no_change_but_options_are() {
        let wanted = json!({"policy": {"_meta": {"managed_by": "log-writer"}, "phases": {
            "warm": {"min_age": "7d", "actions": {"shrink": {"number_of_shards": 1}}},
            "delete": {"min_age": "30d", "actions": {"delete": {}}}}}});
        let mut found = wanted.clone();
        found["policy"]["phases"]["delete"]["actions"]["delete"] = json!({"delete_searchable_snapshot": true});
        found["policy"]["phases"]["warm"]["actions"]["shrink"]["allow_write_after_shrink"] = json!(false);
        assert!(is_same(ObjectKind::Policy, &wanted, &found));
        for (at, other) in [
            ("/policy/phases/delete/min_age", json!("90d")),
            (
                "/policy/phases/delete/actions/delete/delete_searchable_snapshot",
                json!(false),
            ),
            (
                "/policy/phases/warm/actions/shrink/allow_write_after_shrink",
                json!(true),
            ),
            ("/policy/phases/warm/actions", json!({})),
        ] {
            let mut changed = found.clone();
            *changed.pointer_mut(at).unwrap() = other;
            // Off is the same as not said only for what is off by default.
            let is_off_default = at.ends_with("delete_searchable_snapshot");
            assert_eq!(is_same(ObjectKind::Policy, &wanted, &changed), is_off_default, "{at}");
        }
    }

    #[test]
    fn a_field_added_by_hand_is_a_change() {
        let wanted = json!({"template": {"mappings": {"dynamic": false, "properties": {"a": {"type": "keyword"}}}}});
        let mut found =
            json!({"template": {"mappings": {"dynamic": "false", "properties": {"a": {"type": "keyword"}}}}});
        assert!(is_same(ObjectKind::ComponentTemplate, &wanted, &found));
        found["template"]["mappings"]["properties"]["b"] = json!({"type": "keyword"});
        assert!(!is_same(ObjectKind::ComponentTemplate, &wanted, &found));
    }

    #[test]
    fn ours_is_what_says_so_in_its_meta() {
        assert!(is_ours(
            ObjectKind::IndexTemplate,
            &json!({"_meta": {"managed_by": "log-writer"}})
        ));
        assert!(is_ours(
            ObjectKind::Policy,
            &json!({"policy": {"_meta": {"managed_by": "log-writer"}}})
        ));
        for foreign in [
            json!({}),
            json!({"_meta": {}}),
            json!({"_meta": {"managed_by": "someone"}}),
            json!({"policy": {}}),
        ] {
            assert!(!is_ours(ObjectKind::IndexTemplate, &foreign));
            assert!(!is_ours(ObjectKind::Policy, &foreign));
        }
    }
}

//! Properties over any JSON that a sender can think of.

use std::{collections::HashSet, sync::LazyLock};

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{super::severity::read_word, Normaliser, arrival, normaliser, object, shown};

/// Takes the tenant `acme` from a body.
static LIBERAL: LazyLock<Normaliser> =
    LazyLock::new(|| normaliser(|settings| settings.body_tenants = vec!["acme".to_owned()]));

/// Keeps three levels of nesting.
static SHALLOW: LazyLock<Normaliser> = LazyLock::new(|| normaliser(|settings| settings.depth_max = 3));

/// Names that mean something, and some that do not.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "message", "msg", "level", "severity", "severity_number", "log", "log.level", "event", "id", "event_id", "timestamp", "ts",
            "service", "service.name", "name", "kubernetes", "pod_labels", "app.kubernetes.io/name", "resources", "attributes", "host",
            "user", "tags", "error", "metrics", "performance_metrics", "ai_analysis", "tenant", "trace_id", "traceparent", "fields",
            "_log_writer", "instant", "epochSecond", "kind", "counter", "",
        ]).prop_map(str::to_owned),
        2 => "[a-zé\"\\\\\n\u{1}.]{0,6}",
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[^\0]{0,12}".prop_map(Value::from),
        (500_usize..600).prop_map(|length| Value::from("é,".repeat(length / 3))),
        prop::sample::select(vec![
            "error",
            "notice",
            "wat",
            "2026-11-20T12:00:00.123456789Z",
            "1763596800",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "acme",
            "default",
            "01a1f640-bc0b-7182-892f-902bd23f0824",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "12.5",
            "",
        ])
        .prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn event() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((name(), value()), 0..10).prop_map(|members| members.into_iter().collect())
}

/// Texts that every scalar below a value can be found by. Levels, times and ids may be found as what they became.
fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Bool(value) => out.push(value.to_string()),
        Value::Number(value) => out.push(value.to_string()),
        Value::String(value) => out.push(value.clone()),
        Value::Array(values) => values.iter().for_each(|value| leaves(value, out)),
        Value::Object(members) => members.values().for_each(|value| leaves(value, out)),
    }
}

/// Whether what a column shows says what was sent, if not in the same letters.
fn is_said_otherwise(leaf: &str, shown: &Value) -> bool {
    let column = |name: &str| shown[name].as_str().unwrap_or_default();
    let is_in_tags = |part: &str| {
        let tags = shown["tags"].as_array().into_iter().flatten();
        tags.filter_map(Value::as_str).any(|tag| tag.contains(part))
    };
    leaf.is_empty()
        || read_word(leaf).is_some_and(|read| read.whole && read.level.as_str() == column("level"))
        || leaf == "default"
        || (leaf.starts_with("2026-11-20T12:00:00.123456") && column("time") == "2026-11-20T12:00:00.123456Z")
        || [column("trace_id"), column("span_id"), column("id")].contains(&leaf.to_lowercase().as_str())
        // Messages that are containers are kept as their text, tags with commas as their parts.
        || column("message").contains(leaf)
        || column("message").contains(Value::from(leaf).to_string().as_str())
        || leaf.split(',').map(str::trim).all(|part| part.is_empty() || is_in_tags(part))
        // Numbers are levels or times.
        || leaf.parse::<f64>().is_ok_and(|number| number.abs() < 100.0 || shown["time"].is_string())
        || leaf.parse::<f64>().is_ok_and(|number| shown["performance_metrics"].to_string().contains(&Value::from(number).to_string()))
        || leaf.parse::<f64>().is_ok() && shown["performance_metrics"].to_string().contains(leaf.trim())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_leaf_is_found_again(event in event()) {
        let text = Value::Object(event.clone()).to_string();
        let normaliser = &*LIBERAL;
        let Ok(normal) = normaliser.normalise(object(&text), &arrival()) else {
            return Ok(());
        };
        let shown = shown(&normal);
        let mut found = Vec::new();
        leaves(&shown, &mut found);
        let found: HashSet<&str> = found.iter().map(String::as_str).collect();
        let mut sent = Vec::new();
        leaves(&Value::Object(event), &mut sent);
        for leaf in sent {
            prop_assert!(found.contains(leaf.as_str()) || is_said_otherwise(&leaf, &shown), "{leaf:?} of {text} is not in {shown}");
        }
    }

    #[test]
    fn whatever_comes_out_can_be_stored_and_comes_out_again(event in event()) {
        let text = Value::Object(event).to_string();
        let normaliser = &*SHALLOW;
        let first = normaliser.normalise(object(&text), &arrival());
        prop_assert_eq!(&first, &normaliser.normalise(object(&text), &arrival()));
        let Ok(event) = first else { return Ok(()) };
        for json in [Some(&*event.fields).filter(|fields| !fields.is_empty()), event.error_details.as_deref(),
            event.performance_metrics.as_deref(), event.ai_analysis.as_deref()].into_iter().flatten() {
            prop_assert!(serde_json::from_str::<Value>(json).unwrap().is_object());
        }
        for text in [Some(&event.service), event.host.as_ref(), event.user_id.as_ref(), event.trace_id.as_ref()].into_iter().flatten() {
            prop_assert!(text.len() <= 512);
        }
    }

    #[test]
    fn escapes_of_any_kind_never_reach_jsonb(
        parts in prop::collection::vec(prop::sample::select(vec![
            r"\u0000", r"\ud800", r"\udc00", r"\ud83d\ude00", r"\\", r"\n", "u0000", "x", r"\u00e9", r#"\""#,
        ]), 0..8),
        name in prop::sample::select(vec!["message", "service", "tags", "error", "x", "performance_metrics", "ai_analysis", "fields", "log"]),
        shape in prop::sample::select(vec![r#""@""#, r#"{"@":"@","n":1}"#, r#"["@"]"#, r#"{"a":[{"level":"@"}]}"#]),
    ) {
        let text = format!("{{\"{name}\":{}}}", shape.replace('@', &parts.concat()));
        let normaliser = &*LIBERAL;
        let event = normaliser.normalise(object(&text), &arrival()).unwrap();
        for json in [Some(&*event.fields), event.error_details.as_deref(), event.performance_metrics.as_deref(), event.ai_analysis.as_deref()].into_iter().flatten() {
            if !json.is_empty() {
                // serde_json's strings refuse lone surrogates, as `jsonb` does.
                let value: Value = serde_json::from_str(json).unwrap();
                let mut texts = Vec::new();
                leaves(&value, &mut texts);
                prop_assert!(texts.iter().all(|text| !text.contains('\0')));
                prop_assert!(!json.replace(r"\\", "").contains(r"\u0000"));
            }
        }
        prop_assert!(!event.message.contains('\0') && !event.service.contains('\0'));
        prop_assert!(event.tags.iter().all(|tag| !tag.contains('\0')));
    }
}

//! The rules of normalising, one by one.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde_json::json;

use super::{
    super::Arrival, ARRIVAL, RawEvent, Timestamp, Unusable, arrival, normalised, normaliser, object, refused, shown,
};

fn check(sent: &str, expected: serde_json::Value) {
    assert_eq!(normalised(&normaliser(|_| {}), sent), expected, "{sent}");
}

#[test]
fn an_empty_event_gets_the_defaults() {
    let event = normaliser(|_| {});
    let event = event.normalise(object("{}"), &arrival()).unwrap();
    assert_eq!(
        (event.service.as_ref(), event.level.as_str(), event.message.as_ref()),
        ("unknown", "INFO", "")
    );
    assert_eq!(
        (event.timestamp, event.claimed_time, event.own_id),
        (ARRIVAL, None, None)
    );
    assert_eq!((&*event.fields, &*event.tenant), ("", "default"));
}

#[test]
fn the_order_of_the_list_decides_and_not_that_of_the_event() {
    check(
        r#"{"msg":"b","message":"a"}"#,
        json!({"message":"a","fields":{"msg":"b"}}),
    );
    check(
        r#"{"message":"a","msg":"b"}"#,
        json!({"message":"a","fields":{"msg":"b"}}),
    );
    check(
        r#"{"message":"a","message":"b"}"#,
        json!({"message":"a","fields":{"message":"b"}}),
    );
    check(
        r#"{"severity":3,"level":"debug"}"#,
        json!({"level":"DEBUG","fields":{"severity":3}}),
    );
    // A nested name before a top-level one: what was taken first goes back.
    check(
        r#"{"container_name":"c","resources":{"service.name":"s"}}"#,
        json!({"service":"s","fields":{"container_name":"c","resources":{"service.name":"s"}}}),
    );
    check(
        r#"{"resources":{"service.name":"s"},"service":"own"}"#,
        json!({"service":"own","fields":{"resources":{"service.name":"s"}}}),
    );
}

#[test]
fn what_cannot_be_used_in_its_role_stays_under_its_name() {
    for (sent, expected) in [
        (
            r#"{"level":{"a":1},"severity":"warn"}"#,
            json!({"level":"WARN","fields":{"level":{"a":1}}}),
        ),
        (
            r#"{"service":["a"],"app":"b"}"#,
            json!({"service":"b","fields":{"service":["a"]}}),
        ),
        (
            r#"{"service":"","host":true}"#,
            json!({"fields":{"service":"","host":true}}),
        ),
        (
            r#"{"event_id":17,"trace_id":"0000","error":false,"ai_analysis":"none"}"#,
            json!({"fields":{"event_id":17,"trace_id":"0000","error":false,"ai_analysis":"none"}}),
        ),
        (
            r#"{"performance_metrics":{"a":"x"}}"#,
            json!({"fields":{"performance_metrics":{"a":"x"}}}),
        ),
        (
            r#"{"performance_metrics":{"a":"7.5","b":"x","c\n":2}}"#,
            json!({"performance_metrics":{"a":7.5,"c\n":2},"fields":{"performance_metrics":{"b":"x"}}}),
        ),
        (
            r#"{"batch_id":1,"ingested_at":"x","pattern":2,"_log_writer":{"a":1}}"#,
            json!({"fields":{"batch_id":1,"ingested_at":"x","pattern":2,"_log_writer":{"received":{"a":1}}}}),
        ),
        (r#"{"level":null,"x":null,"host":null}"#, json!({"fields":{"x":null}})),
    ] {
        check(sent, expected);
    }
}

#[test]
fn an_unknown_level_is_info_and_noted() {
    check(
        r#"{"level":"wat"}"#,
        json!({"fields":{"level":"wat","_log_writer":{"level":"wat"}}}),
    );
    check(
        r#"{"level":"wat","severity":"error"}"#,
        json!({"level":"ERROR","fields":{"level":"wat"}}),
    );
    check(r#"{"level":"notice"}"#, json!({"fields":{"level":"notice"}}));
    check(r#"{"level":"info"}"#, json!({}));
}

#[test]
fn a_duration_called_time_does_not_hide_the_time() {
    check(
        r#"{"time":0.123,"ts":"2026-11-20T00:00:00Z","priority":1}"#,
        json!({"time":"2026-11-20T00:00:00.000000Z","fields":{"time":0.123,"priority":1}}),
    );
}

#[test]
fn messages_that_are_no_text_are_kept_as_json() {
    check(r#"{"message":{"a":[1, 2]}}"#, json!({"message":"{\"a\":[1, 2]}"}));
    check(r#"{"message":[1,"x"]}"#, json!({"message":"[1,\"x\"]"}));
    check(r#"{"message":1.50}"#, json!({"message":"1.50"}));
    check(
        r#"{"message":false,"msg":"m"}"#,
        json!({"message":"false","fields":{"msg":"m"}}),
    );
    check(r#"{"message":null,"msg":"m"}"#, json!({"message":"m"}));
}

#[test]
fn a_plain_fields_object_is_not_copied_unless_something_is_noted_after_it() {
    let normaliser = normaliser(|_| {});
    let text = r#"{"message":"m","fields":{ "a":1, "b":"x" }}"#;
    let event = normaliser.normalise(object(text), &arrival()).unwrap();
    assert!(
        matches!(event.fields, Cow::Borrowed(r#"{ "a":1, "b":"x" }"#)),
        "{event:?}"
    );
    let text = r#"{"timestamp":"2026-11-20T12:00:00.123456789Z","fields":{ "a":1, "b":"x" }}"#;
    let event = normaliser.normalise(object(text), &arrival()).unwrap();
    assert_eq!(event.fields, r#"{ "a":1, "b":"x" ,"_log_writer":{"nanos":789}}"#);
}

#[test]
fn a_sent_fields_object_is_merged_unless_a_name_is_taken() {
    check(
        r#"{"fields":{"a":1,"b":{"c":2}},"d":3}"#,
        json!({"fields":{"a":1,"b":{"c":2},"d":3}}),
    );
    check(
        r#"{"fields":{"a":1,"b":2},"b":3}"#,
        json!({"fields":{"fields":{"a":1,"b":2},"b":3}}),
    );
    check(
        r#"{"fields":{"\u0062":2},"b":3}"#,
        json!({"fields":{"fields":{"b":2},"b":3}}),
    );
    check(
        r#"{"fields":{"_log_writer":{"nanos":1}}}"#,
        json!({"fields":{"fields":{"_log_writer":{"nanos":1}}}}),
    );
    check(
        r#"{"fields":{"message":"inner"},"message":"outer"}"#,
        json!({"message":"outer","fields":{"message":"inner"}}),
    );
    check(r#"{"fields":[1]}"#, json!({"fields":{"fields":[1]}}));
    check(r#"{"fields":{}}"#, json!({}));
}

#[test]
fn what_postgresql_cannot_hold_is_replaced_and_flagged() {
    check(
        r#"{"message":"a\u0000b","k\u0000":"\ud800"}"#,
        json!({"message":"a\u{FFFD}b","fields":{"k\u{FFFD}":"\u{FFFD}","_log_writer":{"sanitized":true}}}),
    );
    check(
        r#"{"service":"s\u0000"}"#,
        json!({"service":"s\u{FFFD}","fields":{"_log_writer":{"sanitized":true}}}),
    );
    check(
        r#"{"error":{"m":"\udfff"}}"#,
        json!({"error_details":{"m":"\u{FFFD}"},"fields":{"_log_writer":{"sanitized":true}}}),
    );
    check(r#"{"n":1e400,"m":1e308}"#, json!({"fields":{"n":"1e400","m":1e308}}));
    let shallow = normaliser(|settings| settings.depth_max = 2);
    assert_eq!(
        normalised(&shallow, r#"{"a":{"b":{"c": 1, "d":[]}},"error":{"x":[{}]}}"#),
        json!({"fields":{"a":{"b":{"c":1,"d":"[]"}}},"error_details":{"x":["{}"]}})
    );
}

#[test]
fn indexed_text_is_cut_and_kept_whole_beside_it() {
    let long = "é".repeat(300);
    check(
        &json!({"service":long,"user_id":long,"message":long}).to_string(),
        json!({"service":"é".repeat(256),"user_id":"é".repeat(256),"message":long,
            "fields":{"service":long,"user_id":long,"_log_writer":{"cut":["service","user_id"]}}}),
    );
    check(
        &json!({"host":{"name":long}}).to_string(),
        json!({"host":"é".repeat(256),"fields":{"host":{"name":long},"_log_writer":{"cut":["host"]}}}),
    );
    // Displaced by a better name: nothing is cut in the end.
    check(
        &json!({"msg":"m","app":long,"service":"s"}).to_string(),
        json!({"service":"s","message":"m","fields":{"app":long}}),
    );
}

#[test]
fn an_unusable_time_gives_way_to_the_ids_and_then_to_the_arrival() {
    let v7 = "01a1f640-bc0b-7182-892f-902bd23f0824";
    for (sent, time, note) in [
        // Eight days early and two hours late, with the delivered range.
        (
            json!({"timestamp":"2026-11-12T23:59:59Z"}),
            ARRIVAL,
            Some(json!("2026-11-12T23:59:59Z")),
        ),
        (
            json!({"timestamp":"2026-11-21T02:00:00Z"}),
            ARRIVAL,
            Some(json!("2026-11-21T02:00:00Z")),
        ),
        (json!({"timestamp":7}), ARRIVAL, Some(json!(7))),
        (json!({"timestamp":"soon"}), ARRIVAL, Some(json!("soon"))),
        (
            json!({"timestamp":"2020-01-01T00:00:00Z","event_id":v7}),
            Timestamp(1_795_132_800_011_000),
            Some(json!("2020-01-01T00:00:00Z")),
        ),
        (json!({"event_id":v7}), Timestamp(1_795_132_800_011_000), None),
        // The time inside this id is of 2016.
        (json!({"event_id":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}), ARRIVAL, None),
        (
            json!({"timestamp":"soon","time":"2026-11-20T12:00:00Z"}),
            Timestamp(1_795_176_000_000_000),
            None,
        ),
    ] {
        let text = sent.to_string();
        let normaliser = normaliser(|_| {});
        let event = normaliser.normalise(object(&text), &arrival()).unwrap();
        assert_eq!(event.timestamp, time, "{sent}");
        let fields: serde_json::Value =
            serde_json::from_str(if event.fields.is_empty() { "{}" } else { &event.fields }).unwrap();
        assert_eq!(fields.pointer("/_log_writer/timestamp").cloned(), note, "{sent}");
    }
}

#[test]
fn the_claimed_time_is_kept_though_it_cannot_be_stored() {
    let normaliser = normaliser(|settings| {
        settings.accept_past = Duration::MAX;
        settings.accept_future = Duration::MAX;
    });
    for (sent, stored) in [
        ("1969-12-31T23:59:59.999999Z", false),
        ("1970-01-01T00:00:00Z", true),
        ("2262-04-11T23:47:16Z", true),
        ("2262-04-12T00:00:00Z", false),
        ("9999-12-31T23:59:59Z", false),
    ] {
        let text = json!({"timestamp":sent}).to_string();
        let event = normaliser.normalise(object(&text), &arrival()).unwrap();
        assert_eq!(event.timestamp == event.claimed_time.unwrap(), stored, "{sent}");
    }
    let event = normaliser
        .normalise(object(r#"{"timestamp":"never"}"#), &arrival())
        .unwrap();
    assert_eq!(event.claimed_time, None);
}

#[test]
fn an_id_is_taken_only_where_it_is_one() {
    let id = "01a1f640-bc0b-7182-892f-902bd23f0824";
    check(
        &json!({"event_id":id,"timestamp":"2026-11-20T00:00:00Z"}).to_string(),
        json!({"id":id,"time":"2026-11-20T00:00:00.000000Z"}),
    );
    check(
        &json!({"event_id":"order-1","id":id}).to_string(),
        json!({"fields":{"event_id":"order-1","id":id}}),
    );
    let upper = id.to_uppercase();
    let expected =
        json!({"id":id,"time":"2026-11-20T00:00:00.011000Z","fields":{"attributes":{"log.record.uid":upper}}});
    check(&json!({"attributes":{"log.record.uid":upper}}).to_string(), expected);
}

#[test]
fn the_credentials_tenant_wins_and_a_body_may_name_listed_ones_only() {
    let normaliser = normaliser(|settings| settings.body_tenants = vec!["acme".to_owned()]);
    let tenant = |sent: &str, credential: Option<&str>| {
        let arrival = Arrival {
            at: ARRIVAL,
            tenant: credential.map(Arc::from),
            wrapper: None,
        };
        shown(&normaliser.normalise(object(sent), &arrival).unwrap())
    };
    assert_eq!(tenant(r#"{"tenant":"acme"}"#, None), json!({"tenant":"acme"}));
    assert_eq!(
        tenant(r#"{"tenant":"Acme"}"#, None),
        json!({"fields":{"tenant":"Acme"}})
    );
    assert_eq!(tenant(r#"{"tenant":"default"}"#, None), json!({}));
    assert_eq!(
        tenant(r#"{"tenant":"acme"}"#, Some("other")),
        json!({"tenant":"other","fields":{"tenant":"acme"}})
    );
    assert_eq!(
        tenant(r#"{"tenant":"other"}"#, Some("other")),
        json!({"tenant":"other"})
    );
    assert_eq!(tenant("{}", Some("other")), json!({"tenant":"other"}));
}

#[test]
fn where_bodies_may_name_no_other_tenant_the_default_one_is_as_good_as_a_credentials() {
    let several = normaliser(|settings| settings.body_tenants = vec!["acme".to_owned()]);
    assert_eq!(several.only_tenant(), None);
    let normaliser = normaliser(|_| {});
    assert_eq!(normaliser.only_tenant(), Some("default"));
    let credential = Arrival {
        tenant: normaliser.only_tenant().map(Arc::from),
        ..arrival()
    };
    for sent in [
        "{}",
        r#"{"tenant":"default"}"#,
        r#"{"tenant":"Default"}"#,
        r#"{"tenant":"acme"}"#,
        r#"{"tenant":null}"#,
        r#"{"tenant":7}"#,
        r#"{"tenant":"acme","tenant_id":"default"}"#,
    ] {
        let as_sent = normaliser.normalise(object(sent), &arrival());
        assert_eq!(normaliser.normalise(object(sent), &credential), as_sent, "{sent}");
    }
}

#[test]
fn text_and_bare_values_are_messages_and_nothing_else() {
    let normaliser = normaliser(|_| {});
    let message = |raw| shown(&normaliser.normalise(raw, &arrival()).unwrap());
    let line = r#"{"level":"error"} 2026-11-20T00:00:00Z"#;
    assert_eq!(message(RawEvent::Text(Cow::Borrowed(line))), json!({"message":line}));
    assert_eq!(
        message(RawEvent::Text(Cow::Borrowed("a\0b"))),
        json!({"message":"a\u{FFFD}b","fields":{"_log_writer":{"sanitized":true}}})
    );
    assert_eq!(
        message(RawEvent::Value(r#""{\"level\":\"error\"}""#)),
        json!({"message":"{\"level\":\"error\"}"})
    );
    assert_eq!(
        message(RawEvent::Value(r#""\ud800""#)),
        json!({"message":"\u{FFFD}","fields":{"_log_writer":{"sanitized":true}}})
    );
    assert_eq!(message(RawEvent::Value("[1, {}]")), json!({"message":"[1, {}]"}));
    assert_eq!(message(RawEvent::Value("null")), json!({"message":"null"}));
}

#[test]
fn what_is_no_object_is_malformed() {
    for sent in ["", "[]", "1", "{", "{\"a\":1,}", "{\"a\":1}x"] {
        assert_eq!(refused(sent), Some(Unusable::Malformed), "{sent}");
    }
}

#[test]
fn names_with_escapes_are_the_same_names() {
    check(
        r#"{"mess\u0061ge":"m","\u006cog":{"l\u0065vel":"error"}}"#,
        json!({"message":"m","level":"ERROR","fields":{"log":{"level":"error"}}}),
    );
}

#[test]
fn aliases_are_the_configurations_to_choose() {
    let normaliser = normaliser(|settings| {
        settings.aliases.service = vec!["k.app.io/name".to_owned(), "who".to_owned()];
        settings.aliases.message = vec!["fields.text".to_owned()];
    });
    for sent in [
        json!({"k":{"app.io/name":"s"}}),
        json!({"k.app":{"io/name":"s"}}),
        json!({"k":{"app":{"io/name":"s"}}}),
        json!({"who":"other","k":{"app":{"io/name":"s"}}}),
    ] {
        assert_eq!(normalised(&normaliser, &sent.to_string())["service"], "s", "{sent}");
    }
    let shown = normalised(&normaliser, r#"{"service":"x","fields":{"text":"t"}}"#);
    assert_eq!(shown, json!({"message":"t","fields":{"service":"x","text":"t"}}));
}

#[test]
fn monsters_are_linear_and_harmless() {
    let normaliser = normaliser(|_| {});
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let event = normaliser.normalise(object(&deep), &arrival()).unwrap();
    let fields: serde_json::Value = serde_json::from_str(&event.fields).unwrap();
    let mut inner = &fields["a"];
    while let Some(next) = inner.get(0) {
        inner = next;
    }
    assert_eq!(inner.as_str().unwrap().len(), 200_001 - 100);

    let keys: Vec<String> = (0..200_000)
        .map(|key| format!("\"k{key}\":1,\"level\":\"x\",\"log\":{{}},\"fields\":{{\"k{key}\":2}}"))
        .collect();
    let wide = format!("{{{}}}", keys.join(","));
    assert!(
        !normaliser
            .normalise(object(&wide), &arrival())
            .unwrap()
            .fields
            .is_empty()
    );

    let long = format!("{{\"message\":\"{}\"}}", r"\u0000x".repeat(1_000_000));
    assert_eq!(
        normaliser
            .normalise(object(&long), &arrival())
            .unwrap()
            .message
            .chars()
            .count(),
        2_000_000
    );
}

#[test]
fn what_stood_around_the_events_is_noted_in_each() {
    let arrival = Arrival {
        at: ARRIVAL,
        tenant: None,
        wrapper: Some(Arc::from(r#"{"source":"shop","nul":"a\u0000b"}"#)),
    };
    for raw in [object(r#"{"message":"one"}"#), RawEvent::Text("two".into())] {
        let event = normaliser(|_| ()).normalise(raw, &arrival).unwrap();
        let fields: serde_json::Value = serde_json::from_str(&event.fields).unwrap();
        assert_eq!(
            fields["_log_writer"],
            json!({"wrapper": {"source": "shop", "nul": "a\u{fffd}b"}, "sanitized": true})
        );
    }
}

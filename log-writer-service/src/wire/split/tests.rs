//! Claims on the shapes of bodies, as a table, and on what errors cost.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value;

use super::{Framing, SplitSettings};
use crate::{
    event::RawEvent,
    wire::{Enough, Taker, cut_both_ways, piece::Piece},
};

const JSON: Option<&str> = Some("application/json");
const LINES: Option<&str> = Some("application/x-ndjson");
const TEXT: Option<&str> = Some("text/plain");

fn cut<'a>(body: &'a str, content_type: Option<&str>) -> Vec<Piece<'a>> {
    let wrappers = ["data".to_owned(), "logs".to_owned()];
    let settings = SplitSettings {
        wrappers: &wrappers,
        events_max: 1_000_000,
    };
    cut_both_ways(body, content_type, settings).expect("the body can be decoded")
}

/// One word a piece: `o` object, `v` value, `t` text, or the reason; and its text.
fn show(body: &str, content_type: Option<&str>) -> Vec<String> {
    let show_piece = |piece: Piece<'_>| match piece {
        Piece::Event(RawEvent::Object(json)) => format!("o {json}"),
        Piece::Event(RawEvent::Value(json)) => format!("v {json}"),
        Piece::Event(RawEvent::Text(line)) => format!("t {line}"),
        Piece::Bad { raw, reason } => format!("{} {raw}", reason.name()),
    };
    cut(body, content_type).into_iter().map(show_piece).collect()
}

#[test]
fn every_shape_of_vectors_codecs_gives_its_events() {
    let two = &[r#"o {"a":1}"#, r#"o {"b":[{}]}"#][..];
    let cases: [(Option<&str>, &str, &[&str]); 26] = [
        (JSON, r#"[{"a":1},{"b":[{}]}]"#, two),
        (None, " [ {\"a\":1} ,\n {\"b\":[{}]} ] \n", two),
        (
            Some("application/vnd.acme+json; charset=utf-8"),
            r#"[{"a":1},{"b":[{}]}]"#,
            two,
        ),
        (LINES, "{\"a\":1}\n{\"b\":[{}]}", two),
        (LINES, "{\"a\":1}\r\n\r\n{\"b\":[{}]}\r\n", two),
        (None, r#"{"a":1}{"b":[{}]}"#, two),
        (None, r#"{"a":1};{"b":[{}]};"#, two),
        (None, r#"{"a":1}|{"b":[{}]}|"#, two),
        (None, "{\"a\":1}\0{\"b\":[{}]}\0", two),
        (None, "{\"a\":1}\u{1}{\"b\":[{}]}", two),
        (
            Some("application/json-seq"),
            "\u{1e}{\"a\":1}\n\u{1e}{\"b\":[{}]}\n",
            two,
        ),
        (None, r#"{"log":{"a":1}},{"log":{"b":[{}]}},"#, two),
        (None, "{\"log\":{\"a\":1}}\n{\"log\":{\"b\":[{}]}}\n", two),
        (JSON, r#"{"data":[{"a":1},{"b":[{}]}]}"#, two),
        (
            JSON,
            r#"{"env":"prod","logs":[{"a":1},{"b":[{}]}],"zone":{"n":1}}"#,
            two,
        ),
        (LINES, r#"[{"a":1},{"b":[{}]}]"#, two),
        (JSON, "\u{feff}[{\"a\":1},{\"b\":[{}]}]", two),
        (JSON, r#"[{"a":1}][{"b":[{}]}]"#, two),
        (
            JSON,
            r#"["x\n",1.5e3,null,true,[{"a":1}]]"#,
            &[r#"v "x\n""#, "v 1.5e3", "v null", "v true", r#"v [{"a":1}]"#],
        ),
        (
            LINES,
            "\"x\"\n-1\n[2]\nfalse",
            &[r#"v "x""#, "v -1", "v [2]", "v false"],
        ),
        (
            TEXT,
            "one\r\n\n  two \n{\"a\":1}\n",
            &["t one", "t   two ", r#"t {"a":1}"#],
        ),
        (
            None,
            "level=info msg=\"a b\"\na,\"b\"\n",
            &["t level=info msg=\"a b\"", "t a,\"b\""],
        ),
        (
            None,
            "[12] disk full\n[Fri Nov 20] late\n",
            &["t [12] disk full", "t [Fri Nov 20] late"],
        ),
        (TEXT, "one\ntwo\0three\0", &["t one\ntwo", "t three"]),
        (JSON, " \n ", &[]),
        (JSON, "[]", &[]),
    ];
    for (content_type, body, expected) in cases {
        assert_eq!(show(body, content_type), expected, "{content_type:?} {body}");
    }
}

#[test]
fn pretty_printed_objects_are_one_event_each() {
    let pretty = serde_json::to_string_pretty(&serde_json::json!({"a": {"b": [1, "x"]}, "c": {}})).unwrap();
    for content_type in [LINES, JSON, None] {
        let body = format!("{pretty}\n{pretty}");
        assert_eq!(
            show(&body, content_type),
            [format!("o {pretty}"), format!("o {pretty}")]
        );
    }
}

#[test]
fn metrics_and_traces_of_native_json_have_reasons_of_their_own() {
    let body = "{\"metric\":{\"name\":\"m\"}}\n{\"trace\":{\"id\":1}}\n{\"log\":{\"a\":1}}\n";
    let expected = [
        "metric {\"metric\":{\"name\":\"m\"}}",
        "trace {\"trace\":{\"id\":1}}",
        "o {\"a\":1}",
    ];
    assert_eq!(show(body, None), expected);
    // With other members, or with a text, these are fields of an event.
    for event in [
        r#"{"log":"text"}"#,
        r#"{"log":{},"x":1}"#,
        r#"{"trace":"1"}"#,
        r#"{"metric":{},"log":{}}"#,
    ] {
        assert_eq!(show(event, JSON), [format!("o {event}")]);
    }
}

#[test]
fn an_event_with_an_array_of_a_wrappers_name_is_not_torn_apart() {
    for event in [
        r#"{"data":[{"a":1}],"message":"order"}"#,
        r#"{"@timestamp":"2024-01-02T03:04:05Z","logs":[{"a":1}]}"#,
        r#"{"host":"x","data":[1,2,3]}"#,
        r#"{"data":{"a":[]}}"#,
        r#"{"inner":{"data":[{"a":1}]}}"#,
    ] {
        assert_eq!(show(event, JSON), [format!("o {event}")]);
    }
    let two = "{\"data\":[{\"a\":1}]}\n{\"data\":[{\"a\":2}]}";
    assert_eq!(show(two, JSON), [r#"o {"data":[{"a":1}]}"#, r#"o {"data":[{"a":2}]}"#]);
}

#[test]
fn a_broken_element_of_an_array_costs_only_itself_where_its_end_shows() {
    let cases: [(&str, &[&str]); 11] = [
        (
            r#"[{"a":1} xx {"b":2},{"c":3}]"#,
            &[r#"o {"a":1}"#, r#"not_json xx {"b":2}"#, r#"o {"c":3}"#],
        ),
        (
            r#"[{"a":1},{"b":nul},{"c":3}]"#,
            &[r#"o {"a":1}"#, r#"malformed_json {"b":nul}"#, r#"o {"c":3}"#],
        ),
        (
            r#"[1,nul,{"c" 3} ,"x]","\q",{}]"#,
            &[
                "v 1",
                "malformed_json nul",
                r#"malformed_json {"c" 3}"#,
                r#"v "x]""#,
                r#"malformed_json "\q""#,
                "o {}",
            ],
        ),
        (
            r#"[{"a":1},oops("a,b"),{"c":3}]"#,
            &[r#"o {"a":1}"#, r#"not_json oops("a,b")"#, r#"o {"c":3}"#],
        ),
        (r#"[{"a":1} {"c":3},,]"#, &[r#"o {"a":1}"#, r#"o {"c":3}"#]),
        (
            r#"[{"a":1},{"b":"x},{"c":3}]"#,
            &[r#"o {"a":1}"#, r#"rest_after_error {"b":"x},{"c":3}]"#],
        ),
        (
            r#"[{"a":1},{"b":[2},{"c":3}]"#,
            &[r#"o {"a":1}"#, r#"rest_after_error {"b":[2},{"c":3}]"#],
        ),
        (r#"[{"a":1},{"b":"#, &[r#"o {"a":1}"#, r#"rest_after_error {"b":"#]),
        (r#"[{"a":1}"#, &[r#"o {"a":1}"#]),
        (
            r#"[{"a":1}},{"c":3}]"#,
            &[r#"o {"a":1}"#, r#"rest_after_error },{"c":3}]"#],
        ),
        (
            r#"{"data":[{"a":1},{"b":nul},{"c":3}]}"#,
            &[r#"o {"a":1}"#, r#"malformed_json {"b":nul}"#, r#"o {"c":3}"#],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(show(body, JSON), expected, "{body}");
    }
}

#[test]
fn a_broken_value_of_a_stream_costs_only_itself_where_its_end_shows() {
    let cases: [(Option<&str>, &str, &[&str]); 7] = [
        (
            LINES,
            "{\"a\":1}\n{\"b\":\n{\"c\":3}\n",
            &[r#"o {"a":1}"#, r#"malformed_json {"b":"#, r#"o {"c":3}"#],
        ),
        (
            LINES,
            "{\"a\":1}\n{\"b\":\"x\n{\"c\":3}\n",
            &[r#"o {"a":1}"#, r#"malformed_json {"b":"x"#, r#"o {"c":3}"#],
        ),
        (
            LINES,
            "{\"a\":1}\n2024-01-02 plain text, and {\"x\":1}\n{\"c\":3}\n",
            &[
                r#"o {"a":1}"#,
                "not_json 2024-01-02 plain text, and {\"x\":1}",
                r#"o {"c":3}"#,
            ],
        ),
        (
            LINES,
            "{\"a\":1}\n404 not found\n{\"c\":3}",
            &[r#"o {"a":1}"#, "not_json 404 not found", r#"o {"c":3}"#],
        ),
        (
            None,
            "{\"a\":\"x\0{\"c\":3}\0",
            &["malformed_json {\"a\":\"x\0", r#"o {"c":3}"#],
        ),
        (
            None,
            r#"{"a":1}{"b" 2}{"c":3}"#,
            &[r#"o {"a":1}"#, r#"malformed_json {"b" 2}"#, r#"o {"c":3}"#],
        ),
        (
            None,
            r#"{"a":1}{"b":"x}{"c":3}"#,
            &[r#"o {"a":1}"#, r#"rest_after_error {"b":"x}{"c":3}"#],
        ),
    ];
    for (content_type, body, expected) in cases {
        assert_eq!(show(body, content_type), expected, "{body}");
    }
}

#[test]
fn a_body_announced_as_json_without_any_is_undecodable() {
    let settings = SplitSettings {
        wrappers: &[],
        events_max: 10,
    };
    for body in ["hello world", "<xml/>\n<xml/>", "nul", "2024-01-02 text"] {
        assert_eq!(cut_both_ways(body, JSON, settings).unwrap_err().name(), "not_json");
    }
    // One event is enough to keep the rest as dead letters.
    assert_eq!(cut_both_ways("hello\n{\"a\":1}", LINES, settings).unwrap().len(), 2);
}

#[test]
fn what_is_beyond_the_most_events_is_one_piece() {
    let settings = SplitSettings {
        wrappers: &[],
        events_max: 2,
    };
    for (body, rest) in [
        ("[{},{},{\"a\":1},{}]", "{\"a\":1},{}]"),
        ("{}\n{}\n{\"a\":1}\n{}\n", "{\"a\":1}\n{}"),
    ] {
        let pieces = cut_both_ways(body, JSON, settings).unwrap();
        assert_eq!(pieces.len(), 3);
        let Piece::Bad { raw, reason } = pieces[2] else {
            panic!("{body}")
        };
        assert_eq!((raw, reason.name()), (rest, "too_many_events"));
    }
    assert_eq!(cut_both_ways("a\nb\nc\nd", TEXT, settings).unwrap().len(), 3);
    assert_eq!(cut_both_ways("[{},{}]", JSON, settings).unwrap().len(), 2);
}

#[test]
fn after_an_error_no_object_is_read_where_it_stands() {
    #[derive(Default)]
    struct Count(usize);
    impl<'a> Taker<'a> for Count {
        fn read_object(&mut self, _text: &'a str) -> Result<Option<usize>, Enough> {
            self.0 += 1;
            Ok(None)
        }
        fn take_piece(&mut self, _piece: Piece<'a>) -> Result<(), Enough> {
            Ok(())
        }
    }
    let settings = SplitSettings {
        wrappers: &[],
        events_max: 10,
    };
    for body in ["{\"a\":1}\n{bad\n{\"b\":2}\n", "[{\"a\":1},{bad},{\"b\":2}]"] {
        let mut count = Count::default();
        Framing::of(body, JSON, settings).unwrap().split(&mut count);
        assert_eq!(count.0, 2, "{body}");
    }
}

#[test]
fn a_hundred_thousand_levels_cost_no_stack_and_no_neighbour() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let body = format!("[{{\"a\":1}},{{\"deep\":{deep}}},{{\"c\":3}}]");
        assert_eq!(cut(&body, JSON).len(), 3);
        let unclosed = format!("{{\"a\":1}}\n{}\n{{\"c\":3}}\n", open.repeat(100_000));
        assert_eq!(cut(&unclosed, JSON).len(), 3);
    }
}

#[test]
fn hostile_bodies_take_linear_time() {
    const LINES_OF_BODY: usize = 100_000;
    let started = Instant::now();
    for line in [
        "{\"a\":\n",
        "{\n",
        "[\n",
        "[1,\n",
        "\"a\n",
        "{\"a\":\"x\n",
        "{\"a\" 1}",
        "[x",
        "1;",
        "\"a\"",
        "{\"data\":[",
    ] {
        for content_type in [JSON, None] {
            let body = line.repeat(LINES_OF_BODY);
            let settings = SplitSettings {
                wrappers: &["data".to_owned()],
                events_max: 1_000_000,
            };
            // Whether it can be decoded does not matter here.
            drop(cut_both_ways(&body, content_type, settings));
        }
    }
    // Quadratic would be minutes, even optimised.
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

/// JSON values as senders make them: any text, any nesting.
fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |number| number.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\PC\\n\"\\\\{}\\[\\],;|\u{0}]{0,12}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..5).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map("[a-z\"]{1,6}", any_json(), 0..5).prop_map(|members| members.into_iter().collect())
}

/// What the envelope of `native_json` hides is compared elsewhere.
fn is_enveloped(value: &Value) -> bool {
    let single = value
        .as_object()
        .filter(|members| members.len() == 1)
        .and_then(|members| members.iter().next());
    single.is_some_and(|(name, inner)| {
        matches!(name.as_str(), "log" | "metric" | "trace" | "data" | "logs") && !inner.is_string()
    })
}

fn values_of(body: &str, content_type: Option<&str>) -> Vec<Value> {
    let read = |piece| match piece {
        Piece::Event(RawEvent::Object(json) | RawEvent::Value(json)) => serde_json::from_str(json).unwrap(),
        other @ (Piece::Event(RawEvent::Text(_)) | Piece::Bad { .. }) => panic!("{other:?} in {body}"),
    };
    cut(body, content_type).into_iter().map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_values_come_back_from_any_framing(values in prop::collection::vec(any_json(), 0..6), pretty in any::<bool>()) {
        prop_assume!(!values.iter().any(is_enveloped));
        let write = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let texts: Vec<String> = values.iter().map(|value| write(value).unwrap()).collect();
        // Read again, since `serde_json` reads some floats one bit off; their text is what has to stay the same.
        let values: Vec<Value> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let array = format!("[{}]", texts.join(","));
        prop_assert_eq!(&values_of(&array, JSON), &values);
        for separator in ["\n", "\r\n", "\0", ";", ",", " ", "\n\n"] {
            for end in ["", separator] {
                let body = texts.join(separator) + end;
                // One array of objects alone is taken for a list.
                if values.len() > 1 || !body.trim_start().starts_with('[') {
                    prop_assert_eq!(&values_of(&body, LINES), &values, "{:?}", body);
                }
            }
        }
    }

    #[test]
    fn any_objects_come_back_from_any_delimiter(values in prop::collection::vec(any_object(), 1..6), mark in "[|/~:#_\u{1}\t]?") {
        prop_assume!(!values.iter().any(is_enveloped));
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let values: Vec<Value> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(&values_of(&texts.join(&mark), None), &values);
        let native: String = texts.iter().map(|text| format!("{{\"log\":{text}}}{mark}")).collect();
        prop_assert_eq!(&values_of(&native, None), &values);
    }

    #[test]
    fn one_broken_element_never_loses_a_neighbour(
        before in prop::collection::vec(any_object(), 0..4),
        after in prop::collection::vec(any_object(), 0..4),
        broken in prop::sample::select(vec![
            r#"{"a":nul}"#, r#"{"a" 1}"#, r#"{"a":1,}"#, r#"{,}"#, r#"{"a":01}"#, r#"{"a":"\x"}"#, r#"{a:1}"#, r#"{"a":[1 2]}"#,
            "{\"a\":\"tab\there\"}", "nul", "+1", "'x'", r#"{"a":"\u12"}"#,
        ]),
    ) {
        prop_assume!(!before.iter().chain(&after).any(is_enveloped));
        let texts: Vec<String> = before.iter().map(Value::to_string)
            .chain([broken.to_owned()])
            .chain(after.iter().map(Value::to_string))
            .collect();
        for (body, content_type) in [(format!("[{}]", texts.join(",")), JSON), (texts.join("\n"), LINES)] {
            if before.is_empty() && after.is_empty() {
                continue;
            }
            let pieces = cut(&body, content_type);
            prop_assert_eq!(pieces.len(), texts.len(), "{}", body);
            for (index, (piece, text)) in pieces.iter().zip(&texts).enumerate() {
                match piece {
                    Piece::Event(RawEvent::Object(json)) => prop_assert_eq!(json, text),
                    Piece::Bad { raw, .. } => prop_assert_eq!((index, *raw), (before.len(), broken)),
                    Piece::Event(_) => prop_assert!(false, "{:?}", piece),
                }
            }
        }
    }
}

#[test]
fn what_stands_around_a_wrapped_list_is_kept_and_nothing_else_is() {
    let settings = SplitSettings {
        wrappers: &["data".to_owned(), "logs".to_owned()],
        events_max: 10,
    };
    for (body, expected) in [
        (r#"{"data":[{"a":1}]}"#, None),
        (
            r#" {"env":"prod", "logs":[{"a":1},{"b":[{}]}] ,"zone":{"n":1}} "#,
            Some(r#"{"env":"prod","zone":{"n":1}}"#),
        ),
        (r#"{"env":"prod","logs":[{"a":1}]}{"b":1}"#, None),
        (
            r#"{"env":"prod","logs":[{"a":broken}],"zone":1}"#,
            Some(r#"{"env":"prod","zone":1}"#),
        ),
        (r#"{"message":"m","env":"prod","data":[{"a":1}]}"#, None),
        (r#"[{"a":1}]"#, None),
        ("", None),
    ] {
        let framing = Framing::of(body, JSON, settings).unwrap();
        assert_eq!(framing.around(&mut |_| true).as_deref(), expected, "{body}");
        assert_eq!(framing.around(&mut |_| false), None, "{body}");
    }
}

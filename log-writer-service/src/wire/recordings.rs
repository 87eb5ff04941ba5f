//! Every recorded request of Vector, decoded: the right number of events, and the same JSON.
//!
//! What to expect is found without this module: the plain body of the same case, read by `serde_json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde_json::Value;

use super::{Piece, SplitSettings, cut_both_ways, decompress, is_binary};
use crate::event::RawEvent;

struct Recorded {
    name: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    body: Bytes,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/vector")
}

fn cases() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the recordings are there");
    let mut cases: Vec<String> = entries
        .map(|entry| entry.expect("the folder can be listed"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    cases.sort();
    cases
}

/// The requests of a case that carry a body, in order.
fn requests(case: &str) -> Vec<Recorded> {
    let mut requests = Vec::new();
    for number in 0.. {
        let stem = folder().join(case).join(format!("{number:03}"));
        let Ok(headers) = fs::read_to_string(stem.with_extension("headers")) else {
            break;
        };
        let header = |name: &str| {
            headers.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let body = fs::read(stem.with_extension("body")).expect("each request has its body");
        if !body.is_empty() {
            requests.push(Recorded {
                name: format!("{case}/{number:03}"),
                content_type: header("content-type"),
                content_encoding: header("content-encoding"),
                body: Bytes::from(body),
            });
        }
    }
    requests
}

/// The events of a request, as JSON values; lines of text as strings.
fn decode(request: &Recorded) -> Vec<Value> {
    let content_type = request.content_type.as_deref();
    let plain = decompress(
        request.body.clone(),
        request.content_encoding.as_deref(),
        100 << 20,
        &mut |_| true,
    )
    .expect(&request.name);
    assert_eq!(is_binary(content_type, &plain), None, "{}", request.name);
    let text = String::from_utf8_lossy(&plain);
    let wrappers = ["logs".to_owned(), "data".to_owned()];
    let settings = SplitSettings {
        wrappers: &wrappers,
        events_max: 10_000,
    };
    let pieces = cut_both_ways(&text, content_type, settings).expect(&request.name);
    let values = pieces.into_iter().map(|piece| match piece {
        Piece::Event(RawEvent::Object(json) | RawEvent::Value(json)) => {
            serde_json::from_str(json).expect(&request.name)
        }
        Piece::Event(RawEvent::Text(line)) => Value::from(line.as_ref()),
        Piece::Bad { raw, reason } => panic!("{}: {reason}: {raw}", request.name),
    });
    values.collect()
}

/// The events of a case whose bodies are plain JSON arrays, by `serde_json` alone.
fn arrays(case: &str) -> Vec<Value> {
    let bodies = requests(case).into_iter().map(|request| request.body);
    bodies
        .flat_map(|body| serde_json::from_slice::<Vec<Value>>(&body).expect(case))
        .collect()
}

fn decode_case(case: &str) -> Vec<Value> {
    requests(case).iter().flat_map(decode).collect()
}

#[test]
fn every_case_is_here() {
    assert_eq!(cases().len(), 29);
    let bodies: usize = cases().iter().map(|case| requests(case).len()).sum();
    assert!(bodies > 90, "{bodies}");
}

#[test]
fn plain_arrays_come_out_as_serde_json_reads_them() {
    let plain = cases().into_iter().filter(|case| {
        let is_other = ["gzip", "zstd", "snappy", "prefix", "elasticsearch", "ndjson"]
            .iter()
            .any(|part| case.contains(part));
        let is_array = case.starts_with("json-array") || case.starts_with("retry") || case.starts_with("source");
        !is_other && is_array || matches!(case.as_str(), "put-bearer-headers" | "healthcheck")
    });
    let mut events = 0;
    for case in plain {
        let expected = arrays(&case);
        assert!(!expected.is_empty(), "{case}");
        assert_eq!(decode_case(&case), expected, "{case}");
        events += expected.len();
    }
    assert!(events > 300, "{events}");
}

#[test]
fn compressed_cases_hold_the_events_of_the_plain_one() {
    // The recorder fed the same lines to each of these configurations.
    let expected = arrays("json-array");
    for case in [
        "json-array-gzip",
        "json-array-zstd",
        "json-array-snappy",
        "json-ndjson",
        "json-ndjson-gzip",
    ] {
        assert_eq!(decode_case(case), expected, "{case}");
    }
}

#[test]
fn envelopes_and_wrappers_are_taken_off() {
    let expected = arrays("json-array");
    for case in ["native-json", "basic-prefix-suffix"] {
        assert_eq!(decode_case(case).len(), expected.len(), "{case}");
    }
    for (native, plain) in decode_case("native-json").iter().zip(&expected) {
        assert_eq!(native["id"], plain["id"]);
        assert_eq!(native["message"], plain["message"]);
    }
    assert_eq!(decode_case("basic-prefix-suffix"), expected);
}

#[test]
fn a_line_of_text_is_an_event() {
    let lines = requests("text").into_iter().map(|request| request.body.clone());
    let expected: Vec<Value> = lines
        .flat_map(|body| {
            let text = String::from_utf8(body.to_vec()).expect("the recording is UTF-8");
            text.lines().map(Value::from).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(expected.len(), arrays("json-array").len());
    assert_eq!(decode_case("text"), expected);
}

#[test]
fn recorded_protobuf_is_refused_by_name() {
    for case in ["otlp-codec", "opentelemetry-sink"] {
        for request in requests(case) {
            let refused = is_binary(request.content_type.as_deref(), &request.body).expect(case);
            assert_eq!(refused.name(), "protobuf");
        }
    }
}

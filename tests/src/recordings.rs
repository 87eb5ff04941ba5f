//! Recordings of a real Vector, and the events that an independent reader (plain `serde_json`) finds in them.
//!
//! `tests/fixtures/vector/<case>/NNN.{headers,body,status}`: what Vector 0.57 sent, byte for byte. The reader
//! here shares no code with the service, so that a defect of its decoding cannot hide in the test.

use std::{io::Read, path::PathBuf};

use serde_json::Value;

use crate::client::Request;

/// Cases whose requests are of interfaces that come later: kept as a named dead letter and answered 400.
pub const NOT_LOG_EVENTS: [&str; 2] = ["otlp-codec", "opentelemetry-sink"];

/// One recorded request.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// `case/NNN`, for messages.
    pub name: String,
    /// As recorded, but for `Host` and `Content-Length`.
    pub request: Request,
}

/// Names of all cases.
///
/// # Panics
/// If there are none: an empty folder must not pass as "all recordings are stored".
#[must_use]
pub fn cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(folder())
        .expect("no recordings in tests/fixtures/vector")
        .filter_map(|entry| {
            let entry = entry.expect("cannot list the recordings");
            let is_case = entry.file_type().expect("no file type").is_dir();
            is_case.then(|| entry.file_name().into_string().expect("a case has a plain name"))
        })
        .collect();
    cases.sort();
    assert!(
        cases.len() >= 20,
        "only {} recordings in tests/fixtures/vector",
        cases.len()
    );
    cases
}

/// Cases that carry log events in a format that `/ingest` takes.
#[must_use]
pub fn cases_with_log_events() -> Vec<String> {
    let mut cases = cases();
    cases.retain(|case| !NOT_LOG_EVENTS.contains(&case.as_str()) && case != "elasticsearch-sink-bulk");
    cases
}

/// The requests of a case in the order they were sent, with the path they were sent to.
#[must_use]
pub fn requests_as_sent(case: &str) -> Vec<Recorded> {
    let mut numbers: Vec<PathBuf> = std::fs::read_dir(folder().join(case))
        .unwrap_or_else(|error| panic!("no recording {case}: {error}"))
        .map(|entry| entry.expect("cannot list the recording").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "headers"))
        .collect();
    numbers.sort();
    assert!(!numbers.is_empty(), "the recording {case} is empty");
    numbers
        .iter()
        .map(|headers| {
            let head = std::fs::read_to_string(headers).expect("headers are text");
            let body = std::fs::read(headers.with_extension("body")).expect("a request has a body file");
            let number = headers.file_stem().expect("a number").to_string_lossy();
            Recorded {
                name: format!("{case}/{number}"),
                request: parse(&head, body),
            }
        })
        .collect()
}

/// The requests of a case that carry events, sent to `/ingest`.
#[must_use]
pub fn requests(case: &str) -> Vec<Recorded> {
    let mut requests = requests_as_sent(case);
    requests.retain(|recorded| recorded.request.method != "HEAD");
    for recorded in &mut requests {
        "/ingest".clone_into(&mut recorded.request.path);
    }
    requests
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/vector")
}

fn parse(head: &str, body: Vec<u8>) -> Request {
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let mut start = lines.next().expect("a request line").split(' ');
    let mut request = Request::new(start.next().expect("a method"), start.next().expect("a path"), body);
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header line");
        if !matches!(name.to_ascii_lowercase().as_str(), "host" | "content-length") {
            request = request.header(name, value);
        }
    }
    request
}

/// The events of a request: objects as they are, lines and bare strings as text.
#[must_use]
pub fn events(request: &Request) -> Vec<Value> {
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    let body = expand(header("content-encoding"), &request.body);
    if header("content-type") == Some("text/plain") {
        let text = String::from_utf8(body).expect("recorded text is UTF-8");
        return text.lines().map(|line| Value::String(line.to_owned())).collect();
    }
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_slice(&body).into_iter::<Value>() {
        unwrap(value.expect("recorded JSON is JSON"), &mut events);
    }
    events
}

fn unwrap(value: Value, events: &mut Vec<Value>) {
    match value {
        Value::Array(elements) => {
            for element in elements {
                unwrap(element, events);
            }
        }
        Value::Object(mut object) if object.len() == 1 && object.get("log").is_some_and(Value::is_object) => {
            events.extend(object.remove("log"));
        }
        Value::Object(mut object) if object.len() == 1 && object.get("logs").is_some_and(Value::is_array) => {
            unwrap(object.remove("logs").expect("just seen"), events);
        }
        other => events.push(other),
    }
}

fn expand(encoding: Option<&str>, body: &[u8]) -> Vec<u8> {
    match encoding {
        None => body.to_vec(),
        Some("gzip") => {
            let mut expanded = Vec::new();
            flate2::read::MultiGzDecoder::new(body)
                .read_to_end(&mut expanded)
                .expect("recorded gzip is gzip");
            expanded
        }
        Some("zstd") => zstd::stream::decode_all(body).expect("recorded zstd is zstd"),
        Some("snappy") => snap::raw::Decoder::new()
            .decompress_vec(body)
            .expect("recorded snappy is snappy"),
        Some(other) => panic!("no recording has the encoding {other}"),
    }
}

/// Whether an event has a time, so that a resend of its request is known.
#[must_use]
pub fn has_time(event: &Value) -> bool {
    event["timestamp"].is_string() || event["timestamp"].is_number()
}

#[cfg(test)]
mod tests {
    use super::{cases_with_log_events, events, requests};

    #[test]
    fn every_recording_carries_events_that_the_independent_reader_finds() {
        for case in cases_with_log_events() {
            for recorded in requests(&case) {
                let events = events(&recorded.request);
                assert!(!events.is_empty(), "{}", recorded.name);
                assert!(
                    events.iter().all(|event| event.is_object() || event.is_string()),
                    "{}",
                    recorded.name
                );
            }
        }
    }
}

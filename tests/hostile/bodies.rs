//! Bodies that are cut, mixed up, of the wrong type, or not text at all: what can be read is stored, the rest is kept.

use bytes::Bytes;
use log_writer_tests::client::Receipt;
use serde_json::json;

use crate::{Target, good};

/// Memory of the process in MiB: nothing here is large.
const MEMORY: u64 = 80;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const LINES: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
const TEXT: &[(&str, &str)] = &[("content-type", "text/plain")];

fn receipt(committed: u64, dead_lettered: u64) -> Receipt {
    Receipt {
        received: committed + dead_lettered,
        committed,
        duplicates: 0,
        dead_lettered,
    }
}

impl Target {
    /// Sends a body; some of it is stored, the dead letters have these reasons.
    async fn assert_taken(&self, body: impl Into<Bytes>, headers: &[(&str, &str)], committed: u64, reasons: &[&str]) {
        let before = self.reasons().await.len();
        let body = body.into();
        let answer = self.post(body.clone(), headers).await;
        let expected = receipt(committed, reasons.len() as u64);
        assert_eq!(answer.receipt(), expected, "{:?}", String::from_utf8_lossy(&body));
        let new = self.reasons().await.split_off(before);
        assert_eq!(new, reasons, "{:?}", String::from_utf8_lossy(&body));
    }

    /// Sends a body of which nothing can be read: 400, and all of it is kept.
    async fn assert_undecodable(&self, body: impl Into<Bytes>, headers: &[(&str, &str)], reason: &str) {
        let kept = self.kept_bytes().await;
        let body = body.into();
        let answer = self.post(body.clone(), headers).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (400, &json!(reason)),
            "{headers:?}"
        );
        assert_eq!(
            self.kept_bytes().await - kept,
            i64::try_from(body.len()).expect("short")
        );
    }

    async fn messages(&self) -> Vec<String> {
        let rows = self.rows().await;
        let mut messages: Vec<String> = rows
            .iter()
            .filter_map(|row| row.text("message"))
            .map(str::to_owned)
            .collect();
        messages.sort();
        messages
    }
}

#[tokio::test]
async fn nothing_is_stored_of_nothing() {
    let target = Target::start().await;
    for headers in [JSON, LINES, TEXT, &[]] {
        for body in ["", " \r\n\t\n ", "\u{feff}", "\n\n\n"] {
            target.assert_taken(body, headers, 0, &[]).await;
        }
    }
    for body in ["[]", " [ ] \n", "[,,]", "[[]", "{\"data\":[]}"] {
        let answer = target.post(body, JSON).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn what_stands_before_a_cut_is_stored_and_the_rest_is_one_letter() {
    let target = Target::start().await;
    let two = [good("one").to_string(), good("two").to_string()];
    let cut = good("cut").to_string();
    let cut = &cut[..cut.len() / 2];
    target
        .assert_taken(format!("[{},{},{cut}", two[0], two[1]), JSON, 2, &["rest_after_error"])
        .await;
    target
        .assert_taken(
            format!("{}\n{}\n{cut}", two[0], two[1]),
            LINES,
            2,
            &["rest_after_error"],
        )
        .await;
    target
        .assert_taken(
            format!("{{\"data\":[{},{},{cut}", two[0], two[1]),
            JSON,
            2,
            &["rest_after_error"],
        )
        .await;
    // Between two elements nothing is lost.
    target.assert_taken(format!("[{},", good("three")), JSON, 1, &[]).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn garbage_after_the_events_is_a_letter_and_costs_no_event() {
    let target = Target::start().await;
    target
        .assert_taken(format!("[{}] garbage", good("one")), JSON, 1, &["not_json"])
        .await;
    target
        .assert_taken(
            format!("{}\ngarbage\n{}", good("one"), good("two")),
            LINES,
            2,
            &["not_json"],
        )
        .await;
    target
        .assert_taken(
            format!("[{},{{\"a\":nul}},{}]", good("one"), good("two")),
            JSON,
            2,
            &["malformed_json"],
        )
        .await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn line_ends_of_every_system_end_lines() {
    let target = Target::start().await;
    target.assert_taken("one\r\ntwo\nthree\r\n\r\n", TEXT, 3, &[]).await;
    target
        .assert_taken(format!("{}\r\n{}\r\n", good("four"), good("five")), LINES, 2, &[])
        .await;
    // A carriage return alone is text.
    target.assert_taken("six\rseven", TEXT, 1, &[]).await;
    assert_eq!(
        target.messages().await,
        ["five", "four", "one", "six\rseven", "three", "two"]
    );
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_byte_order_mark_is_passed_over_and_text_in_another_charset_is_one_letter() {
    let target = Target::start().await;
    for headers in [JSON, LINES, TEXT] {
        target
            .assert_taken(format!("\u{feff}{}", good("m")), headers, 1, &[])
            .await;
    }
    let text = "[{\"message\":\"one\"},\n{\"message\":\"two\"}]\n";
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(bytes).collect() };
        for headers in [
            JSON,
            LINES,
            TEXT,
            &[],
            &[("content-type", "application/json; charset=utf-16")],
        ] {
            for body in [wide(text), wide(&format!("\u{feff}{text}"))] {
                target.assert_undecodable(body, headers, "unsupported_charset").await;
            }
        }
    }
    let latin = &[("content-type", "text/plain; charset=iso-8859-1")];
    target
        .assert_undecodable(&b"gr\xfcn\n"[..], latin, "unsupported_charset")
        .await;
    target.assert_taken("plain\ngr\u{fc}n\n", latin, 2, &[]).await;
    let messages = target.messages().await;
    assert_eq!(messages.len(), 5, "{messages:?}");
    assert_eq!((&*messages[0], &*messages[3]), ("gr\u{fc}n", "plain"), "{messages:?}");
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn invalid_utf_8_is_replaced_and_stored() {
    let target = Target::start().await;
    let event = [&b"{\"message\":\"a\xff\xc3(b\xed\xa0\x80\"}"[..]].concat();
    target.assert_taken(event, JSON, 1, &[]).await;
    target.assert_taken(&b"line \xfe\n"[..], TEXT, 1, &[]).await;
    assert_eq!(
        target.messages().await,
        ["a\u{fffd}\u{fffd}(b\u{fffd}\u{fffd}\u{fffd}", "line \u{fffd}"]
    );
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn nul_and_lone_surrogates_are_replaced_and_noted() {
    let target = Target::start().await;
    let events = r#"[{"message":"a\u0000b","f\u0000":"\ud800","g":["\udc00\u0000"],"tags":["\u0000"]}]"#;
    target.assert_taken(events, JSON, 1, &[]).await;
    let rows = target.rows().await;
    assert_eq!(rows[0].text("message"), Some("a\u{fffd}b"));
    assert_eq!(rows[0].fields["f\u{fffd}"], "\u{fffd}");
    assert_eq!(rows[0].fields["_log_writer"]["sanitized"], true);
    // As a byte it separates values of JSON; within a line of text it is replaced.
    target
        .assert_taken(&b"{\"message\":\"a\0b\"}"[..], JSON, 0, &["malformed_json", "not_json"])
        .await;
    target.assert_taken(&b"a\0b\n"[..], TEXT, 1, &[]).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_content_type_that_lies_costs_nothing() {
    let target = Target::start().await;
    let long = format!("application/{}", "x".repeat(10_000));
    for kind in [
        "application/xml",
        "application/x-protobuf",
        "avro/binary",
        "image/png",
        "multipart/form-data; boundary=[",
        "application/json; charset=utf-16",
        ";;;",
        long.as_str(),
    ] {
        let body = json!([good("one"), good("two")]).to_string();
        target.assert_taken(body, &[("content-type", kind)], 2, &[]).await;
    }
    // What is announced as text is text.
    target
        .assert_taken(json!([good("three")]).to_string(), TEXT, 1, &[])
        .await;
    target
        .assert_undecodable("three lines\nof no JSON\nat all", JSON, "not_json")
        .await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn binary_formats_are_refused_by_name_and_their_wrong_lengths_are_not_followed() {
    let target = Target::start().await;
    // LogArray { Log { fields { "a": … } } } behind its length.
    let native = [0, 0, 0, 9, 0x0a, 0x07, 0x0a, 0x05, 0x0a, 0x03, 0x0a, 0x01, b'a'];
    target.assert_undecodable(native.to_vec(), &[], "native").await;
    let protobuf = &[("content-type", "application/x-protobuf")];
    target
        .assert_undecodable(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], protobuf, "protobuf")
        .await;
    target.assert_undecodable(&b"Obj\x01\x04"[..], &[], "avro").await;
    // Four GiB announced: no such framing, so it is a line of text.
    target
        .assert_taken(vec![0xff, 0xff, 0xff, 0xff, 0x0a, 0x01], &[], 2, &[])
        .await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_gelf_chunk_is_a_letter_and_a_gelf_message_an_event() {
    let target = Target::start().await;
    let chunk = [
        &[0x1e, 0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 0, 2][..],
        b"{\"version\":\"1.1\",\"sho",
    ]
    .concat();
    target.assert_taken(chunk, &[], 0, &["rest_after_error"]).await;
    let gelf = json!({ "version": "1.1", "host": "h", "short_message": "gelf", "level": 3 });
    target.assert_taken(format!("{gelf}\0{gelf}\0"), &[], 2, &[]).await;
    target.assert_unharmed(MEMORY).await;
}

//! Requests that two readers of HTTP could cut at different places: a second request inside the first is never executed.

use futures::future::join_all;
use serde_json::json;

use crate::{Target, head_and, statuses};

/// Memory of the process in MiB: nothing here is large.
const MEMORY: u64 = 80;
const BODY: &str = r#"{"message":"seen"}"#;

/// A request that must never be executed.
fn smuggled() -> String {
    let body = r#"{"message":"smuggled"}"#;
    format!(
        "POST /ingest HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn length() -> String {
    format!("content-length: {}", BODY.len())
}

/// A length that takes in the smuggled request.
fn longer() -> String {
    format!("content-length: {}", BODY.len() + smuggled().len())
}

fn chunk(extension: &str) -> String {
    format!("{:x}{extension}\r\n{BODY}\r\n0\r\n\r\n", BODY.len())
}

/// Idle connections end soon, so that a test need not wait for them.
async fn start() -> Target {
    Target::start_with(|settings| settings.set("http.header_timeout", "1s").set("http.body_timeout", "1s")).await
}

impl Target {
    /// Sends each over a connection of its own, all at once; the statuses of what was answered until it was closed.
    async fn assert_answers(&self, cases: &[(Vec<u8>, &[u16])]) {
        let said = join_all(cases.iter().map(|(bytes, _)| self.raw(bytes))).await;
        for ((bytes, expected), said) in cases.iter().zip(said) {
            assert_eq!(statuses(&said), *expected, "{:.300}", String::from_utf8_lossy(bytes));
        }
        let rows = self.rows().await;
        let messages: Vec<&str> = rows.iter().filter_map(|row| row.text("message")).collect();
        assert!(
            !messages.contains(&"smuggled"),
            "a request within a request was executed"
        );
    }
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_followed_and_the_connection_ends() {
    let target = start().await;
    let body = format!("{}{}", chunk(""), smuggled());
    let cases: &[(Vec<u8>, &[u16])] = &[
        (head_and(&[&longer(), "transfer-encoding: chunked"], &body), &[200]),
        (head_and(&["transfer-encoding: chunked", &length()], &body), &[200]),
    ];
    target.assert_answers(cases).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn two_lengths_or_one_that_is_no_number_are_refused() {
    let target = start().await;
    let body = format!("{BODY}{}", smuggled());
    let mut cases: Vec<(Vec<u8>, &[u16])> = vec![
        (head_and(&[&length(), &longer()], &body), &[400]),
        (head_and(&[&longer(), &length()], &body), &[400]),
        (head_and(&[&format!("{0}, {0}", length())], BODY), &[400]),
        // The same twice says one thing.
        (head_and(&[&length(), &length()], BODY), &[200]),
        (head_and(&["content-length: 18446744073709551615"], &body), &[431]),
    ];
    for wrong in ["+18", "-1", "0x12", "1 8", "18a", "", "99999999999999999999999"] {
        cases.push((head_and(&[&format!("content-length: {wrong}")], &body), &[400]));
    }
    target.assert_answers(&cases).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn transfer_encodings_in_disguise_are_refused() {
    let target = start().await;
    let body = format!("{}{}", chunk(""), smuggled());
    let mut cases: Vec<(Vec<u8>, &[u16])> = Vec::new();
    for line in [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding : chunked",
        " transfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "transfer-encoding\0: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    ] {
        cases.push((head_and(&[line, &length()], &body), &[400]));
    }
    target.assert_answers(&cases).await;
    let letters: &[(Vec<u8>, &[u16])] = &[(head_and(&["Transfer-Encoding:\tChunked"], &chunk("")), &[200])];
    target.assert_answers(letters).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn lines_that_other_readers_would_end_elsewhere_are_refused() {
    let target = start().await;
    let length = length();
    let cases: &[(Vec<u8>, &[u16])] = &[
        (head_and(&["x-a: b\r\n c", &length], BODY), &[400]),
        (head_and(&["x-a: b\rcontent-length: 3", &length], BODY), &[400]),
        (head_and(&["x-a: b\0c", &length], BODY), &[400]),
        (head_and(&[&format!("content-length : {}", BODY.len())], BODY), &[400]),
        // RFC 9112, 2.2 allows to take a line feed alone for a line's end; all lines of the head are read so.
        (
            format!("POST /ingest HTTP/1.1\nhost: a\n{length}\n\n{BODY}").into_bytes(),
            &[200],
        ),
    ];
    target.assert_answers(cases).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn chunks_with_wrong_sizes_or_long_extensions_store_nothing() {
    let target = start().await;
    let chunked = |body: &str| head_and(&["transfer-encoding: chunked"], body);
    let size = BODY.len();
    let mut cases: Vec<(Vec<u8>, &[u16])> = Vec::new();
    for line in ["1000000000000000f", "-1", "0x12", "", "g", "ffffffffffffffffff"] {
        cases.push((chunked(&format!("{line}\r\n{BODY}\r\n0\r\n\r\n{}", smuggled())), &[408]));
    }
    cases.push((chunked(&format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", size - 2)), &[408]));
    cases.push((chunked(&format!("{size:x}\n{BODY}\r\n0\r\n\r\n")), &[408]));
    cases.push((chunked(&chunk(";a\nb")), &[408]));
    cases.push((chunked(&chunk(&format!(";{}", "a".repeat(100_000)))), &[408]));
    cases.push((
        chunked(&format!(
            "{size:x}\r\n{BODY}\r\n0\r\n{}\r\n",
            "x: y\r\n".repeat(100_000)
        )),
        &[408],
    ));
    target.assert_answers(&cases).await;
    assert_eq!(target.rows().await.len(), 0);
    // A short extension and a trailer are read and ignored, whatever they name.
    let trailer = format!("{size:x};a=b\r\n{BODY}\r\n0\r\ncontent-length: 5\r\n\r\n");
    target.assert_answers(&[(chunked(&trailer), &[200])]).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_body_shorter_than_its_length_stores_nothing() {
    let target = start().await;
    let events = json!([{ "message": "whole" }, { "message": "whole, too" }]).to_string();
    target
        .assert_answers(&[(head_and(&["content-length: 1000"], &events), &[408])])
        .await;
    assert_eq!((target.rows().await.len(), target.reasons().await.len()), (0, 0));
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn what_follows_a_body_is_a_request_of_its_own_or_nothing() {
    let target = start().await;
    let cases: &[(Vec<u8>, &[u16])] = &[
        (head_and(&[&length()], &format!("{BODY}GARBAGE / HTTP/1.1")), &[200]),
        (
            head_and(&[&length()], &format!("{BODY}{{\"message\":\"smuggled\"}}\r\n\r\n")),
            &[200, 400],
        ),
        // Neither length nor chunks: no body, and what follows is no request.
        (head_and(&["x: y"], BODY), &[200, 400]),
    ];
    target.assert_answers(cases).await;
    // Two whole requests one after another are two.
    let second = head_and(&[&length()], BODY);
    let two = [head_and(&[&length()], BODY), second].concat();
    target.assert_answers(&[(two, &[200, 200])]).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read_as_the_next_one() {
    let target = start().await;
    let whole = smuggled();
    let request = |line: &str, length: usize| {
        format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\ncontent-encoding: br\r\n\r\n{whole}")
            .into_bytes()
    };
    let cases: &[(Vec<u8>, &[u16])] = &[
        (request("POST /nowhere", whole.len()), &[404]),
        (request("DELETE /ingest", whole.len()), &[405]),
        (request("GET /health", whole.len()), &[200]),
        (request("POST /ingest", whole.len()), &[400]),
        (request("POST /ingest", whole.len() + 5), &[408]),
    ];
    target.assert_answers(cases).await;
    target.assert_unharmed(MEMORY).await;
}

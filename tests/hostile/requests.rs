//! Heads of requests that are too large, too many, or of another protocol.

use crate::{Target, head_and, statuses};

/// Memory of the process in MiB: nothing here is large.
const MEMORY: u64 = 80;
const BODY: &str = r#"{"message":"m"}"#;
const LENGTH: &str = "content-length: 15";

async fn start() -> Target {
    Target::start_with(|settings| settings.set("http.header_timeout", "1s")).await
}

impl Target {
    async fn assert_statuses(&self, bytes: &[u8], expected: &[u16]) {
        let said = self.raw(bytes).await;
        assert_eq!(statuses(&said), expected, "{:.200}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn a_head_larger_than_its_limit_is_refused() {
    let target = start().await;
    for bytes in [150_000, 300_000, 5_000_000] {
        let header = format!("x-a: {}", "b".repeat(bytes));
        target
            .assert_statuses(&head_and(&[&header, LENGTH], BODY), &[431])
            .await;
        let line = format!(
            "POST /ingest?{} HTTP/1.1\r\nhost: a\r\n{LENGTH}\r\n\r\n{BODY}",
            "a".repeat(bytes)
        );
        target.assert_statuses(line.as_bytes(), &[431]).await;
    }
    // Below the limit it is nobody's business.
    let header = format!("x-a: {}", "b".repeat(50_000));
    target
        .assert_statuses(&head_and(&[&header, LENGTH], BODY), &[200])
        .await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn more_than_a_hundred_headers_are_refused() {
    let target = start().await;
    for (count, status) in [(97, 200), (100, 431), (5_000, 431)] {
        let lines: Vec<&str> = std::iter::repeat_n("x-a: b", count).chain([LENGTH]).collect();
        target.assert_statuses(&head_and(&lines, BODY), &[status]).await;
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn methods_versions_and_paths_that_are_none_are_refused() {
    let target = start().await;
    let request = |line: &str| format!("{line}\r\nhost: a\r\n{LENGTH}\r\n\r\n{BODY}");
    let long = format!("{} /ingest HTTP/1.1", "P".repeat(10_000));
    for (line, status) in [
        ("{}POST /ingest HTTP/1.1", 400),
        ("\0 /ingest HTTP/1.1", 400),
        ("POST /ingest HTTP/2.0", 400),
        ("POST /ingest HTTP/9.9", 400),
        ("POST /ingest", 400),
        ("POST ingest HTTP/1.1", 404),
        ("post /ingest HTTP/1.1", 405),
        (long.as_str(), 405),
        ("CONNECT a:1 HTTP/1.1", 404),
        ("POST /x/../ingest HTTP/1.1", 404),
        ("POST /%2e%2e/ingest HTTP/1.1", 404),
        ("POST //ingest HTTP/1.1", 404),
    ] {
        target.assert_statuses(request(line).as_bytes(), &[status]).await;
    }
    assert_eq!(target.rows().await.len(), 0);
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn other_protocols_are_closed() {
    let target = start().await;
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health\r\n\r\n",
        b"",
        &b"\r\n".repeat(100_000),
        &b"\0".repeat(100_000),
    ] {
        let said = target.raw(bytes).await;
        assert!(
            statuses(&said).iter().all(|status| matches!(status, 400 | 431)),
            "{said}"
        );
    }
    // Asked to become HTTP/2 it stays HTTP/1.1.
    let upgrade = [
        "connection: upgrade, http2-settings",
        "upgrade: h2c",
        "http2-settings: AAAA",
        LENGTH,
    ];
    target.assert_statuses(&head_and(&upgrade, BODY), &[200]).await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_sender_that_asks_first_is_told_to_go_on() {
    let target = start().await;
    target
        .assert_statuses(&head_and(&["expect: 100-continue", LENGTH], BODY), &[100, 200])
        .await;
    // An expectation that nobody knows is no reason to lose events.
    target
        .assert_statuses(&head_and(&["expect: the-unexpected", LENGTH], BODY), &[200])
        .await;
    target.assert_unharmed(MEMORY).await;
}

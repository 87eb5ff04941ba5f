//! Connections that take their time: each holds its place for a bounded time, and its memory is bounded.

use std::time::{Duration, Instant};

use log_writer_tests::{
    client::{Connection, Request, send},
    conditions::{SOON, eventually},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{interval, sleep},
};

use crate::{Target, head_and, read_to_end, statuses};

/// Memory of the process in MiB: nothing here is large, but there are many connections.
const MEMORY: u64 = 110;
const BODY: &str = r#"{"message":"m"}"#;

async fn start_impatient() -> Target {
    Target::start_with(|settings| settings.set("http.header_timeout", "1s").set("http.body_timeout", "1s")).await
}

/// Writes a byte at a time until the other end has had enough; what it said, and how long it took.
async fn drip(stream: TcpStream, bytes: &[u8]) -> (String, Duration) {
    let started = Instant::now();
    let (mut from, mut to) = stream.into_split();
    let dripping = async {
        let mut pace = interval(Duration::from_millis(50));
        for byte in bytes.iter().cycle() {
            pace.tick().await;
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    tokio::select! {
        () = dripping => {}
        () = sleep(SOON) => {}
        // Reset is an end, too.
        _ended = from.read_to_end(&mut said) => {}
    }
    (String::from_utf8_lossy(&said).into_owned(), started.elapsed())
}

#[tokio::test]
async fn a_head_that_drips_is_closed_in_time() {
    let target = start_impatient().await;
    let (said, took) = drip(
        target.connect().await,
        b"POST /ingest HTTP/1.1\r\nx-a: bbbbbbbbbbbbbbbbbbbbbbb",
    )
    .await;
    assert_eq!(statuses(&said), Vec::<u16>::new(), "{said}");
    assert!(took < SOON, "{took:?}");
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_body_that_drips_is_answered_408_in_time() {
    let target = start_impatient().await;
    for head in ["content-length: 100000000", "transfer-encoding: chunked"] {
        let mut stream = target.connect().await;
        stream.write_all(&head_and(&[head], "")).await.expect("written");
        let (said, took) = drip(stream, b"1\r\n[\r\n").await;
        assert_eq!(statuses(&said), [408], "{said}");
        assert!(took < SOON, "{took:?}");
    }
    assert_eq!((target.rows().await.len(), target.reasons().await.len()), (0, 0));
    let status = target.service.status().await;
    assert_eq!(status["inflight"]["bytes"], 0, "{status}");
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_call_whose_body_never_ends_is_answered_408_in_time() {
    let target = start_impatient().await;
    let annotation = format!("/api/v1/logs/{}/annotation", uuid::Uuid::nil());
    for path in ["/mcp", &annotation] {
        let mut stream = target.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: 100000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        let (said, took) = drip(stream, b"{ ").await;
        assert_eq!(statuses(&said), [408], "{path}: {said}");
        assert!(took < SOON, "{took:?}");
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_connection_closed_in_mid_body_stores_nothing() {
    let target = start_impatient().await;
    for _ in 0..100 {
        let mut stream = target.connect().await;
        let whole = head_and(&["content-length: 1000"], &format!("[{BODY},{BODY},"));
        stream.write_all(&whole).await.expect("written");
        drop(stream);
    }
    target.assert_unharmed(MEMORY).await;
    assert_eq!(
        (target.rows().await.len(), target.reasons().await.len()),
        (1, 0),
        "the good one"
    );
}

#[tokio::test]
async fn an_upload_without_end_is_answered_413_and_takes_no_more_than_the_limit() {
    let target = Target::start_with(|settings| {
        settings
            .set("http.body_bytes_max", "4MiB")
            .set("http.inflight_bytes_max", "32MiB")
            .set("http.header_timeout", "1s")
    })
    .await;
    let mut stream = target.connect().await;
    stream
        .write_all(&head_and(&["transfer-encoding: chunked"], ""))
        .await
        .expect("written");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let (mut from, mut to) = stream.split();
    let sending = async {
        while to.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    tokio::select! {
        () = sending => {}
        _ended = from.read_to_end(&mut said) => {}
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(statuses(&said), [413], "{said}");
    assert_eq!(target.reasons().await, ["body_too_large"]);
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_hundred_thousand_chunks_of_one_byte_are_one_body() {
    let target = Target::start_with(|settings| settings.set("http.header_timeout", "1s")).await;
    let text = format!("{{\"message\":\"{}\"}}", "x".repeat(100_000));
    let chunks: String = text.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
    let body = head_and(&["transfer-encoding: chunked"], &format!("{chunks}0\r\n\r\n"));
    let started = Instant::now();
    assert_eq!(statuses(&target.raw(&body).await), [200]);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(target.rows().await[0].text("message").map(str::len), Some(100_000));
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_sender_that_does_not_read_its_answers_is_closed_in_time() {
    let target = Target::start_with(|settings| {
        settings
            .set("http.header_timeout", "1s")
            .set("http.body_timeout", "1s")
            .set("http.connections_max", "3")
    })
    .await;
    let asking = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(20_000);
    let mut deaf = Vec::new();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(target.service.address()).await.expect("a connection");
        // Far more is answered than the buffers between hold.
        let _written = stream.write_all(&asking).await;
        deaf.push(stream);
    }
    // Reading on would give them time again: whether they are closed is seen by their places.
    eventually("all their places to be free again", SOON * 4, || async {
        let mut others = Vec::new();
        for _ in 0..3 {
            let mut other = Connection::open(target.service.address()).await.ok()?;
            let answer = other.send(&Request::get("/health")).await.ok()?;
            assert_eq!(answer.status, 200);
            others.push(other);
        }
        Some(())
    })
    .await;
    drop(deaf);
    eventually("those of the last ones, too", SOON, || async {
        let answer = send(target.service.address(), &Request::get("/health")).await;
        answer.is_ok().then_some(())
    })
    .await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_those_within_are_served() {
    let target = Target::start_with(|settings| {
        settings
            .set("http.header_timeout", "5s")
            .set("http.connections_max", "30")
    })
    .await;
    let is_served = async || {
        let answer = send(target.service.address(), &Request::get("/health")).await;
        answer.is_ok_and(|answer| answer.status == 200)
    };
    let mut held = Vec::new();
    // On a slow machine the first of them may be closed before the last one is there; then there are more to open.
    let started = Instant::now();
    while is_served().await {
        // Ten times the limit; in the time that there is, silent ones are closed five times.
        let opened = held.len();
        assert!(
            opened < 300 && started.elapsed() < SOON,
            "{opened} connections, none refused"
        );
        for _ in 0..30 {
            held.push(target.connect().await);
        }
    }
    eventually("silent ones to be closed and others to be served", SOON, || async {
        is_served().await.then_some(())
    })
    .await;
    for stream in &mut held {
        assert_eq!(read_to_end(stream).await, "", "nothing was asked");
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn heads_that_never_end_take_a_bounded_memory() {
    let target = Target::start_with(|settings| settings.set("http.connections_max", "1000")).await;
    let half = head_and(&[&format!("x-a: {}", "b".repeat(60_000))], "");
    let half = &half[..half.len() - 4];
    let mut held = Vec::new();
    for _ in 0..800 {
        let mut stream = target.connect().await;
        stream.write_all(half).await.expect("written");
        held.push(stream);
    }
    // 800 of 64 KiB at most are 50 MiB; of hyper's own 408 KiB they could be 320.
    target.assert_unharmed(160).await;
}

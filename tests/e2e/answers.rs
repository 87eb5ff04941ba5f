//! What a client is told: 200 with a receipt, and never a 4xx that would make Vector drop what could be kept.

use std::{
    future,
    io::{self, Write as _},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use futures::future::join_all;
use log_writer_tests::{
    client::{Answer, Connection, Receipt, Request},
    conditions::{SOON, eventually},
    recordings::{NOT_LOG_EVENTS, requests, requests_as_sent},
    rows::{dead_letters, stored_rows},
    traffic::send_aside,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    RealStores,
    events::{event, fresh},
};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("into memory");
    encoder.finish().expect("into memory")
}

#[tokio::test]
async fn health_answers_exactly_200_to_head_and_get() {
    let stores = RealStores::start().await;
    for method in ["HEAD", "GET"] {
        for path in ["/health", "/ready"] {
            let answer = stores.service.send(&Request::new(method, path, "")).await;
            assert_eq!(answer.status, 200, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn answers_are_small_uncompressed_and_say_their_length() {
    let stores = RealStores::start().await;
    let request = Request::json(&fresh(2)).header("accept-encoding", "zstd,gzip,deflate,br");
    let answer = stores.service.send(&request).await;
    assert_eq!(answer.receipt(), Receipt::all_committed(2));
    assert!(answer.header("content-length").is_some());
    assert_eq!(answer.header("content-encoding"), None);
    assert!(answer.body.len() < 512, "{}", answer.text());
}

#[tokio::test]
async fn events_come_in_by_post_and_put_on_both_paths_and_in_a_wrapper() {
    let stores = RealStores::start().await;
    for (method, path) in [("POST", "/ingest"), ("PUT", "/ingest"), ("POST", "/"), ("PUT", "/")] {
        for events in [fresh(3), json!({ "data": fresh(3) }), json!({ "logs": fresh(3) })] {
            let mut request = Request::json(&events);
            request.method = method.to_owned();
            request.path = path.to_owned();
            let receipt = stores.service.send(&request).await.receipt();
            assert_eq!(receipt, Receipt::all_committed(3), "{method} {path} {events}");
        }
    }
    stores.assert_delivered_exactly_once(36).await;
}

#[tokio::test]
async fn every_compression_is_decided_by_its_header_and_checked() {
    let stores = RealStores::start().await;
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(fresh(2).to_string().as_bytes()).expect("into memory");
    let mut members = gzip(format!("{}\n", event(chrono::Utc::now(), "first member")).as_bytes());
    members.extend(gzip(event(chrono::Utc::now(), "second member").to_string().as_bytes()));
    for (encoding, body) in [
        ("gzip", gzip(fresh(2).to_string().as_bytes())),
        ("x-gzip", gzip(fresh(2).to_string().as_bytes())),
        ("deflate", zlib.finish().expect("into memory")),
        ("gzip", members),
        ("identity", fresh(2).to_string().into_bytes()),
        // Decided by the header, checked by the magic: a proxy in between may have expanded it.
        ("gzip", fresh(2).to_string().into_bytes()),
        (
            "zstd",
            zstd::stream::encode_all(fresh(2).to_string().as_bytes(), 1).expect("into memory"),
        ),
        (
            "snappy",
            snap::raw::Encoder::new()
                .compress_vec(fresh(2).to_string().as_bytes())
                .expect("into memory"),
        ),
    ] {
        let request = Request::new("POST", "/ingest", body)
            .header("content-type", "application/json")
            .header("content-encoding", encoding);
        let receipt = stores.service.send(&request).await.receipt();
        assert_eq!(receipt, Receipt::all_committed(2), "{encoding}");
    }
    stores.assert_delivered_exactly_once(16).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413_and_noted() {
    let stores = RealStores::start_with(|settings| settings.set("http.body_bytes_max", "64KiB")).await;
    let big = json!([{ "message": "x".repeat(200_000), "timestamp": chrono::Utc::now().to_rfc3339() }]);
    let plain = stores.service.send(&Request::json(&big)).await;
    assert_eq!(plain.status, 413, "{}", plain.text());
    // A bomb: small on the wire, over the limit when expanded.
    let bomb = Request::new("POST", "/ingest", gzip(big.to_string().as_bytes()))
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    assert!(bomb.body.len() < 10_000);
    let expanded = stores.service.send(&bomb).await;
    assert_eq!(expanded.status, 413, "{}", expanded.text());
    assert_eq!(stores.service.ingest(&fresh(1)).await, Receipt::all_committed(1));
    assert_eq!(
        dead_letters(stores.database.pool()).await.len(),
        2,
        "reason and size are kept"
    );
    stores.assert_delivered_exactly_once(1).await;
}

#[tokio::test]
async fn what_cannot_be_decoded_is_kept_as_a_dead_letter_and_answered_400() {
    let stores = RealStores::start().await;
    let mut broken = gzip(fresh(3).to_string().as_bytes());
    let half = broken.len() / 2;
    broken.truncate(half);
    for (what, request) in [
        (
            "unknown encoding",
            Request::json(&fresh(1)).header("content-encoding", "lzw"),
        ),
        (
            "broken gzip",
            Request::new("POST", "/ingest", broken)
                .header("content-type", "application/json")
                .header("content-encoding", "gzip"),
        ),
        (
            "avro",
            Request::new("POST", "/ingest", &b"Obj\x01\x00binary"[..]).header("content-type", "application/avro"),
        ),
        (
            "protobuf",
            Request::new("POST", "/ingest", &b"\x0a\x05hello"[..]).header("content-type", "application/x-protobuf"),
        ),
    ] {
        let before = dead_letters(stores.database.pool()).await.len();
        let answer = stores.service.send(&request).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        let letters = dead_letters(stores.database.pool()).await;
        assert_eq!(letters.len(), before + 1, "{what} is kept");
        for letter in &letters {
            let whole: Value = serde_json::from_str(&letter.whole).expect("JSON");
            assert!(!letter.reason.is_empty(), "{letter:?}");
            assert_eq!(whole["source_address"], "127.0.0.1", "{letter:?}");
            assert_eq!(
                (&whole["attempts"], &whole["first_at"]),
                (&json!(1), &whole["last_at"]),
                "{letter:?}"
            );
        }
        assert!(
            answer.text().contains("dead_letter"),
            "{what} names its dead letter: {}",
            answer.text()
        );
    }
    assert!(stored_rows(stores.database.pool()).await.is_empty());
}

#[tokio::test]
async fn recordings_of_later_interfaces_are_kept_by_name_and_answered_400() {
    let stores = RealStores::start_with(|settings| settings.any_time()).await;
    for case in NOT_LOG_EVENTS {
        for recorded in requests(case) {
            let answer = stores.service.send(&recorded.request).await;
            assert_eq!(answer.status, 400, "{}: {}", recorded.name, answer.text());
            let letters = dead_letters(stores.database.pool()).await;
            assert!(
                letters.iter().any(|letter| letter.reason.contains("protobuf")),
                "{letters:?}"
            );
        }
    }
    for recorded in requests_as_sent("elasticsearch-sink-bulk") {
        let answer = stores.service.send(&recorded.request).await;
        assert!(
            (400..500).contains(&answer.status),
            "{}: {}",
            recorded.name,
            answer.status
        );
    }
    assert!(stored_rows(stores.database.pool()).await.is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_nothing_that_was_begun() {
    let stores = RealStores::start_with(|settings| settings.set("database.lock_timeout", "10s")).await;
    let mut lock = stores.database.pool().begin().await.expect("a transaction");
    sqlx::query("lock table public.application_logs in share row exclusive mode")
        .execute(&mut *lock)
        .await
        .expect("the lock");
    let mut connection = Connection::open(stores.service.address()).await.expect("it listens");
    connection
        .write(&Request::json(&fresh(5)).encode())
        .await
        .expect("it reads");
    eventually("its transaction to wait for the lock", SOON, || async {
        let waiting = stores
            .database
            .number(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
                 and starts_with(application_name, 'log-writer committer')",
            )
            .await;
        (waiting == 1).then_some(())
    })
    .await;
    drop(connection);
    lock.rollback().await.expect("the lock is given back");
    // Half a body is no request: nothing of it is stored.
    let mut connection = Connection::open(stores.service.address()).await.expect("it listens");
    let bytes = Request::json(&fresh(50)).encode();
    connection.write(&bytes[..bytes.len() / 2]).await.expect("it reads");
    drop(connection);
    eventually("the whole request to be stored", SOON, || async {
        let rows = stores
            .database
            .number("select count(*) from public.application_logs")
            .await;
        (rows == 5).then_some(())
    })
    .await;
    stores.assert_delivered_exactly_once(5).await;
}

#[tokio::test]
async fn sigterm_answers_everything_begun_and_nothing_acknowledged_is_lost() {
    let mut stores = RealStores::start().await;
    let requests: Vec<Request> = (0..40).map(|_| Request::json(&fresh(20))).collect();
    // Nothing is committed before the signal, so that it meets them all.
    let mut lock = stores.database.pool().begin().await.expect("a transaction");
    sqlx::query("lock table log_writer.requests")
        .execute(&mut *lock)
        .await
        .expect("the lock");
    let mut connections = stores.service.send_begun(&requests).await;
    stores.service.until_held(&stores.database).await;
    stores.service.terminate();
    eventually("the signal to be seen", SOON, || {
        future::ready(stores.service.log().contains("shutting down").then_some(()))
    })
    .await;
    lock.rollback().await.expect("the lock is given back");
    let answers = join_all(connections.iter_mut().map(|connection| connection.answer(false))).await;
    let status = stores.service.until_ended(Duration::from_secs(40)).await;
    assert!(status.success(), "SIGTERM ends it cleanly: {status}");
    let mut acknowledged = 0;
    for answer in answers {
        match answer {
            Ok(answer) if answer.status == 200 => acknowledged += answer.receipt().committed,
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            Err(error) => panic!("a request that was sent before the signal has no answer: {error}"),
        }
    }
    assert!(acknowledged > 0, "one was held when the signal came");
    let rows = stores
        .database
        .number("select count(*) from public.application_logs")
        .await;
    assert_eq!(rows, i64::try_from(acknowledged).expect("few"), "stored = acknowledged");
    stores.service.restart().await;
    stores.assert_delivered_exactly_once(acknowledged).await;
}

#[tokio::test]
async fn too_much_in_flight_is_answered_429_and_memory_stays_bounded() {
    let stores = RealStores::start_with(|settings| {
        settings
            .set("http.inflight_bytes_max", "8MiB")
            .set("http.body_bytes_max", "2MiB")
    })
    .await;
    let address = stores.service.address();
    let text = "x".repeat(1_000_000);
    // What is taken is not committed before somebody was refused.
    let mut holder = stores.database.pool().begin().await.expect("a connection");
    sqlx::query("lock table log_writer.books in exclusive mode")
        .execute(&mut *holder)
        .await
        .expect("locked");
    let bodies: Vec<JoinHandle<io::Result<Answer>>> = (0..32)
        .map(|number| {
            let event = json!({ "message": format!("{number} {text}"), "timestamp": chrono::Utc::now().to_rfc3339() });
            send_aside(address, Request::json(&json!([event])))
        })
        .collect();
    eventually("somebody to be refused", SOON, || {
        future::ready(bodies.iter().any(JoinHandle::is_finished).then_some(()))
    })
    .await;
    holder.rollback().await.expect("released");
    let (mut committed, mut refused) = (0, 0);
    for body in bodies {
        let answer = body.await.expect("sent").expect("an answer");
        match answer.status {
            200 => committed += 1,
            429 => refused += 1,
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(committed > 0 && refused > 0, "{committed} taken, {refused} refused");
    let (_, peak) = stores.service.memory();
    assert!(peak < 400 * 1024 * 1024, "{peak} bytes at most");
    stores.assert_delivered_exactly_once(committed).await;
}

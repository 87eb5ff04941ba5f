//! The commands `dead-letters …` beside a running service: what they find and redrive, under which identity.

use std::process::Output;

use log_writer_service::event::{DigestParts, Timestamp, derive_id, request_digest};
use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    fake_elasticsearch::{Behaviour, ItemFault},
    invariants::document_id,
    service::{Settings, run_command},
};
use serde_json::{Value, json};

use crate::{FakeStores, STREAM, fresh};

/// Runs `dead-letters …` on the stores' database.
pub(crate) async fn letters(stores: &FakeStores, arguments: &[&str]) -> Output {
    let settings = Settings::new(stores.database.url(), &stores.fake.url(), "default");
    run_command(&[&["dead-letters"], arguments].concat(), &settings).await
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The JSON lines that a command printed.
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

pub(crate) async fn list(stores: &FakeStores, filters: &[&str]) -> Vec<Value> {
    let output = letters(stores, &[&["list", "--json"], filters].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    lines(&output)
}

/// Redrives; the outcome, and whether all could be.
async fn redrive(stores: &FakeStores, filters: &[&str]) -> (Value, bool) {
    let output = letters(stores, &[&["redrive", "--json"], filters].concat()).await;
    let outcome = lines(&output).pop().unwrap_or_else(|| json!(said(&output)));
    (outcome, output.status.success())
}

pub(crate) async fn book(stores: &FakeStores, account: &str) -> i64 {
    let status = stores.service.known_status().await;
    assert_eq!(status["books"]["balanced"], true, "{status}");
    status["books"][account].as_i64().expect("a number")
}

/// Refuses the event with this number.
fn refuse(number: u64) -> Option<Behaviour> {
    Some(Behaviour::partial(move |_, item| {
        (item.source["fields"]["number"] == number)
            .then(|| ItemFault::new(400, "document_parsing_exception", "failed to parse field [user_id]"))
    }))
}

async fn until_attempts(stores: &FakeStores, attempts: i64) {
    let sql =
        format!("select count(*) from log_writer.dead_letters where attempts = {attempts} and redriven_at is null");
    eventually("the letter to be refused again", SOON, || async {
        (stores.database.number(&sql).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_event_is_redriven_until_it_is_taken_and_the_books_balance_after_each_step() {
    let stores = FakeStores::start().await;
    stores.fake.always(refuse(7));
    let events = fresh(20);
    stores.service.ingest(&events).await;
    stores.assert_delivered_exactly_once(20).await;

    let found = list(
        &stores,
        &[
            "--stage",
            "index",
            "--since",
            "1h",
            "--reason",
            "document_parsing_exception",
        ],
    )
    .await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["event_id"], events[7]["event_id"]);
    let id = found[0]["id"].to_string();
    let shown = letters(&stores, &["show", &id, "--json"]).await;
    assert_eq!(lines(&shown)[0]["event"]["message"], "event 7", "{}", said(&shown));
    for filter in [
        ["--tenant", "blue"],
        ["--stage", "decode"],
        ["--until", "1h"],
        ["--reason", "other"],
    ] {
        assert_eq!(list(&stores, &filter).await, Vec::<Value>::new(), "{filter:?}");
    }

    let (outcome, _) = redrive(&stores, &["--all", "--dry-run"]).await;
    assert_eq!(outcome["requeued"], 1, "{outcome}");
    assert_eq!(book(&stores, "requeued").await, 0, "a dry run changes nothing");

    let (outcome, all) = redrive(&stores, &[&id]).await;
    assert!(all && outcome["requeued"] == 1, "{outcome}");
    until_attempts(&stores, 2).await;
    assert_eq!(
        (
            book(&stores, "index_dead_lettered").await,
            book(&stores, "requeued").await
        ),
        (1, 1)
    );

    stores.fake.always(None);
    let (outcome, all) = redrive(&stores, &["--stage", "index"]).await;
    assert!(all && outcome["requeued"] == 1, "{outcome}");
    stores.assert_delivered_exactly_once(20).await;
    assert_eq!(stores.fake.documents(STREAM).len(), 20);
    assert_eq!(list(&stores, &[]).await, Vec::<Value>::new(), "its letter is gone");
    assert_eq!(
        (
            book(&stores, "index_dead_lettered").await,
            book(&stores, "requeued").await
        ),
        (0, 2)
    );
}

#[tokio::test]
async fn a_redriven_event_that_stands_in_an_older_index_is_not_indexed_twice() {
    // Else the service itself finds it.
    let seldom = |settings: Settings| settings.set("delivery.lease", "10m").set("delivery.renew_every", "1m");
    let stores = FakeStores::start_with(seldom).await;
    stores.fake.always(refuse(3));
    stores.service.ingest(&fresh(5)).await;
    let rows = stores.assert_delivered_exactly_once(5).await;
    stores.fake.always(None);
    let row = rows
        .iter()
        .find(|row| row.text("message") == Some("event 3"))
        .expect("the refused event");
    // Somebody got it in by hand, then the stream rolled over.
    let id = document_id(row.timestamp_us, row.id);
    stores.fake.plant(STREAM, 0, &id, json!({ "by": "hand" }));
    stores.fake.roll_over(STREAM);
    let (outcome, _) = redrive(&stores, &["--all"]).await;
    assert_eq!(outcome["requeued"], 1, "{outcome}");
    stores.service.until_delivered().await;
    let copies: Vec<_> = stores
        .fake
        .documents(STREAM)
        .into_iter()
        .filter(|document| document.id == id)
        .collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0].source["by"], "hand");
    assert_eq!(book(&stores, "indexed").await, 5);
    assert_eq!(list(&stores, &[]).await, Vec::<Value>::new());
}

/// NDJSON of events with times and without ids.
fn without_ids(count: u32) -> String {
    (0..count)
        .map(|number| {
            json!({ "timestamp": chrono::Utc::now().to_rfc3339(), "message": format!("event {number}") }).to_string()
                + "\n"
        })
        .collect()
}

#[tokio::test]
async fn what_was_over_the_limit_of_a_request_is_redriven_with_the_ids_that_it_would_have_had() {
    let stores = FakeStores::start_with(|settings| settings.set("events.per_request_max", "2")).await;
    let body = without_ids(5);
    let request = Request::new("POST", "/ingest", body.clone()).header("content-type", "application/x-ndjson");
    let expected = Receipt {
        received: 3,
        committed: 2,
        duplicates: 0,
        dead_lettered: 1,
    };
    assert_eq!(stores.service.send(&request).await.receipt(), expected);
    let (outcome, all) = redrive(&stores, &["--stage", "decode"]).await;
    assert!(all && outcome["committed"] == 3, "{outcome}");
    let rows = stores.assert_delivered_exactly_once(5).await;
    let digest = request_digest(&DigestParts {
        tenant: "default",
        path: "/ingest",
        content_type: Some(b"application/x-ndjson"),
        content_encoding: None,
        idempotency_key: None,
        body: body.as_bytes(),
    });
    for (position, message) in (0..5).map(|number| (number, format!("event {number}"))) {
        let row = rows
            .iter()
            .find(|row| row.text("message") == Some(&message))
            .expect("stored");
        assert_eq!(
            row.id,
            derive_id(Some(Timestamp(row.timestamp_us)), &digest, position),
            "{message}"
        );
    }
    assert_eq!(
        (book(&stores, "received").await, book(&stores, "dead_lettered").await),
        (5, 0)
    );
    assert_eq!(list(&stores, &[]).await, Vec::<Value>::new());
    let (outcome, _) = redrive(&stores, &["--all"]).await;
    assert_eq!(outcome["letters"], 0, "once is enough: {outcome}");
}

#[tokio::test]
async fn a_row_that_postgresql_refused_is_redriven_under_its_own_key() {
    let stores = FakeStores::start().await;
    let sql = "alter table public.application_logs add constraint no_poison check (message <> 'event 3')";
    sqlx::query(sql)
        .execute(stores.database.pool())
        .await
        .expect("a constraint");
    let events = fresh(5);
    assert_eq!(stores.service.ingest(&events).await.dead_lettered, 1);
    let found = list(&stores, &["--stage", "store"]).await;
    assert_eq!(found[0]["event_id"], events[3]["event_id"], "{found:?}");

    let (outcome, all) = redrive(&stores, &["--all"]).await;
    assert!(!all && outcome["refused"] == 1, "{outcome}");
    let again = list(&stores, &[]).await;
    assert_eq!(
        (&again[0]["id"], &again[0]["attempts"]),
        (&found[0]["id"], &json!(2)),
        "{again:?}"
    );
    assert_eq!(book(&stores, "dead_lettered").await, 1);

    let sql = "alter table public.application_logs drop constraint no_poison";
    sqlx::query(sql).execute(stores.database.pool()).await.expect("dropped");
    let (outcome, all) = redrive(&stores, &["--all"]).await;
    assert!(all && outcome["committed"] == 1, "{outcome}");
    let rows = stores.assert_delivered_exactly_once(5).await;
    let row = rows
        .iter()
        .find(|row| row.text("message") == Some("event 3"))
        .expect("stored");
    assert_eq!(json!(row.id), events[3]["event_id"]);
    assert_eq!(row.fields["number"], 3, "nothing of it is lost");
    assert_eq!(
        stores.service.ingest(&json!([events[3]])).await,
        Receipt::all_duplicates(1)
    );
    assert_eq!(book(&stores, "dead_lettered").await, 0);
}

#[tokio::test]
async fn a_whole_body_is_redriven_and_its_events_are_counted() {
    let stores = FakeStores::start().await;
    let body = without_ids(4);
    let request = Request::new("POST", "/ingest", body)
        .header("content-type", "application/x-ndjson")
        .header("content-encoding", "br");
    assert_eq!(stores.service.send(&request).await.status, 400);
    let (outcome, all) = redrive(&stores, &["--all"]).await;
    assert!(!all && outcome["refused"] == 1, "{outcome}");
    assert_eq!(list(&stores, &[]).await[0]["attempts"], 2);
    // The sender had the header wrong.
    let sql = "update log_writer.dead_letters set content_encoding = null";
    sqlx::query(sql)
        .execute(stores.database.pool())
        .await
        .expect("put right");
    let (outcome, all) = redrive(&stores, &["--all"]).await;
    assert!(all && outcome["committed"] == 4, "{outcome}");
    stores.assert_delivered_exactly_once(4).await;
    assert_eq!(
        (book(&stores, "received").await, book(&stores, "dead_lettered").await),
        (4, 0)
    );
}

#[tokio::test]
async fn what_was_cut_is_not_redriven_and_told() {
    let stores = FakeStores::start_with(|settings| settings.set("database.dead_letter_bytes_max", "10")).await;
    let request = Request::new("POST", "/ingest", "{\"message\": broken but it ends}");
    stores.service.send(&request).await;
    let output = letters(&stores, &["redrive", "--all"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("1 cut when they were kept"), "{}", said(&output));
    assert_eq!(list(&stores, &[]).await.len(), 1, "it stays");
}

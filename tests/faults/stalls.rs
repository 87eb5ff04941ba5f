//! A lock, a compressed day, a frozen replica or a twin in flight holds up what needs it, and nothing else.
//!
//! In each test somebody's request is held up for some seconds while others send on: all that they have sent is taken
//! before what holds up is let go, and none waits for ten seconds. The longest that one waited is printed
//! (`--nocapture`).

use std::time::{Duration, Instant};

use chrono::SubsecRound;
use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    service::Service,
    traffic::{Seen, Traffic},
};
use serde_json::{Value, json};
use sqlx::Executor;
use uuid::Uuid;

use crate::stage::{Aside, Stage, event, event_at, pass};

/// How long what holds up is held, at least.
const HELD: Duration = Duration::from_secs(7);

/// The longest that one of the others may wait for its 200: with room for a machine that stalls for seconds, and less
/// than a transaction may take (15 s).
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Requests that are held up at once.
const HELD_MAX: usize = 200;

/// Claims that the others go on, each of their requests with its first answer; to be asked while somebody is held up.
async fn go_on(case: &str, others: Traffic) -> u64 {
    let others = go_on_by_resending(case, others).await;
    assert_eq!(others.refused, 0, "{case}: {others:?}");
    others.acknowledged
}

/// The same where some may have to send again: `http.answer_timeout` is short, or memory. How many, the caller judges.
async fn go_on_by_resending(case: &str, others: Traffic) -> Seen {
    let before = others.acknowledged();
    eventually(&format!("{case}: ten more of the others"), SOON, || {
        std::future::ready((others.acknowledged() >= before + 10).then_some(()))
    })
    .await;
    // None of them waits, too.
    let others = tokio::time::timeout(SOON, others.stop()).await.expect(case);
    #[expect(clippy::print_stderr, reason = "the figure of docs/RELIABILITY.md")]
    {
        eprintln!(
            "{case}: longest wait of the others {:?} of {} answers",
            others.longest, others.acknowledged
        );
    }
    assert!(others.longest < WAIT_MAX, "{case}: {others:?}");
    others
}

/// More than goes down a COPY in one message.
fn large_body() -> (Request, u64) {
    let text = "x".repeat(10_000);
    let events: Vec<Value> = (0..200)
        .map(|_| {
            let mut event = event(0);
            event["filler"] = json!(text);
            event
        })
        .collect();
    (Request::json(&Value::Array(events)), 200)
}

#[tokio::test]
async fn a_late_event_into_a_day_under_compression_stops_nobody() {
    let stage = Stage::start(|settings| settings).await;
    for day in [0, 48, 96] {
        stage.service.ingest(&json!([event(day)])).await;
    }
    let chunk = stage.chunk_of(48).await;
    let compress = if stage.is_community().await {
        format!("select compress_chunk('{chunk}')")
    } else {
        format!("lock table {chunk} in exclusive mode")
    };
    let mut holder = stage.hold(&compress).await;
    let late = stage.send_aside(Request::json(&json!([event(48)])));
    stage.until_a_lock_is_waited_for().await;
    let (fresh, other_days) = (stage.traffic(3, || event(0)), stage.traffic(2, || event(96)));
    pass(HELD).await;
    let fresh = go_on("a day under compression, fresh events", fresh).await;
    let other_days = go_on("a day under compression, late events of other days", other_days).await;
    assert!(!late.is_answered(), "it needs that day");
    holder.execute("commit").await.expect("compressed");
    assert_eq!(late.answer().await.receipt(), Receipt::all_committed(1));
    stage.assert_nothing_lost_or_doubled(3 + 1 + fresh + other_days).await;
}

#[tokio::test]
async fn large_late_events_into_a_locked_day_leave_memory_for_the_others() {
    let stage = Stage::start(|settings| {
        settings
            .set("http.body_bytes_max", "8MiB")
            .set("http.inflight_bytes_max", "24MiB")
            // What the late ones hold they hold for as long as the others are waited for.
            .set("http.answer_timeout", "55s")
    })
    .await;
    for day in [0, 48] {
        stage.service.ingest(&json!([event(day)])).await;
    }
    let chunk = stage.chunk_of(48).await;
    let day = chrono::Utc::now() - chrono::Duration::hours(48);
    let mut holder = stage.hold(&format!("lock table {chunk} in exclusive mode")).await;
    let with = |mut event: Value, bytes: usize| {
        event["filler"] = json!("x".repeat(bytes));
        event
    };
    // More than all may hold together, in pieces that leave no room for one of the others.
    let late = stage.traffic(120, move || with(event_at(day), 100_000));
    stage.until_a_lock_is_waited_for().await;
    eventually("late events to be refused", SOON, || async {
        let metrics = stage.service.send(&Request::get("/metrics")).await.text();
        metrics
            .contains("log_writer_late_lane_requests_total{reason=\"refused\"}")
            .then_some(())
    })
    .await;
    let others = stage.traffic(2, move || with(event(0), 1_000_000));
    pass(HELD).await;
    let fresh = go_on_by_resending("large late events into a locked day", others).await;
    // Both together need 4.2 MB, and the late ones leave them 12 MiB. A tenth of all would be enough for one at a time.
    assert!(fresh.refused * 10 <= fresh.acknowledged, "{fresh:?}");
    holder.execute("rollback").await.expect("released");
    let late = late.stop().await;
    assert!(late.refused > 0, "{late:?}");
    stage
        .assert_nothing_lost_or_doubled(2 + late.acknowledged + fresh.acknowledged)
        .await;
}

/// A replica stops in the middle of a COPY into a table that has no chunk yet, and is left like that.
async fn freeze_in_mid_copy(stage: &Stage) -> (Service, Request, Aside) {
    let armed = stage.settings.clone().failpoints("commit::in_copy=1*return(stop)");
    let frozen = Service::start(armed).await;
    let (body, _) = large_body();
    let answer = Aside::to(&frozen, body.clone());
    frozen.until_stopped_at("commit::in_copy").await;
    (frozen, body, answer)
}

#[tokio::test]
async fn a_replica_frozen_in_mid_copy_and_its_twin_elsewhere_stop_nobody() {
    // The limits are long, so that nobody's session is ended and everybody is waited for.
    let stage = Stage::start(|settings| {
        settings
            .set("database.transaction_timeout", "60s")
            .set("http.answer_timeout", "55s")
    })
    .await;
    let (frozen, body, answer) = freeze_in_mid_copy(&stage).await;
    // The very first events of all: the frozen one was about to make the chunk that they need.
    let others = stage.traffic(4, || event(0));
    let twin = stage.send_aside(body);
    pass(HELD).await;
    let acknowledged = go_on("a replica frozen in mid-COPY, and its twin", others).await;
    assert!(
        !twin.is_answered(),
        "whether it is a resend is known when the first one has ended"
    );
    frozen.signal("CONT");
    assert_eq!(answer.answer().await.status, 200);
    let receipt = twin.answer().await.receipt();
    assert_eq!(receipt, Receipt::all_duplicates(200));
    stage.assert_nothing_lost_or_doubled(acknowledged + 200).await;
}

#[tokio::test]
async fn the_session_of_a_replica_that_stays_frozen_is_ended_and_its_request_taken_by_another() {
    let stage = Stage::start(|settings| {
        settings
            .set("database.transaction_timeout", "6s")
            .set("http.answer_timeout", "55s")
    })
    .await;
    let (frozen, body, answer) = freeze_in_mid_copy(&stage).await;
    let others = stage.traffic(4, || event(0));
    let twin = stage.send_aside(body);
    pass(HELD).await;
    let acknowledged = go_on("a frozen replica, whose session is ended later", others).await;
    // Four times the limit are 24 seconds.
    assert!(!twin.is_answered(), "the first one's session has not been ended");
    let receipt = twin.answer().await.receipt();
    assert_eq!(receipt, Receipt::all_committed(200), "with the first one still frozen");
    frozen.signal("CONT");
    assert_eq!(answer.answer().await.status, 200);
    stage.assert_nothing_lost_or_doubled(acknowledged + 200).await;
}

#[tokio::test]
async fn many_events_in_flight_elsewhere_stop_nobody() {
    let stage = Stage::start(|settings| settings.set("http.answer_timeout", "40s")).await;
    stage.service.ingest(&json!([event(0)])).await;
    // Somebody else is storing the same events: whether they are duplicates is known when that has ended.
    let time = chrono::Utc::now().trunc_subsecs(6);
    let ids: Vec<Uuid> = (0..HELD_MAX).map(|_| Uuid::now_v7()).collect();
    let values: Vec<String> = ids
        .iter()
        .map(|id| {
            format!(
                "('{id}', '{}', now(), 0, '{}', 'INFO', 'faults', 'another')",
                time.to_rfc3339(),
                stage.stream.tenant
            )
        })
        .collect();
    let mut holder = stage
        .hold(&format!(
            "insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message) values {}",
            values.join(", ")
        ))
        .await;
    let others = stage.traffic(4, || event(0));
    let held: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut event = event_at(time);
            event["event_id"] = json!(id);
            stage.send_aside(Request::json(&json!([event])))
        })
        .collect();
    pass(HELD).await;
    let acknowledged = go_on("many requests whose events are in flight elsewhere", others).await;
    assert!(held.iter().all(|held| !held.is_answered()));
    holder.execute("rollback").await.expect("given up elsewhere");
    for held in held {
        assert_eq!(held.answer().await.receipt(), Receipt::all_committed(1));
    }
    stage
        .assert_nothing_lost_or_doubled(1 + HELD_MAX as u64 + acknowledged)
        .await;
}

#[tokio::test]
async fn a_locked_chunk_into_which_many_send_stops_nobody_who_sends_elsewhere() {
    let stage = Stage::start(|settings| {
        settings
            .set("database.chunk_interval", "1h")
            .set("http.answer_timeout", "4s")
    })
    .await;
    for hours in [2, 6] {
        stage.service.ingest_until_taken(&json!([event(hours)])).await;
    }
    let chunk = stage.chunk_of(2).await;
    let into_locked = chrono::Utc::now() - chrono::Duration::hours(2);
    let mut holder = stage.hold(&format!("lock table {chunk} in exclusive mode")).await;
    let held: Traffic = stage.traffic(12, move || event_at(into_locked));
    stage.until_a_lock_is_waited_for().await;
    let others = stage.traffic(4, || event(6));
    pass(HELD).await;
    let others = go_on_by_resending("a locked chunk into which many send", others).await;
    // A machine that stalls may cost each of the four an answer.
    assert!(others.refused <= 4 + others.acknowledged / 10, "{others:?}");
    holder.execute("rollback").await.expect("released");
    let held = held.stop().await;
    assert!(held.longest > HELD / 2, "they needed that chunk: {held:?}");
    stage
        .assert_nothing_lost_or_doubled(2 + others.acknowledged + held.acknowledged)
        .await;
}

#[tokio::test]
async fn locks_on_the_outbox_and_on_the_books_of_another_worker_stop_nobody() {
    let stage = Stage::start(|settings| settings).await;
    stage
        .execute(
            "insert into log_writer.books (worker, updated_at) values ('committer gone', now() - interval '2 hours')",
        )
        .await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    stage
        .execute("insert into log_writer.outbox (batch_id, target, tenants, first_time, last_time, events, bytes, next_attempt_at)
                  values (0, 'logs-app-nobody', '{nobody}', now(), now(), 0, 0, now() + interval '1 hour')")
        .await;
    // Housekeeping wants that row of the books too.
    let mut holder = stage
        .hold("select from log_writer.outbox for update; select from log_writer.books where worker = 'committer gone' for update")
        .await;
    let others = stage.traffic(4, || event(0));
    pass(HELD).await;
    let acknowledged = go_on("locks on outbox rows and another's books", others).await;
    holder.execute("rollback").await.expect("released");
    stage.execute("delete from log_writer.outbox where batch_id = 0").await;
    stage.assert_nothing_lost_or_doubled(1 + acknowledged).await;
}

#[tokio::test]
async fn a_request_whose_transaction_does_not_end_is_answered_at_its_deadline_and_committed_all_the_same() {
    let stage = Stage::start(|settings| {
        settings
            .set("http.answer_timeout", "1s")
            // Nothing of PostgreSQL's ends it before the sender is to have its answer.
            .set("database.lock_timeout", "60s")
            .set("database.transaction_timeout", "90s")
    })
    .await;
    // A committer prepares its statements when it connects, and that waits for the books' lock, too: one must have done so.
    stage.service.ingest_until_taken(&json!([event(0)])).await;
    let mut holder = stage.hold("lock table log_writer.books in exclusive mode").await;
    let request = Request::json(&json!([event(0)]));
    let before = stage.service.log().len();
    // More than once where no committer has it within a second: then it is withdrawn, and there is no transaction.
    eventually("the log to say that a transaction did not end", SOON, || async {
        let begun = Instant::now();
        let answer = stage.service.send(&request).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        // After a second, and the lock is waited for half a minute.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let log = stage.service.log().split_off(before);
        log.contains("did not end in time").then_some(())
    })
    .await;
    let inflight = async || {
        stage.service.status().await["inflight"]["bytes"]
            .as_u64()
            .expect("bytes")
    };
    assert!(inflight().await > 0, "the transaction holds what it commits");
    holder.execute("rollback").await.expect("released");
    eventually("the transaction to go on without its sender", SOON, || async {
        (stage.database.number("select count(*) from application_logs").await == 2).then_some(())
    })
    .await;
    assert_eq!(
        stage.service.send_until_taken(&request).await,
        Receipt::all_duplicates(1)
    );
    eventually("what it held to be given back", SOON, || async {
        (inflight().await == 0).then_some(())
    })
    .await;
    stage.assert_nothing_lost_or_doubled(2).await;
}

#[tokio::test]
async fn the_status_waits_for_no_lock_and_names_what_is_not_known() {
    let stage = Stage::start(|settings| settings).await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    let mut holder = stage.hold("lock table log_writer.books in access exclusive mode").await;
    let begun = Instant::now();
    let status = stage.service.status().await;
    // It gives PostgreSQL half a second, and PostgreSQL would give up after thirty.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(status["books"], Value::Null, "{status}");
    assert!(status["unknown"].to_string().contains("books"), "{status}");
    stage
        .service
        .until_status("all but the books to be known", |status| {
            status["books"].is_null()
                && status["unknown"].as_array().is_some_and(|unknown| unknown.len() == 1)
                && status["dead_letters"].is_object()
                && status["postgres"]["postgres_version"].is_string()
        })
        .await;
    holder.execute("rollback").await.expect("released");
    let status = stage.service.known_status().await;
    assert_eq!(status["books"]["committed"], 1, "{status}");
}

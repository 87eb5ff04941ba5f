//! SIGTERM: nothing that was begun stays without an answer, whatever hangs, and the end comes in time.

use std::time::{Duration, Instant};

use futures::future::join_all;
use log_writer_tests::{
    client::{Answer, Connection, Receipt, Request, send},
    conditions::{SOON, eventually},
    proxy::Mode,
    service::Service,
};

use super::{Stores, fresh};

/// Three seconds of drain, then five each for the tasks and for the release of claims; with room for a slow machine,
/// and less than PostgreSQL is waited for elsewhere.
const END: Duration = Duration::from_secs(30);

/// Sends requests, makes sure that the service has read all their heads and holds one to be committed, and stalls
/// PostgreSQL before any is.
async fn in_flight(stores: &Stores, service: &Service, requests: &[Request]) -> Vec<Connection> {
    let mut holder = stores.database.pool().begin().await.expect("a connection");
    sqlx::query("lock table log_writer.requests")
        .execute(&mut *holder)
        .await
        .expect("locked");
    let connections = service.send_begun(requests).await;
    service.until_held(&stores.database).await;
    stores.postgres.set(Mode::Stall);
    holder.rollback().await.expect("unlocked");
    connections
}

async fn answers(connections: &mut [Connection]) -> Vec<Answer> {
    join_all(connections.iter_mut().map(|connection| connection.answer(false)))
        .await
        .into_iter()
        .map(|answer| answer.expect("a whole answer"))
        .collect()
}

#[tokio::test]
async fn readiness_goes_first_and_requests_are_taken_until_the_listener_closes() {
    let stores = Stores::create().await;
    // As long as the test wants: a second signal ends it.
    let mut service = Service::start(stores.settings().set("http.shutdown_delay", "10m")).await;
    service.terminate();
    eventually("/ready to tell of the end", SOON, || async {
        let answer = service.send(&Request::get("/ready")).await;
        (answer.status == 503).then_some(())
    })
    .await;
    assert_eq!(service.status().await["problem"], "shutting down");
    assert_eq!(service.ingest(&fresh(10)).await, Receipt::all_committed(10));
    assert_eq!(service.send(&Request::get("/health")).await.status, 200);
    service.signal("INT");
    let status = service.until_ended(END).await;
    assert!(status.success(), "{status}");
    send(service.address(), &Request::get("/health"))
        .await
        .expect_err("nobody listens");
    service.restart().await;
    stores.assert_delivered_exactly_once(&service, 10).await;
}

#[tokio::test]
async fn the_listener_closes_by_itself_and_not_before_its_delay_is_over() {
    let stores = Stores::create().await;
    let delay = Duration::from_secs(1);
    let mut service = Service::start(stores.settings().set("http.shutdown_delay", "1s")).await;
    let told = Instant::now();
    service.terminate();
    let status = service.until_ended(delay + END).await;
    assert!(status.success(), "{status}");
    assert!(told.elapsed() >= delay, "it did not wait: {:?}", told.elapsed());
}

#[tokio::test]
async fn with_postgres_stalled_every_request_is_answered_503_and_the_end_comes_in_time() {
    let stores = Stores::create().await;
    let mut service = Service::start(stores.settings().set("http.answer_timeout", "55s")).await;
    service.ingest(&fresh(1)).await;
    let requests: Vec<Request> = (0..20).map(|_| Request::json(&fresh(5))).collect();
    let mut connections = in_flight(&stores, &service, &requests).await;
    let told = Instant::now();
    service.terminate();
    let answers = answers(&mut connections).await;
    let took = told.elapsed();
    for answer in &answers {
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    // Two seconds after the signal; the drain that is the default would take 24.
    assert!(took < Duration::from_secs(15), "{took:?}");
    // Not by `http.answer_timeout`, which comes later. One whose body came after the signal is told something else.
    let in_time = |answer: &Answer| answer.text().contains("shutting down");
    assert!(answers.iter().any(in_time), "{answers:?}");
    let status = service.until_ended(END).await;
    let log = service.log();
    // What could not end is named, and told by the exit code.
    assert_eq!(status.success(), !log.contains("still running"), "{status}");
    stores.postgres.set(Mode::Forward);
    service.restart().await;
    for request in &requests {
        let receipt = service.send(request).await.receipt();
        assert_eq!(receipt.committed + receipt.duplicates, 5, "{receipt:?}");
    }
    stores.assert_delivered_exactly_once(&service, 101).await;
}

#[tokio::test]
async fn a_second_signal_answers_and_ends_at_once() {
    let stores = Stores::create().await;
    let mut service = Service::start(
        stores
            .settings()
            .set("http.drain_timeout", "10m")
            .set("http.answer_timeout", "55s"),
    )
    .await;
    let mut connections = in_flight(&stores, &service, &[Request::json(&fresh(5))]).await;
    service.terminate();
    eventually("the first signal to be seen", SOON, || async {
        service.log().contains("shutting down").then_some(())
    })
    .await;
    service.signal("INT");
    let answer = &answers(&mut connections).await[0];
    assert_eq!(answer.status, 503, "{}", answer.text());
    // At the end of `http.answer_timeout` it would be told something else.
    assert!(answer.text().contains("shutting down"), "{}", answer.text());
    service.until_ended(END).await;
}

#[tokio::test]
async fn a_body_that_is_still_arriving_at_the_end_is_answered_503() {
    let stores = Stores::create().await;
    let mut service = Service::start(stores.settings()).await;
    let request = Request::json(&fresh(50));
    let mut connections = service.send_halves(std::slice::from_ref(&request)).await;
    service.terminate();
    let answer = &answers(&mut connections).await[0];
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "the rest of the body is not read"
    );
    assert!(service.until_ended(END).await.success());
    service.restart().await;
    assert_eq!(service.send(&request).await.receipt(), Receipt::all_committed(50));
    stores.assert_delivered_exactly_once(&service, 50).await;
}

#[tokio::test]
async fn with_elasticsearch_hanging_it_ends_in_time_and_another_replica_takes_its_claims_over_at_once() {
    let stores = Stores::create().await;
    // A lease far longer than the test: only a release can explain that the other one delivers.
    let mut service = Service::start(
        stores
            .settings()
            .set("delivery.lease", "10m")
            .set("delivery.renew_every", "1m"),
    )
    .await;
    service.ingest(&fresh(10)).await;
    service.until_delivered().await;
    stores.elasticsearch.set(Mode::Stall);
    service.ingest(&fresh(40)).await;
    let claimed = "select count(*) from log_writer.outbox where claimed_by is not null";
    eventually("the events to be claimed", SOON, || async {
        (stores.database.number(claimed).await > 0).then_some(())
    })
    .await;
    service.terminate();
    let status = service.until_ended(END).await;
    assert!(status.success(), "{status}");
    assert_eq!(stores.database.number(claimed).await, 0, "claims are released");
    assert_eq!(
        stores
            .database
            .number("select sum(events)::bigint from log_writer.outbox")
            .await,
        40,
        "what was not settled is open"
    );
    let other = Service::start(stores.direct()).await;
    stores.assert_delivered_exactly_once(&other, 50).await;
}

#[tokio::test]
async fn told_to_end_while_it_starts_it_does() {
    let stores = Stores::create().await;
    // Neither store is there.
    stores.postgres.set(Mode::Refuse);
    stores.elasticsearch.set(Mode::Refuse);
    let mut service = Service::start_unready(stores.settings()).await;
    service.terminate();
    assert!(service.until_ended(END).await.success(), "without stores");
    // Both take connections and say nothing.
    stores.postgres.set(Mode::Stall);
    stores.elasticsearch.set(Mode::Stall);
    let mut service = Service::start_unready(stores.settings()).await;
    service.terminate();
    assert!(service.until_ended(END).await.success(), "while it waits for answers");
    // While another replica migrates.
    stores.postgres.set(Mode::Forward);
    let mut migrator = stores.database.pool().acquire().await.expect("a connection");
    // `log_writ` in ASCII.
    sqlx::query("select pg_advisory_lock(x'6c6f675f77726974'::bigint)")
        .execute(&mut *migrator)
        .await
        .expect("locked");
    let mut service = Service::start_unready(stores.settings()).await;
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                 and database = (select oid from pg_database where datname = current_database())";
    eventually("it to wait for the migrator", SOON, || async {
        (stores.database.number(waits).await == 1).then_some(())
    })
    .await;
    service.terminate();
    assert!(service.until_ended(END).await.success(), "while somebody else migrates");
    drop(migrator.detach());
    // In the middle of a migration of its own.
    let point = "migration::before_commit";
    let mut service = Service::start_unasked(stores.settings().failpoints(&format!("{point}=1*return(stop)")));
    service.until_stopped_at(point).await;
    service.terminate();
    service.signal("CONT");
    assert!(service.until_ended(END).await.success(), "in the middle of a migration");
    // Bootstrap hangs.
    let mut service = Service::start(stores.settings()).await;
    service.ingest(&fresh(3)).await;
    service.terminate();
    assert!(service.until_ended(END).await.success(), "in the middle of a bootstrap");
    stores.elasticsearch.set(Mode::Forward);
    service.restart().await;
    stores.assert_delivered_exactly_once(&service, 3).await;
}

//! Housekeeping: what it does, and what it must leave alone.

use std::time::Duration;

use log_writer_service::timescale::{Edition, Housekeeping, housekeep};
use sqlx::{ConnectOptions, Executor, postgres::PgConnectOptions};

use crate::timescale_database::{MODE, TestDatabase, event, request, with_database};

const LONG_READY: Duration = Duration::from_secs(3_600);

async fn run(database: &TestDatabase, ready_for: Duration) -> Housekeeping {
    housekeep(&database.pool, &database.settings, ready_for)
        .await
        .expect("done")
}

#[tokio::test]
async fn digests_are_purged_only_after_an_hour_of_readiness() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("old", &[event(1)])], &MODE)
            .await
            .expect("committed");
        database
            .execute("update log_writer.requests set noted_at = now() - interval '7 hours'")
            .await;
        committer
            .commit(&mut [&mut request("new", &[event(2)])], &MODE)
            .await
            .expect("committed");
        assert_eq!(
            run(database, LONG_READY - Duration::from_secs(1)).await.digests_purged,
            0
        );
        assert_eq!(run(database, LONG_READY).await.digests_purged, 1);
        assert_eq!(database.number("select count(*) from log_writer.requests").await, 1);
        let receipts = committer
            .commit(&mut [&mut request("new", &[event(2)])], &MODE)
            .await
            .expect("known");
        assert_eq!(receipts[0].duplicates, 1);
    })
    .await;
}

#[tokio::test]
async fn folding_idle_books_changes_no_sum() {
    with_database(async |database| {
        for name in ["one", "two", "three"] {
            let mut committer = database.committer(name).await;
            committer.commit(&mut [&mut request(name, &[event(u32::from(name.as_bytes()[1]))])], &MODE).await.expect("committed");
        }
        let before = database.books().await;
        for _ in 0..2 {
            database.execute("update log_writer.books set updated_at = now() - interval '2 hours' where worker <> 'committer three'").await;
            run(database, Duration::ZERO).await;
            assert_eq!(database.books().await, before);
            assert_eq!(database.number("select count(*) from log_writer.books").await, 2);
        }
        // One that was folded and yet lives goes on.
        let mut committer = database.committer("one").await;
        committer.commit(&mut [&mut request("more", &[event(7)])], &MODE).await.expect("committed");
        assert_eq!(database.books().await.committed, before.committed + 1);
    })
    .await;
}

#[tokio::test]
async fn a_frozen_committer_is_ended_and_nobody_else() {
    with_database(async |database| {
        let mut settings = database.settings.clone();
        settings.transaction_timeout = Duration::from_millis(1);
        let options: PgConnectOptions = database.pool.connect_options().as_ref().clone();
        let mut frozen = options.clone().application_name("log-writer committer frozen").connect().await.expect("connected");
        // In mid-COPY: active for PostgreSQL, waiting for us.
        frozen.execute("begin").await.expect("begun");
        let copy = frozen.copy_in_raw("copy log_writer.requests from stdin (format binary)").await.expect("copying");
        let mut bystander = options.application_name("somebody else").connect().await.expect("connected");
        bystander.execute("begin; select 1").await.expect("begun");
        let committer = database.committer("idle").await;

        let frozen_there = "select exists(select from pg_stat_activity where application_name = 'log-writer committer frozen'
                              and datname = current_database() and wait_event_type = 'Client')";
        database.until(frozen_there).await;
        let ended = housekeep(&database.pool, &settings, Duration::ZERO).await.expect("done").sessions_ended;
        assert_eq!(ended, 1);
        database.until("select not exists(select from pg_stat_activity where application_name = 'log-writer committer frozen' and datname = current_database())").await;
        bystander.execute("commit").await.expect("left alone");
        drop((copy, committer));
    })
    .await;
}

#[tokio::test]
async fn the_next_chunk_is_made_ahead_once_where_the_edition_can() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut today = event(1);
        today.timestamp.0 = database
            .number("select (extract(epoch from now()) * 1000000)::bigint")
            .await;
        assert!(
            !run(database, Duration::ZERO).await.chunk_made,
            "there is no chunk to follow"
        );
        committer
            .commit(&mut [&mut request("today", &[today.clone()])], &MODE)
            .await
            .expect("committed");
        let can = database.status().await.edition == Edition::Community;
        assert_eq!(run(database, Duration::ZERO).await.chunk_made, can);
        assert!(!run(database, Duration::ZERO).await.chunk_made, "it is there");
        let chunks = "select count(*) from timescaledb_information.chunks where hypertable_name = 'application_logs'";
        assert_eq!(database.number(chunks).await, 1 + i64::from(can));
        today.timestamp.0 += crate::timescale_database::DAY;
        today.own_id = Some(crate::timescale_database::id(2));
        committer
            .commit(&mut [&mut request("tomorrow", &[today])], &MODE)
            .await
            .expect("committed");
        assert_eq!(
            database.number(chunks).await,
            2,
            "tomorrow's event went into the chunk made ahead"
        );
    })
    .await;
}

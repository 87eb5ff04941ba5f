//! Housekeeping: what it does, and what it must leave alone.

use std::time::Duration;

use log_writer_service::timescale::{Books, CommitMode, Housekeeping, StoreErrorKind, end_hanging_sessions, housekeep};
use sqlx::{ConnectOptions, Executor, postgres::PgConnectOptions};

use crate::timescale_database::{MODE, TestDatabase, event, request, with_database};

const LONG_READY: Duration = Duration::from_secs(3_600);
const CHUNKS: &str = "select count(*) from timescaledb_information.chunks where hypertable_name = 'application_logs'";

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
        let ended = end_hanging_sessions(&database.pool, &settings).await.expect("done");
        assert_eq!(ended, 1);
        database.until("select not exists(select from pg_stat_activity where application_name = 'log-writer committer frozen' and datname = current_database())").await;
        bystander.execute("commit").await.expect("left alone");
        drop((copy, committer));
    })
    .await;
}

#[tokio::test]
async fn what_a_committer_left_behind_is_ended_when_it_connects_again() {
    with_database(async |database| {
        let options: PgConnectOptions = database.pool.connect_options().as_ref().clone();
        let mut left = options
            .clone()
            .application_name("log-writer committer one")
            .connect()
            .await
            .expect("connected");
        left.execute("begin; insert into log_writer.books (worker) values ('committer one')")
            .await
            .expect("locked");
        let mut other = options
            .clone()
            .application_name("log-writer committer one more")
            .connect()
            .await
            .expect("connected");
        other.execute("begin; select 1").await.expect("begun");
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("one", &[event(1)])], &MODE)
            .await
            .expect("no lock is in the way");
        left.execute("select 1").await.expect_err("it was ended");
        other.execute("commit").await.expect("left alone");
    })
    .await;
}

#[tokio::test]
async fn the_next_chunk_is_made_ahead_once() {
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
        assert!(run(database, Duration::ZERO).await.chunk_made);
        assert!(!run(database, Duration::ZERO).await.chunk_made, "it is there");
        assert_eq!(database.number(CHUNKS).await, 2);
        today.timestamp.0 += crate::timescale_database::DAY;
        today.own_id = Some(crate::timescale_database::id(2));
        committer
            .commit(&mut [&mut request("tomorrow", &[today])], &MODE)
            .await
            .expect("committed");
        assert_eq!(
            database.number(CHUNKS).await,
            2,
            "tomorrow's event went into the chunk made ahead"
        );
        let rows = database.number("select count(*) from application_logs").await;
        assert_eq!(rows, 2, "what makes a chunk leaves no row");
    })
    .await;
}

#[tokio::test]
async fn a_chunk_is_made_before_the_transaction_that_needs_it() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        // Whoever makes a chunk within a transaction holds this lock until its end.
        let mut maker = database.bystander().await;
        maker
            .execute("begin; lock table public.application_logs in share update exclusive mode")
            .await
            .expect("locked");
        let short = CommitMode {
            lock_timeout: Duration::from_millis(20),
            ..MODE
        };
        let error = committer
            .commit(&mut [&mut request("held", &[event(1)])], &short)
            .await
            .expect_err("somebody else makes one");
        assert_eq!(error.kind(), StoreErrorKind::LockTimeout, "{error}");
        maker.execute("rollback").await.expect("released");

        // What fails after it was made leaves the chunk, and keeps nobody from theirs.
        let mut holder = database.bystander().await;
        holder
            .execute("begin; lock table log_writer.outbox in exclusive mode")
            .await
            .expect("locked");
        committer
            .commit(&mut [&mut request("held", &[event(1)])], &short)
            .await
            .expect_err("the outbox is locked");
        assert_eq!(database.number(CHUNKS).await, 1);
        holder.execute("rollback").await.expect("released");
        committer
            .commit(&mut [&mut request("held", &[event(1)])], &short)
            .await
            .expect("committed");
        assert_eq!(database.number(CHUNKS).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_rehearsal_meets_what_a_commit_meets_and_leaves_nothing() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer.rehearse().await.expect("all is well");
        for (broken, mended) in [
            (
                "alter table log_writer.outbox rename to hidden",
                "alter table log_writer.hidden rename to outbox",
            ),
            (
                "alter table application_logs rename column message to text",
                "alter table application_logs rename column text to message",
            ),
            (
                "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
                 create trigger refuse before insert on application_logs for each row execute function refuse()",
                "drop trigger refuse on application_logs; drop function refuse",
            ),
            (
                "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
                 create constraint trigger refuse after insert on log_writer.requests deferrable initially deferred
                   for each row execute function refuse()",
                "drop trigger refuse on log_writer.requests; drop function refuse",
            ),
        ] {
            database.execute(broken).await;
            committer.rehearse().await.expect_err(broken);
            database.execute(mended).await;
            committer.rehearse().await.expect(mended);
        }
        for table in ["application_logs", "log_writer.requests", "log_writer.outbox"] {
            let rows = database.number(&format!("select count(*) from {table}")).await;
            assert_eq!(rows, 0, "{table}");
        }
        assert_eq!(database.books().await, Books::default(), "zeros were committed");
    })
    .await;
}

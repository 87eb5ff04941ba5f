//! Locks, cut connections, time limits, odd answers: what kind they are, and that the next commit works.

use std::time::{Duration, Instant};

use log_writer_service::timescale::{CommitMode, Committer, StoreErrorKind};
use sqlx::{Executor, PgConnection};

use crate::timescale_database::{MODE, TestDatabase, digest, event, request, with_database};

const LOCKED: &str = "select exists(select from pg_stat_activity where application_name like 'log-writer committer%' \
                      and datname = current_database() and wait_event_type = 'Lock')";
const NO_COMMITTER: &str = "select not exists(select from pg_stat_activity where application_name like \
                            'log-writer committer%' and datname = current_database())";

/// For commits that must still wait when a test has seen that they do.
const PATIENT: CommitMode = CommitMode {
    lock_timeout: Duration::from_secs(10),
    ..MODE
};

async fn lock_table(database: &TestDatabase) -> PgConnection {
    let mut bystander = database.bystander().await;
    bystander
        .execute("begin; lock table public.application_logs in exclusive mode")
        .await
        .expect("locked");
    bystander
}

async fn commits_again(database: &TestDatabase, committer: &mut Committer) {
    let mut other = request("afterwards", &[event(99)]);
    let receipts = committer
        .commit(&mut [&mut other], &MODE)
        .await
        .expect("the next commit works");
    assert_eq!(receipts.first().map(|receipt| receipt.committed), Some(1));
    assert_eq!(
        database
            .number("select count(*) from application_logs where message = 'event 99'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_lock_is_waited_for_no_longer_than_the_mode_says() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut locker = lock_table(database).await;
        let mode = CommitMode {
            lock_timeout: Duration::from_millis(20),
            ..MODE
        };
        let mut held = request("held", &[event(1)]);
        let error = committer.commit(&mut [&mut held], &mode).await.expect_err("locked");
        assert_eq!(
            (error.kind(), error.sqlstate()),
            (StoreErrorKind::LockTimeout, Some("55P03"))
        );
        locker.execute("rollback").await.expect("released");
        let receipts = committer
            .commit(&mut [&mut held], &mode)
            .await
            .expect("the same request");
        assert_eq!(receipts[0].committed, 1);
        commits_again(database, &mut committer).await;
    })
    .await;
}

#[tokio::test]
async fn a_twin_in_flight_elsewhere_is_waited_for_and_not_doubled() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut twin = database.bystander().await;
        twin.execute("begin").await.expect("begun");
        sqlx::query("insert into log_writer.requests (digest, batch_id, received) values ($1, 77, 1)")
            .bind(digest("twin").0.as_slice())
            .execute(&mut twin)
            .await
            .expect("noted elsewhere");
        let mode = CommitMode {
            lock_timeout: Duration::from_millis(20),
            ..MODE
        };
        let mut ours = request("twin", &[event(1)]);
        let error = committer
            .commit(&mut [&mut ours], &mode)
            .await
            .expect_err("in flight elsewhere");
        assert_eq!(error.kind(), StoreErrorKind::LockTimeout);

        let mut batch = [&mut ours];
        let (committed, ()) = tokio::join!(committer.commit(&mut batch, &PATIENT), async {
            database.until(LOCKED).await;
            twin.execute("commit").await.expect("committed elsewhere");
        });
        let receipt = committed.expect("known by now")[0];
        assert_eq!((receipt.batch_id, receipt.committed, receipt.duplicates), (77, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn a_terminated_backend_is_unavailable_and_the_next_commit_connects_again() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut locker = lock_table(database).await;
        let mut cut = request("cut", &[event(1)]);
        let mut batch = [&mut cut];
        let (outcome, ()) = tokio::join!(committer.commit(&mut batch, &PATIENT), async {
            database.until(LOCKED).await;
            database
                .execute("select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and application_name like 'log-writer committer%'")
                .await;
        });
        let error = outcome.expect_err("cut");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
        locker.execute("rollback").await.expect("released");
        let receipts = committer.commit(&mut [&mut cut], &MODE).await.expect("the same request again");
        assert_eq!(receipts[0].committed, 1);
        commits_again(database, &mut committer).await;
    })
    .await;
}

#[tokio::test]
async fn a_backend_terminated_between_commits_is_noticed_and_replaced() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        database
            .execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'log-writer committer%'")
            .await;
        database.until(NO_COMMITTER).await;
        let mut lost = request("lost", &[event(1)]);
        let error = committer.commit(&mut [&mut lost], &MODE).await.expect_err("the connection is gone");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
        commits_again(database, &mut committer).await;
    })
    .await;
}

#[tokio::test]
async fn no_transaction_outlives_its_limit() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut locker = lock_table(database).await;
        let mode = CommitMode {
            lock_timeout: Duration::from_secs(60),
            transaction_timeout: Duration::from_millis(100),
            bisect: false,
        };
        let error = committer
            .commit(&mut [&mut request("slow", &[event(1)])], &mode)
            .await
            .expect_err("too slow");
        assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
        // PostgreSQL's own limit ends the session's statement too: nobody holds locks for us.
        database.until(NO_COMMITTER).await;
        locker.execute("rollback").await.expect("released");
        commits_again(database, &mut committer).await;
        assert_eq!(database.number("select count(*) from log_writer.requests").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_commit_leaves_nothing_behind() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut locker = lock_table(database).await;
        let mut dropped = request("dropped", &[event(1)]);
        let mut batch = [&mut dropped];
        tokio::select! {
            outcome = committer.commit(&mut batch, &PATIENT) => panic!("{outcome:?}"),
            () = database.until(LOCKED) => {}
        }
        locker.execute("rollback").await.expect("released");
        commits_again(database, &mut committer).await;
        assert_eq!(database.number("select count(*) from log_writer.requests").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_warning_at_commit_is_a_failure_and_the_repetition_is_exact() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        // What a cancelled wait for a synchronous standby looks like: committed here, with a warning.
        database
            .execute(
                "create function warn() returns trigger language plpgsql as $$ begin raise warning 'not replicated'; return null; end $$;
                 create constraint trigger warn after insert on log_writer.requests
                   deferrable initially deferred for each row execute function warn()",
            )
            .await;
        let mut warned = request("warned", &[event(1), event(2)]);
        let error = committer.commit(&mut [&mut warned], &MODE).await.expect_err("warned");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(error.to_string().contains("not replicated"), "{error}");
        let receipts = committer.commit(&mut [&mut warned], &MODE).await.expect("known");
        assert_eq!((receipts[0].committed, receipts[0].duplicates), (0, 2));
        assert_eq!(database.number("select count(*) from application_logs").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_missing_right_is_a_matter_of_setup() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        database.execute("alter table application_logs rename to hidden").await;
        let error = committer
            .commit(&mut [&mut request("a", &[event(1)])], &MODE)
            .await
            .expect_err("no such table");
        assert_eq!((error.kind(), error.sqlstate()), (StoreErrorKind::Setup, Some("42P01")));
        database.execute("alter table hidden rename to application_logs").await;
        commits_again(database, &mut committer).await;
    })
    .await;
}

#[tokio::test]
async fn a_standby_is_unavailable() {
    with_database(async |database| {
        let mut settings = database.settings.clone();
        // What a primary looks like that was made a standby: transactions are read-only whatever one asks for.
        settings.transaction_timeout = Duration::from_secs(5);
        let mut committer = database.committer("one").await;
        database
            .execute("create function refuse() returns trigger language plpgsql as $$ begin raise exception 'cannot execute INSERT in a read-only transaction' using errcode = '25006'; end $$;
                      create trigger refuse before insert on log_writer.requests execute function refuse()")
            .await;
        let error = committer.commit(&mut [&mut request("a", &[event(1)])], &MODE).await.expect_err("read-only");
        assert_eq!((error.kind(), error.sqlstate()), (StoreErrorKind::Unavailable, Some("25006")));
        database.execute("drop trigger refuse on log_writer.requests").await;
        commits_again(database, &mut committer).await;
    })
    .await;
}

#[tokio::test]
async fn a_small_copy_over_tcp_costs_round_trips_and_not_a_delayed_acknowledgement() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut plain = database.bystander().await;
        let (mut commits, mut inserts) = (Vec::new(), Vec::new());
        // In turn: whatever else the machine does then, it does to both.
        for number in 0..30 {
            let mut small = request(&format!("small {number}"), &[event(number)]);
            let begun = Instant::now();
            committer.commit(&mut [&mut small], &MODE).await.expect("committed");
            commits.push(begun.elapsed());
            let begun = Instant::now();
            // As many round trips and one flush, without COPY.
            for sql in [
                "begin",
                "savepoint a",
                "release savepoint a",
                "select 1",
                "select 2",
                "select 3",
            ] {
                plain.execute(sql).await.expect(sql);
            }
            sqlx::query("insert into log_writer.requests (digest, batch_id, received) values (int8send($1), 0, 0)")
                .bind(i64::from(number))
                .execute(&mut plain)
                .await
                .expect("inserted");
            plain.execute("commit").await.expect("committed");
            inserts.push(begun.elapsed());
        }
        commits.sort();
        inserts.sort();
        let (commit, insert) = (commits[15], inserts[15]);
        // A delayed acknowledgement is 40 ms, some twenty times this many round trips (sqlx 0.9.0).
        assert!(
            commit < insert * 10,
            "a commit with COPY takes {commit:?}, one without {insert:?}"
        );
    })
    .await;
}

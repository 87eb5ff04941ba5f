//! The profile `columnar`: events go straight into the columnstore, and each request is stored once.
//!
//! On the Apache edition each of these tests proves instead that the profile is refused and nothing was changed.

use std::time::Duration;

use log_writer_service::{
    config::Profile,
    event::{LogEvent, StoredEvent, Timestamp},
    timescale::{
        ActionId, ActionOutcome, Actor, ClaimOrder, ClaimRequest, CommitMode, Committer, Receipt, Recommitted,
        StoreErrorKind, annotate, migrate, record, requeue_annotated, set_storage_profile, storage_profile,
    },
};
use log_writer_tests::roles::Roles;
use serde_json::json;
use sqlx::Executor;
use uuid::Uuid;

use crate::timescale_database::{
    DAY, MODE, NOON, STREAM, TestDatabase, event, id, request, settings, time, with_database, with_empty_database,
};

const BISECT: CommitMode = CommitMode { bisect: true, ..MODE };

/// Rows that are not in the columnstore.
const AS_ROWS: &str = "
select coalesce(sum((xpath('/row/c/text()', query_to_xml(
  format('select count(*) as c from only %I.%I', chunk_schema, chunk_name), false, true, '')))[1]::text::bigint), 0)::bigint
from timescaledb_information.chunks where hypertable_name = 'application_logs'";
/// Batches of columns.
const COMPRESSED_BATCHES: &str = "
select coalesce(sum((xpath('/row/c/text()', query_to_xml(
  format('select count(*) as c from %s', s.compress_relid), false, true, '')))[1]::text::bigint), 0)::bigint
from _timescaledb_catalog.compression_settings s where s.compress_relid is not null
  and s.relid in (select format('%I.%I', chunk_schema, chunk_name)::regclass from timescaledb_information.chunks
                  where hypertable_name = 'application_logs')";
const EVENTS: &str = "select count(*) from application_logs";

async fn is_community(database: &TestDatabase) -> bool {
    database.text("select log_writer.timescale_edition()").await == "community"
}

/// A columnar database, or the proof that there can be none.
async fn with_columnar(test: impl AsyncFnOnce(&TestDatabase)) {
    with_database(async |database| {
        let set = set_storage_profile(&database.settings, Profile::Columnar).await;
        if is_community(database).await {
            assert!(set.expect("it can"), "a database is made as `row`");
            return test(database).await;
        }
        let error = set.expect_err("it cannot");
        assert_eq!(error.kind(), StoreErrorKind::Setup, "{error}");
        for part in ["needs the Community edition", "set storage.profile = row"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let profile = storage_profile(&database.pool).await.expect("it says so");
        assert_eq!(profile, Profile::Row);
        assert_eq!(database.number(KEYS).await, 1);
    })
    .await;
}

const KEYS: &str = "select count(*) from pg_constraint where conrelid = 'application_logs'::regclass and contype = 'p'";

async fn commit(committer: &mut Committer, seed: &str, events: &[LogEvent<'_>]) -> Receipt {
    let receipts = committer.commit(&mut [&mut request(seed, events)], &MODE).await;
    receipts.expect("committed").pop().expect("one for each request")
}

fn counts(receipt: &Receipt) -> (u32, u32, u32) {
    (receipt.committed, receipt.duplicates, receipt.dead_lettered)
}

fn many(numbers: std::ops::Range<u32>) -> Vec<LogEvent<'static>> {
    numbers.map(event).collect()
}

/// Everything in the outbox, as delivery reads it back.
async fn delivered(database: &TestDatabase) -> Vec<StoredEvent> {
    let request = ClaimRequest {
        owner: Uuid::new_v4(),
        lease: Duration::from_secs(60),
        events_max: 100_000,
        bytes_max: 100_000_000,
        order: ClaimOrder::OldestFirst,
        left_alone: &[],
    };
    let mut all = Vec::new();
    loop {
        let rows = database.outbox.claim(&request).await.expect("claimed");
        if rows.is_empty() {
            return all;
        }
        let read = database.outbox.read_back(&rows).await.expect("read back");
        for (row, events) in rows.iter().zip(read) {
            assert_eq!(i64::try_from(events.len()), Ok(row.events), "{row:?}");
            all.extend(events);
        }
    }
}

async fn action(database: &TestDatabase) -> ActionId {
    let actor = Actor::of_process();
    record(&database.pool, &actor, "test", &json!({}), 0, ActionOutcome::Running)
        .await
        .expect("recorded")
}

#[tokio::test]
async fn the_profile_changes_only_while_there_are_no_events() {
    with_columnar(async |database| {
        assert_eq!(database.number(KEYS).await, 0);
        let set = async |profile| set_storage_profile(&database.settings, profile).await;
        assert!(!set(Profile::Columnar).await.expect("it is"), "nothing to do");
        let mut committer = database.committer("one").await;
        commit(&mut committer, "a", &[event(1)]).await;
        let error = set(Profile::Row).await.expect_err("there is an event");
        assert_eq!(error.kind(), StoreErrorKind::Setup, "{error}");
        for part in ["of this database is columnar", "storage.profile says row", "set storage.profile = columnar"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        database.execute("truncate application_logs, log_writer.books, log_writer.outbox").await;
        assert!(set(Profile::Row).await.expect("there is none"));
        assert_eq!(database.number(KEYS).await, 1);
        // A committer that was connected before goes on, and the key is kept.
        commit(&mut committer, "b", &many(0..200)).await;
        assert_eq!(counts(&commit(&mut committer, "c", &many(0..201)).await), (1, 200, 0));
        let recorded = "select string_agg(target ->> 'to', ' ' order by id) from log_writer.audit where action = 'set_storage_profile'";
        assert_eq!(database.text(recorded).await, "columnar row");
    })
    .await;
}

#[tokio::test]
async fn a_batch_goes_straight_into_the_columnstore_and_a_small_one_into_rows() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        commit(&mut committer, "large", &many(0..2_500)).await;
        assert_eq!(
            (database.number(AS_ROWS).await, database.number(EVENTS).await),
            (0, 2_500)
        );
        assert_eq!(database.number(COMPRESSED_BATCHES).await, 3, "a thousand rows each");
        commit(&mut committer, "small", &many(3_000..3_099)).await;
        assert_eq!(
            (database.number(AS_ROWS).await, database.number(EVENTS).await),
            (99, 2_599)
        );
        let mut events = delivered(database).await;
        events.sort_by_key(|event| event.timestamp);
        let expected: Vec<Uuid> = (0..2_500).chain(3_000..3_099).map(id).collect();
        assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), expected);
        let texts = events[7].texts.columns();
        assert_eq!(texts.message, "event 7");
        assert_eq!(texts.tags, ["a", "b,\"c\""]);
        assert_eq!(texts.fields, Some(r#"{"n": 1}"#));
        let segments = "select count(*) from timescaledb_information.chunk_columnstore_settings where segmentby <> ''";
        assert_eq!(database.number(segments).await, 0, "as the table has it");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_stored_once_and_an_event_of_another_one_twice() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        for expected in [(300, 0, 0), (0, 300, 0)] {
            assert_eq!(counts(&commit(&mut committer, "a", &many(0..300)).await), expected);
        }
        // As a restart of Vector cuts batches anew.
        assert_eq!(counts(&commit(&mut committer, "b", &many(200..500)).await), (300, 0, 0));
        assert_eq!(database.number(EVENTS).await, 600);
        assert_eq!(delivered(database).await.len(), 600, "each row is settled by itself");
    })
    .await;
}

#[tokio::test]
async fn a_batch_has_each_event_once_and_content_under_a_taken_id_is_kept() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        let mut other = event(5);
        other.message = "something else".into();
        let mut first = request("a", &[many(0..200), vec![event(7), other]].concat());
        let mut second = request("b", &[event(9), event(300)]);
        let receipts = committer
            .commit(&mut [&mut first, &mut second], &MODE)
            .await
            .expect("committed");
        assert_eq!(
            receipts.iter().map(counts).collect::<Vec<_>>(),
            [(201, 1, 0), (1, 1, 0)]
        );
        let events = delivered(database).await;
        assert_eq!(events.len(), 202);
        let renamed = events
            .iter()
            .find(|event| event.texts.columns().message == "something else")
            .expect("kept");
        assert!(
            renamed
                .texts
                .columns()
                .fields
                .is_some_and(|fields| fields.contains(&id(5).to_string())),
            "{renamed:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_an_archive_brings_back_is_stored_once_however_often_it_does() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        commit(&mut committer, "there", &many(0..300)).await;
        let action = action(database).await;
        for expected in [(200, 300, 0), (0, 500, 0)] {
            let mut archived = request("archive", &many(0..500));
            let receipt = committer
                .restore(action, &mut archived, &BISECT)
                .await
                .expect("restored");
            assert_eq!(counts(&receipt), expected);
        }
        assert_eq!(database.number(EVENTS).await, 500);
    })
    .await;
}

#[tokio::test]
async fn a_redriven_letter_whose_event_came_otherwise_stores_it_once() {
    with_columnar(async |database| {
        let ids = crate::timescale_letters::two_broken(database).await;
        let mut committer = database.committer("one").await;
        commit(&mut committer, "mended by its sender", &many(1..200)).await;
        let action = action(database).await;
        for (letter, number, expected) in [(ids[0], 7, (0, 1)), (ids[1], 500, (1, 0))] {
            let mut mended = request("mended", &[event(number)]);
            let done = committer
                .recommit((letter, 1), action, &mut mended, &BISECT)
                .await
                .expect("recommitted");
            let Recommitted::Done(receipt) = done else {
                panic!("{done:?}")
            };
            assert_eq!((receipt.committed, receipt.duplicates), expected);
        }
        assert_eq!(database.number(EVENTS).await, 201);
    })
    .await;
}

#[tokio::test]
async fn an_annotation_of_an_event_that_is_stored_twice_is_one() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        commit(&mut committer, "a", &many(0..200)).await;
        commit(&mut committer, "b", &many(100..300)).await;
        assert_eq!(delivered(database).await.len(), 400);
        let settled = "delete from log_writer.outbox; update log_writer.books set indexed = mirrored";
        database.execute(settled).await;
        let asked = json!({"id": id(150), "timestamp": time(150).to_rfc3339(), "analysis": {"cause": "disk"}});
        let analysis = annotate(&database.pool, &asked, &Actor::of_process())
            .await
            .expect("annotated");
        assert_eq!(analysis, json!({"cause": "disk"}));
        assert_eq!(
            database
                .number("select count(*) from application_logs where ai_analysis is not null")
                .await,
            2
        );
        let target = |_: &str, _: Timestamp| STREAM.into();
        assert_eq!(
            requeue_annotated(&database.pool, "test", target)
                .await
                .expect("requeued"),
            1
        );
        let kind = "select count(*) from log_writer.outbox where kind = 'replace' and events = 1";
        assert_eq!(database.number(kind).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_refused_costs_no_other_row_its_place() {
    with_columnar(async |database| {
        database
            .execute("alter table application_logs add constraint no_poison check (message not like 'poison%')")
            .await;
        let mut events = many(0..1_500);
        events[700].fields = "{not json".into();
        events[900].message = "poison".into();
        let mut committer = database.committer("one").await;
        let mut poisoned = request("a", &events);
        let error = committer
            .commit(&mut [&mut poisoned], &MODE)
            .await
            .expect_err("without bisection");
        assert_eq!((error.kind(), error.row()), (StoreErrorKind::Data, Some(700)));
        let receipts = committer.commit(&mut [&mut poisoned], &BISECT).await.expect("bisected");
        assert_eq!(counts(&receipts[0]), (1_498, 0, 2));
        assert_eq!(
            (database.number(EVENTS).await, delivered(database).await.len()),
            (1_498, 1_498)
        );
        let positions = "select string_agg(position::text, ' ' order by position) from log_writer.dead_letters";
        assert_eq!(database.text(positions).await, "700 900");
    })
    .await;
}

#[tokio::test]
async fn committers_side_by_side_store_everything_in_a_new_chunk() {
    with_columnar(async |database| {
        let names = ["one", "two", "three"];
        let commits = (0_u32..).zip(names).map(async |(number, name)| {
            let mut committer = database.committer(name).await;
            for batch in 0..5 {
                let first = (number * 5 + batch) * 400;
                let receipt = commit(&mut committer, &format!("{name} {batch}"), &many(first..first + 400)).await;
                assert_eq!(receipt.committed, 400);
            }
        });
        futures::future::join_all(commits).await;
        assert_eq!(
            (database.number(EVENTS).await, database.number(AS_ROWS).await),
            (6_000, 0)
        );
        assert_eq!(delivered(database).await.len(), 6_000);
    })
    .await;
}

#[tokio::test]
async fn who_writes_first_into_a_chunk_keeps_nobody_waiting() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        commit(&mut committer, "makes the chunk", &many(0..1)).await;
        let mut slow = database.bystander().await;
        slow.execute(
            "begin; set local timescaledb.enable_direct_compress_insert = on;
             insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
             select gen_random_uuid(), '2026-11-20 12:00', now(), 0, 't', 'INFO', 's', 'm' from generate_series(1, 1000)",
        )
        .await
        .expect("written and not committed");
        let receipt = commit(&mut committer, "meanwhile", &many(100..400)).await;
        assert_eq!((receipt.committed, database.number(AS_ROWS).await), (300, 1));
        slow.execute("rollback").await.expect("taken back");
    })
    .await;
}

#[tokio::test]
async fn counts_are_those_of_the_events_also_of_late_ones() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        for (seed, events, expected) in [("a", many(0..600), 600), ("late", many(100..500), 1_000)] {
            commit(&mut committer, seed, &events).await;
            database
                .execute("call refresh_continuous_aggregate('log_stats_1m', '2026-11-20', '2026-11-21')")
                .await;
            assert_eq!(
                database.number("select sum(events)::bigint from log_stats_1m").await,
                expected,
                "{seed}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn timescaledb_packs_what_overlaps_and_what_stands_as_rows_together_a_day_later() {
    with_columnar(async |database| {
        let mut committer = database.committer("one").await;
        let day_of = |number: u32| {
            let mut old = event(number);
            old.timestamp = Timestamp(NOON - 3 * DAY + i64::from(number) * 1_000);
            old
        };
        for batch in 0..20 {
            // As senders side by side do: all of the same time.
            let events: Vec<_> = (0..100).map(|event| day_of(event * 20 + batch)).collect();
            commit(&mut committer, &format!("columns {batch}"), &events).await;
        }
        commit(&mut committer, "rows", &[day_of(5_000), day_of(5_001)]).await;
        assert_eq!(
            (
                database.number(COMPRESSED_BATCHES).await,
                database.number(AS_ROWS).await
            ),
            (20, 2)
        );
        let job = "select job_id::bigint from timescaledb_information.jobs
            where proc_name = 'policy_compression' and hypertable_name = 'application_logs'";
        let run = format!("call run_job({})", database.number(job).await);
        // First what stands as rows goes in, then what overlaps is merged.
        database.execute(&run).await;
        assert_eq!(database.number(AS_ROWS).await, 0);
        database.execute(&run).await;
        assert_eq!(
            (
                database.number(COMPRESSED_BATCHES).await,
                database.number(AS_ROWS).await
            ),
            (3, 0)
        );
        let statuses = "select string_agg(_timescaledb_functions.chunk_status_text(
              format('%I.%I', chunk_schema, chunk_name)::regclass)::text, ' ')
            from timescaledb_information.chunks where hypertable_name = 'application_logs'";
        assert_eq!(database.text(statuses).await, "{COMPRESSED}");
        assert_eq!(database.number(EVENTS).await, 2_002);
        // What is read back by batch is found, though a batch of columns now has several of ours.
        assert_eq!(delivered(database).await.len(), 2_002);
    })
    .await;
}

#[tokio::test]
async fn a_columnar_table_takes_no_more_than_the_rights_of_the_ingest_role() {
    let roles = Roles::create().await;
    let owner = settings(&roles.owner_url());
    let edition = roles.database.text("select log_writer.timescale_edition()").await;
    let ingest = settings(&roles.ingest_url());
    let error = set_storage_profile(&ingest, Profile::Columnar)
        .await
        .expect_err("not its right");
    assert_eq!(error.sqlstate(), Some("42501"), "{error}");
    if edition == "community" {
        set_storage_profile(&owner, Profile::Columnar).await.expect("its right");
    }
    let mut committer = Committer::connect(&ingest, "one").await.expect("connected");
    commit(&mut committer, "a", &many(0..500)).await;
    let rows = roles.database.number(AS_ROWS).await;
    assert_eq!(rows, if edition == "community" { 0 } else { 500 });
}

#[tokio::test]
async fn a_database_that_was_made_before_profiles_stores_rows() {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        assert_eq!(storage_profile(&database.pool).await.expect("it says so"), Profile::Row);
        assert_eq!(
            database
                .number("select count(*) from log_writer.settings where name = 'storage_profile'")
                .await,
            0
        );
    })
    .await;
}

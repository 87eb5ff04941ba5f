//! Claims, leases, read-back and settling.

use std::time::Duration;

use log_writer_service::event::Timestamp;
use log_writer_service::timescale::{
    Actor, ClaimOrder, ClaimRequest, IndexRefusal, OutboxId, OutboxRow, Requeued, Rest, Settlement, WorkKind, annotate,
    requeue_annotated,
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use uuid::Uuid;

use crate::timescale_database::{MODE, STREAM, TestDatabase, event, id, request, request_to, time, with_database};

pub(crate) const OWNER: Uuid = Uuid::from_u128(1);
pub(crate) const OTHER: Uuid = Uuid::from_u128(2);
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// As the first claim of a process.
const NEWEST: ClaimOrder<'_> = ClaimOrder::NewestFirst { first: "", after: "" };
const STATEMENTS: [(&str, ClaimOrder<'_>); 2] = [
    (
        include_str!("../../log-writer-service/src/timescale/sql/claim_oldest.sql"),
        ClaimOrder::OldestFirst,
    ),
    (
        include_str!("../../log-writer-service/src/timescale/sql/claim_newest.sql"),
        NEWEST,
    ),
];

/// A statement of [`STATEMENTS`] with what it takes: somebody else's claim.
fn bound<'q>(
    sql: &'q str,
    order: ClaimOrder<'q>,
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let query = sqlx::query(sql)
        .bind(OTHER)
        .bind(LEASE)
        .bind(5_000_i64)
        .bind(8_000_000_i64)
        .bind::<&[String]>(&[]);
    match order {
        ClaimOrder::OldestFirst => query,
        ClaimOrder::NewestFirst { first, after } => query.bind(first).bind(after),
    }
}

pub(crate) fn oldest(owner: Uuid) -> ClaimRequest<'static> {
    ClaimRequest {
        owner,
        lease: LEASE,
        events_max: 5_000,
        bytes_max: 8_000_000,
        order: ClaimOrder::OldestFirst,
        left_alone: &[],
    }
}

/// Commits one batch of one event for each of these numbers.
pub(crate) async fn batches(database: &TestDatabase, numbers: std::ops::Range<u32>, target: &str) {
    let mut committer = database.committer(target).await;
    for number in numbers {
        let mut batch = request_to(&format!("{target} {number}"), &[event(number)], Some(target));
        committer.commit(&mut [&mut batch], &MODE).await.expect("committed");
    }
}

pub(crate) async fn claim(database: &TestDatabase, request: ClaimRequest<'_>) -> Vec<OutboxRow> {
    database.outbox.claim(&request).await.expect("claimed")
}

fn batch_ids(rows: &[OutboxRow]) -> Vec<i64> {
    rows.iter().map(|row| row.batch_id).collect()
}

fn claims(rows: &[OutboxRow]) -> Vec<(OutboxId, i32)> {
    rows.iter().map(|row| (row.id, row.attempts)).collect()
}

pub(crate) fn done(row: &OutboxRow) -> Settlement {
    Settlement {
        id: row.id,
        attempts: row.attempts,
        indexed: row.events,
        dead: Vec::new(),
        expired: 0,
        awaited: Vec::new(),
        rest: Rest::Done,
    }
}

fn refusal(number: u32) -> IndexRefusal {
    IndexRefusal {
        id: id(number),
        timestamp: time(number),
        status: 400,
        error_type: "document_parsing_exception".to_owned(),
        reason: "not \0 a number".to_owned(),
    }
}

#[tokio::test]
async fn a_claim_takes_neighbours_of_one_target_within_its_limits() {
    with_database(async |database| {
        batches(database, 0..4, STREAM).await;
        batches(database, 4..6, "logs-app-blue").await;
        let three = ClaimRequest {
            events_max: 3,
            ..oldest(OWNER)
        };
        let first = claim(database, three).await;
        assert_eq!(batch_ids(&first), [1, 2, 3]);
        assert!(
            first
                .iter()
                .all(|row| row.attempts == 1 && row.kind == WorkKind::Fresh && &*row.target == STREAM)
        );
        let newest = ClaimRequest {
            order: NEWEST,
            ..oldest(OTHER)
        };
        assert_eq!(batch_ids(&claim(database, newest).await), [6, 5]);
        assert_eq!(batch_ids(&claim(database, newest).await), [4]);
        assert!(claim(database, newest).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn targets_take_turns_and_each_gives_its_newest_rows() {
    with_database(async |database| {
        batches(database, 0..1, "logs-app-a").await;
        batches(database, 1..3, "logs-app-b").await;
        batches(database, 3..8, "logs-app-c").await;
        let mut taken = Vec::new();
        let mut after = String::new();
        for first in ["", "", "logs-app-c", "logs-app-b", "", ""] {
            let request = ClaimRequest {
                events_max: 1,
                order: ClaimOrder::NewestFirst { first, after: &after },
                ..oldest(OWNER)
            };
            let rows = claim(database, request).await;
            taken.extend(batch_ids(&rows));
            after = rows[0].target.to_string();
        }
        assert_eq!(taken, [1, 3, 8, 2, 7, 6]);
    })
    .await;
}

#[tokio::test]
async fn a_row_larger_than_the_limits_is_claimed_alone() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let events: Vec<_> = (0..10).map(event).collect();
        committer
            .commit(&mut [&mut request("large", &events)], &MODE)
            .await
            .expect("committed");
        batches(database, 20..22, STREAM).await;
        let small = ClaimRequest {
            events_max: 2,
            bytes_max: 1,
            ..oldest(OWNER)
        };
        assert_eq!(batch_ids(&claim(database, small).await), [1]);
        assert_eq!(batch_ids(&claim(database, small).await), [2]);
    })
    .await;
}

#[tokio::test]
async fn paused_targets_are_left_alone() {
    with_database(async |database| {
        batches(database, 0..2, "logs-app-a").await;
        batches(database, 2..4, "logs-app-b").await;
        let paused = ["logs-app-a".to_owned()];
        let rows = claim(
            database,
            ClaimRequest {
                left_alone: &paused,
                ..oldest(OWNER)
            },
        )
        .await;
        assert_eq!(batch_ids(&rows), [3, 4]);
        assert!(
            claim(
                database,
                ClaimRequest {
                    left_alone: &paused,
                    ..oldest(OWNER)
                }
            )
            .await
            .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn claims_at_once_never_share_a_row() {
    with_database(async |database| {
        batches(database, 0..60, STREAM).await;
        let take = |number: u128| {
            // Some of both at once, and newest first alone, as most claims are.
            let order = if number % 8 < 4 && number.is_multiple_of(2) {
                ClaimOrder::OldestFirst
            } else {
                NEWEST
            };
            claim(
                database,
                ClaimRequest {
                    events_max: 5,
                    order,
                    ..oldest(Uuid::from_u128(number))
                },
            )
        };
        let mut seen = Vec::new();
        // Of claims at once all but one may find every row locked.
        for round in 0..12_u128 {
            let (a, b, c, d) = tokio::join!(
                take(round * 4),
                take(round * 4 + 1),
                take(round * 4 + 2),
                take(round * 4 + 3)
            );
            seen.extend([a, b, c, d].concat().iter().map(|row| row.id));
        }
        let claimed = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((seen.len(), claimed), (60, 60));
    })
    .await;
}

#[tokio::test]
async fn a_claim_under_way_locks_its_own_target_alone() {
    with_database(async |database| {
        batches(database, 0..1, "logs-app-a").await;
        batches(database, 1..2, "logs-app-b").await;
        batches(database, 2..3, "logs-app-c").await;
        for (sql, order) in STATEMENTS {
            let mut bystander = database.bystander().await;
            let mut under_way = bystander.begin().await.expect("begun");
            bound(sql, order)
                .fetch_one(&mut *under_way)
                .await
                .expect("claimed, not committed");
            let request = ClaimRequest {
                lease: Duration::ZERO,
                order,
                ..oldest(OWNER)
            };
            assert_eq!(batch_ids(&claim(database, request).await), [2], "{order:?}");
            under_way.rollback().await.expect("rolled back");
        }
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_ends_frees_the_row_and_its_settlement_is_lost() {
    with_database(async |database| {
        batches(database, 0..1, STREAM).await;
        let late = claim(
            database,
            ClaimRequest {
                lease: Duration::ZERO,
                ..oldest(OWNER)
            },
        )
        .await;
        let taken = claim(database, oldest(OTHER)).await;
        assert_eq!((taken[0].id, taken[0].attempts), (late[0].id, 2));
        assert!(
            database
                .outbox
                .renew(OWNER, &claims(&late), LEASE)
                .await
                .expect("asked")
                .is_empty()
        );
        let lost = database
            .outbox
            .settle(OWNER, "worker", &[done(&late[0])])
            .await
            .expect("asked");
        assert_eq!(lost, [late[0].id]);
        assert_eq!(database.books().await.indexed, 0, "nothing was recorded");
        assert!(
            database
                .outbox
                .settle(OTHER, "worker", &[done(&taken[0])])
                .await
                .expect("settled")
                .is_empty()
        );
        assert_eq!(database.books().await.indexed, 1);
    })
    .await;
}

#[tokio::test]
async fn a_claim_of_the_same_owner_from_before_is_another_claim() {
    with_database(async |database| {
        batches(database, 0..1, STREAM).await;
        let before = claim(
            database,
            ClaimRequest {
                lease: Duration::ZERO,
                ..oldest(OWNER)
            },
        )
        .await;
        let now = claim(database, oldest(OWNER)).await;
        for (claimed, held) in [(&before, 0), (&now, 1)] {
            let renewed = database.outbox.renew(OWNER, &claims(claimed), LEASE).await;
            assert_eq!(renewed.expect("asked").len(), held);
        }
        assert_eq!(
            database
                .outbox
                .settle(OWNER, "w", &[done(&before[0])])
                .await
                .expect("asked"),
            [before[0].id]
        );
        assert!(
            database
                .outbox
                .settle(OWNER, "w", &[done(&now[0])])
                .await
                .expect("settled")
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn a_renewed_claim_holds_and_a_released_one_is_free_at_once() {
    with_database(async |database| {
        batches(database, 0..2, STREAM).await;
        let rows = claim(
            database,
            ClaimRequest {
                lease: Duration::ZERO,
                ..oldest(OWNER)
            },
        )
        .await;
        assert_eq!(
            database
                .outbox
                .renew(OWNER, &claims(&rows), LEASE)
                .await
                .expect("renewed")
                .len(),
            2
        );
        assert!(claim(database, oldest(OTHER)).await.is_empty());
        assert_eq!(database.outbox.release(OWNER).await.expect("released"), 2);
        let taken = claim(database, oldest(OTHER)).await;
        assert_eq!(
            taken.iter().map(|row| row.attempts).collect::<Vec<_>>(),
            [2, 2],
            "attempts stay counted"
        );
    })
    .await;
}

/// Ten events, of which two are refused and two are left to be tried again.
async fn settle_in_part(database: &TestDatabase) -> Vec<(Uuid, Timestamp)> {
    let mut committer = database.committer("one").await;
    let events: Vec<_> = (0..10).map(event).collect();
    committer
        .commit(&mut [&mut request("a", &events)], &MODE)
        .await
        .expect("committed");
    let rows = claim(database, oldest(OWNER)).await;
    let open = vec![(id(3), time(3)), (id(7), time(7))];
    let rest = Rest::Retry {
        open: Some(open.clone()),
        after: Duration::ZERO,
        awaits_bulk: false,
    };
    let partial: Vec<Settlement> = rows
        .iter()
        .map(|row| Settlement {
            indexed: 6,
            dead: vec![refusal(5), refusal(6)],
            rest: rest.clone(),
            ..done(row)
        })
        .collect();
    assert!(
        database
            .outbox
            .settle(OWNER, "worker", &partial)
            .await
            .expect("settled")
            .is_empty()
    );
    open
}

#[tokio::test]
async fn what_is_left_after_a_partial_outcome_is_read_back_alone() {
    with_database(async |database| {
        let open = settle_in_part(database).await;
        let books = database.books().await;
        assert_eq!((books.indexed, books.index_dead_lettered, books.expired), (6, 2, 0));
        let again = claim(database, oldest(OWNER)).await;
        assert_eq!(
            (again[0].events, again[0].attempts, again[0].open.as_ref()),
            (2, 2, Some(&open))
        );
        let events = database.outbox.read_back(&again).await.expect("read back").remove(0);
        let mut messages: Vec<String> = events
            .iter()
            .map(|event| event.texts.columns().message.to_owned())
            .collect();
        messages.sort();
        assert_eq!(messages, ["event 3", "event 7"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_left_can_wait_expire_or_be_refused_later() {
    with_database(async |database| {
        let open = settle_in_part(database).await;
        let again = claim(database, oldest(OWNER)).await;
        let rest = Rest::Retry {
            open: None,
            after: Duration::ZERO,
            awaits_bulk: false,
        };
        let nothing = Settlement {
            indexed: 0,
            rest,
            ..done(&again[0])
        };
        assert!(
            database
                .outbox
                .settle(OWNER, "worker", &[nothing])
                .await
                .expect("settled")
                .is_empty()
        );
        let last = claim(database, oldest(OWNER)).await;
        assert_eq!((last[0].events, last[0].open.as_ref()), (2, Some(&open)));
        let finish = Settlement {
            indexed: 0,
            dead: vec![refusal(3)],
            expired: 1,
            ..done(&last[0])
        };
        assert!(
            database
                .outbox
                .settle(OWNER, "worker", &[finish])
                .await
                .expect("settled")
                .is_empty()
        );
        let books = database.books().await;
        assert_eq!((books.indexed, books.index_dead_lettered, books.expired), (6, 3, 1));
        assert_eq!(database.snapshot().await.backlog.rows, 0);
    })
    .await;
}

#[tokio::test]
async fn a_row_put_back_waits_as_long_as_it_was_told() {
    with_database(async |database| {
        batches(database, 0..1, STREAM).await;
        let rows = claim(database, oldest(OWNER)).await;
        let later = Settlement {
            indexed: 0,
            rest: Rest::Retry {
                open: None,
                after: LEASE,
                awaits_bulk: false,
            },
            ..done(&rows[0])
        };
        assert!(
            database
                .outbox
                .settle(OWNER, "worker", &[later])
                .await
                .expect("settled")
                .is_empty()
        );
        assert!(claim(database, oldest(OWNER)).await.is_empty());
        let backlog = database.snapshot().await.backlog;
        assert_eq!((backlog.rows, backlog.events), (1, 1));
        assert!(backlog.bytes > 0 && backlog.oldest.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_refusal_that_repeats_is_one_dead_letter() {
    with_database(async |database| {
        batches(database, 1..2, STREAM).await;
        for attempt in 1..=2 {
            let rows = claim(database, oldest(OWNER)).await;
            assert_eq!(rows[0].attempts, attempt);
            // As a redrive does: the row is there once more, taken from where the refusal put it.
            let rest = if attempt == 1 { Rest::Retry { open: None, after: Duration::ZERO, awaits_bulk: false } } else { Rest::Done };
            let refused = Settlement { indexed: 0, dead: vec![refusal(1)], rest, ..done(&rows[0]) };
            let lost = database.outbox.settle(OWNER, "worker", &[refused]).await.expect("settled");
            assert!(lost.is_empty());
            if attempt == 1 {
                database
                    .execute(
                        "insert into log_writer.outbox (batch_id, target, tenants, first_time, last_time, events, bytes, kind, open_ids, open_times, attempts)
                         select batch_id, target, array[tenant], event_time, event_time, 1, 1, 'redrive', array[event_id], array[event_time], 1 from log_writer.dead_letters;
                         update log_writer.books set index_dead_lettered = index_dead_lettered - 1 where worker = 'worker'",
                    )
                    .await;
            }
        }
        let letters: Vec<(String, String, String, String, i32)> =
            sqlx::query_as("select stage, reason, detail, tenant, attempts from log_writer.dead_letters")
                .fetch_all(&database.pool)
                .await
                .expect("dead letters");
        assert_eq!(
            letters,
            [(
                "index".to_owned(),
                "document_parsing_exception".to_owned(),
                "status 400: not \u{fffd} a number".to_owned(),
                "default".to_owned(),
                2
            )]
        );
    })
    .await;
}

#[tokio::test]
async fn batches_whose_times_overlap_are_read_back_each_for_itself() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        for batch in 0..20 {
            let mut events: Vec<_> = (0..50).map(|number| event(number * 20 + batch)).collect();
            events[0].timestamp.0 -= 3_600_000_000;
            let mut mixed = request(&format!("a{batch}"), &events);
            let mut blue = events;
            for event in &mut blue {
                event.tenant = "blue".into();
            }
            let mut blue = request_to(&format!("b{batch}"), &blue, Some("logs-app-blue"));
            committer
                .commit(&mut [&mut mixed, &mut blue], &MODE)
                .await
                .expect("committed");
        }
        let rows = claim(
            database,
            ClaimRequest {
                events_max: 600,
                ..oldest(OWNER)
            },
        )
        .await;
        assert_eq!(rows.len(), 12);
        let events = database.outbox.read_back(&rows).await.expect("read back");
        for (row, events) in rows.iter().zip(&events) {
            assert_eq!(events.len(), 50);
            assert!(
                events
                    .iter()
                    .all(|event| event.batch_id == row.batch_id && *event.tenant == *row.tenants[0])
            );
        }
    })
    .await;
}

/// The annotation's row goes first; after a rollover in between, the event's own would find nothing in the write index.
#[tokio::test]
async fn a_row_whose_event_was_annotated_before_it_was_ever_claimed_is_looked_up() {
    with_database(async |database| {
        batches(database, 0..2, STREAM).await;
        let asked = json!({"id": id(0), "timestamp": time(0).to_rfc3339(), "analysis": {"cause": "disk"}});
        annotate(&database.pool, &asked, &Actor::of_process())
            .await
            .expect("annotated");
        let target = |_: &str, _: Timestamp| STREAM.into();
        let requeued = requeue_annotated(&database.pool, "test", target).await;
        assert_eq!(requeued.expect("requeued"), 1);
        let rows = claim(database, oldest(OWNER)).await;
        let attempts: Vec<_> = rows.iter().map(|row| (row.kind, row.batch_id, row.attempts)).collect();
        let expected = [
            (WorkKind::Fresh, 1, 2),
            (WorkKind::Replace, 1, 2),
            (WorkKind::Fresh, 2, 1),
        ];
        assert_eq!(attempts, expected);
    })
    .await;
}

/// Fills the outbox itself, by rows of which a claim takes one; they stand for no events, and leave the books alone.
async fn fill_outbox(database: &TestDatabase, rows: i64, target: &str, waits: &str) {
    database
        .execute(&format!(
            "insert into log_writer.outbox (batch_id, target, tenants, first_time, last_time, events, bytes, next_attempt_at)
             select n, '{target}', array['default'], now(), now(), 0, 8000000, now() + interval '{waits}' from generate_series(1, {rows}) n;
             analyze log_writer.outbox"
        ))
        .await;
}

/// What PostgreSQL did for one claim of each of [`STATEMENTS`], by a plan for these values and by one for any.
async fn explained_claims(database: &TestDatabase) -> Vec<Value> {
    let mut connection = database.bystander().await;
    let mut plans = Vec::new();
    for (sql, order) in STATEMENTS {
        let (types, values) = match order {
            ClaimOrder::OldestFirst => ("", ""),
            ClaimOrder::NewestFirst { .. } => (", text, text", ", '', ''"),
        };
        let prepare = format!("prepare claiming(uuid, interval, bigint, bigint, text[]{types}) as {sql}");
        connection.execute(prepare.as_str()).await.expect("prepared");
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let mode = format!("set plan_cache_mode = {mode}");
            connection.execute(mode.as_str()).await.expect("set");
            let claim = format!("claiming('{OTHER}', interval '1 minute', 5000, 8000000, '{{}}'{values})");
            let explained = format!("explain (analyze, buffers, format json) execute {claim}");
            let plan: Value = sqlx::query_scalar(&explained)
                .fetch_one(&mut connection)
                .await
                .expect("a plan");
            plans.push(plan.pointer("/0/Plan").expect("a plan").clone());
        }
        connection.execute("deallocate claiming").await.expect("forgotten");
    }
    plans
}

#[tokio::test]
async fn a_claim_costs_about_the_same_over_a_hundred_thousand_rows() {
    with_database(async |database| {
        let blocks = |plan: &Value| {
            assert_eq!(plan["Actual Rows"].as_f64(), Some(1.0), "{plan}");
            let of = |kind: &str| plan[kind].as_i64().expect("a number");
            of("Shared Hit Blocks") + of("Shared Read Blocks")
        };
        fill_outbox(database, 10_000, STREAM, "0").await;
        let few: Vec<i64> = explained_claims(database).await.iter().map(blocks).collect();
        // Rows that wait at both ends, and a target that is not asked for.
        fill_outbox(database, 50_000, "logs-app-a", "1 hour").await;
        fill_outbox(database, 50_000, STREAM, "0").await;
        let plans = explained_claims(database).await;
        for (plan, few) in plans.iter().zip(few) {
            // The waiting rows are passed over inside the index: 400 pages of it.
            let many = blocks(plan);
            assert!(many < few + 1_000, "{few} → {many}: {plan:#}");
            assert!(!plan.to_string().contains("Seq Scan"), "{plan:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_mirror_that_never_comes_back_can_be_given_up_as_operations_say() {
    let document = include_str!("../../docs/OPERATIONS.md");
    let (_, statement) = document.split_once("```sql\nwith gone as").expect("the statement");
    let (statement, _) = statement.split_once("```").expect("its end");
    with_database(async |database| {
        settle_in_part(database).await;
        let letter = database.number("select min(id) from log_writer.dead_letters").await;
        let requeued = Requeued::requeue(&database.pool, "worker", None, &[letter], 100, 100_000).await;
        assert_eq!(requeued.expect("requeued").requeued, 1);
        let waits = "select coalesce(sum(events), 0)::bigint from log_writer.outbox";
        assert_eq!(database.number(waits).await, 3);
        for _ in 0..2 {
            database.execute(&format!("with gone as{statement}")).await;
            let books = database.books().await;
            assert_eq!(
                (
                    database.number(waits).await,
                    books.unmirrored,
                    books.index_dead_lettered
                ),
                (0, 2, 2)
            );
            assert!(books.balance(0), "{books:?}");
            let letters = "select count(*) from log_writer.dead_letters where redriven_at is null";
            assert_eq!(database.number(letters).await, 2);
        }
    })
    .await;
}

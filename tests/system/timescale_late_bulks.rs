//! Which rows a bulk may still come for, and how what it may bring is looked for.

use std::time::Duration;

use log_writer_service::timescale::{
    ClaimRequest, OutboxRow, Rest, Settlement, claim_late_bulk, note_late_bulk, read_late_bulk,
};

use crate::{
    timescale_database::{STREAM, TestDatabase, with_database},
    timescale_outbox::{LEASE, OTHER, OWNER, batches, claim, done, oldest},
};

/// Whether the one row that the next claim takes awaits a bulk.
async fn awaits_a_bulk(database: &TestDatabase) -> bool {
    let rows = claim(database, oldest(OTHER)).await;
    assert_eq!(rows.len(), 1);
    rows.iter().all(|row| row.awaits_bulk)
}

#[tokio::test]
async fn the_first_claim_of_a_row_awaits_no_bulk_and_one_after_a_lease_that_ended_does() {
    with_database(async |database| {
        batches(database, 0..1, STREAM).await;
        let ended = ClaimRequest {
            lease: Duration::ZERO,
            ..oldest(OWNER)
        };
        assert!(!claim(database, ended).await[0].awaits_bulk);
        assert!(awaits_a_bulk(database).await);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_was_released_awaits_a_bulk() {
    with_database(async |database| {
        batches(database, 0..1, STREAM).await;
        claim(database, oldest(OWNER)).await;
        database.outbox.release(OWNER).await.expect("released");
        assert!(awaits_a_bulk(database).await);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_was_put_back_awaits_a_bulk_from_one_that_was_not_answered_on() {
    with_database(async |database| {
        batches(database, 0..1, STREAM).await;
        for (awaits_bulk, awaited) in [(false, false), (true, false), (false, true), (false, true)] {
            let rows = claim(database, oldest(OWNER)).await;
            assert_eq!(rows[0].awaits_bulk, awaited);
            let again = Settlement {
                indexed: 0,
                rest: Rest::Retry {
                    open: None,
                    after: Duration::ZERO,
                    awaits_bulk,
                },
                ..done(&rows[0])
            };
            let lost = database.outbox.settle(OWNER, "worker", &[again]).await;
            assert!(lost.expect("settled").is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_settled_while_a_bulk_is_awaited_is_kept_and_what_a_lost_claim_would_settle_is_not() {
    with_database(async |database| {
        let pool = database.outbox.pool();
        batches(database, 0..2, STREAM).await;
        let ended = ClaimRequest {
            lease: Duration::ZERO,
            ..oldest(OWNER)
        };
        let lost = claim(database, ended).await;
        let rows = claim(database, oldest(OTHER)).await;
        let settle = async |owner, rows: &[OutboxRow], names: [&str; 2]| {
            let awaited = names.map(|name| vec![name.to_owned()]);
            let settlements = rows
                .iter()
                .zip(awaited)
                .map(|(row, awaited)| Settlement { awaited, ..done(row) });
            let settlements: Vec<Settlement> = settlements.collect();
            database
                .outbox
                .settle(owner, "worker", &settlements)
                .await
                .expect("asked")
        };
        assert_eq!(settle(OWNER, &lost, ["a", "b"]).await.len(), 2);
        assert!(claim_late_bulk(pool, LEASE).await.expect("asked").is_none());
        assert!(settle(OTHER, &rows, ["c", "d"]).await.is_empty());
        let kept = claim_late_bulk(pool, LEASE).await.expect("asked").expect("one");
        assert_eq!(kept.target, STREAM);
        assert_eq!(read_late_bulk(pool, kept.id).await.expect("read"), ["c", "d"]);
        assert!(
            claim_late_bulk(pool, LEASE).await.expect("asked").is_none(),
            "another one has it"
        );
    })
    .await;
}

/// Makes the late bulk due, settled so long ago; claims it.
async fn due(database: &TestDatabase, settled: &str) -> Option<i64> {
    let sql = format!("update log_writer.late_bulks set settled_at = now() - interval '{settled}', look_at = now()");
    database.execute(&sql).await;
    let claimed = claim_late_bulk(database.outbox.pool(), LEASE).await;
    claimed.expect("claimed").map(|bulk| bulk.id)
}

#[tokio::test]
async fn a_late_bulk_is_looked_for_ever_more_seldom_until_an_hour_has_passed() {
    with_database(async |database| {
        let keep = "insert into log_writer.late_bulks (target, document_ids) values ('stream', '{a}')";
        database.execute(keep).await;
        for (settled, pause) in [
            ("1 second", "1 minute"),
            ("20 minutes", "20 minutes"),
            ("59 minutes", "59 minutes"),
        ] {
            let id = due(database, settled).await.expect("still there");
            let before = database.text("select now()::text").await;
            note_late_bulk(database.outbox.pool(), id, LEASE).await.expect("noted");
            // However long that took.
            let next = format!(
                "select (look_at between timestamptz '{before}' + interval '{pause}'
                   and now() + greatest(now() - settled_at, interval '1 minute'))::text from log_writer.late_bulks"
            );
            assert_eq!(database.text(&next).await, "true", "{settled}");
        }
        let id = due(database, "61 minutes").await.expect("still there");
        note_late_bulk(database.outbox.pool(), id, LEASE).await.expect("noted");
        assert_eq!(due(database, "61 minutes").await, None, "that look was the last");
    })
    .await;
}

#[tokio::test]
async fn a_look_that_was_not_noted_is_due_again_when_its_claim_has_ended() {
    with_database(async |database| {
        let keep = "insert into log_writer.late_bulks (target, document_ids) values ('stream', '{a}')";
        database.execute(keep).await;
        let pool = database.outbox.pool();
        let claimed = async |lease| claim_late_bulk(pool, lease).await.expect("claimed").map(|bulk| bulk.id);
        let first = claimed(Duration::ZERO).await;
        assert!(first.is_some());
        assert_eq!(claimed(LEASE).await, first);
        assert_eq!(claimed(LEASE).await, None);
    })
    .await;
}

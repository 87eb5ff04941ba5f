//! One key, one event: duplicates are counted, different content under one id is kept beside it.

use log_writer_service::{
    event::StoredEvent,
    timescale::{ClaimOrder, ClaimRequest, StoreError, StoreErrorKind},
};
use uuid::Uuid;

use crate::timescale_database::{MODE, TestDatabase, derived, event, id, request, with_database};

/// A deadlock, or, where `lock_timeout` is no longer than `deadlock_timeout`, a lock not free in time.
fn is_a_clash(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Conflict | StoreErrorKind::LockTimeout)
}

async fn delivered(database: &TestDatabase) -> Vec<StoredEvent> {
    let mut all = Vec::new();
    let request = ClaimRequest {
        owner: Uuid::new_v4(),
        lease: std::time::Duration::from_secs(60),
        events_max: 10_000,
        bytes_max: 100_000_000,
        order: ClaimOrder::OldestFirst,
        left_alone: &[],
    };
    loop {
        let rows = database.outbox.claim(&request).await.expect("claimed");
        if rows.is_empty() {
            all.sort_by_key(|event: &StoredEvent| (event.timestamp, event.id));
            return all;
        }
        let expected: i64 = rows.iter().map(|row| row.events).sum();
        let events: Vec<StoredEvent> = database
            .outbox
            .read_back(&rows)
            .await
            .expect("read back")
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(i64::try_from(events.len()).expect("few"), expected);
        all.extend(events);
    }
}

#[tokio::test]
async fn an_event_that_is_there_already_is_a_duplicate_and_delivered_once() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("a", &[event(1), event(2)])], &MODE)
            .await
            .expect("committed");
        let mut more = request("b", &[event(2), event(3), event(1)]);
        let mut others = request("c", &[event(4), event(1)]);
        let receipts = committer
            .commit(&mut [&mut more, &mut others], &MODE)
            .await
            .expect("committed");
        let counts: Vec<_> = receipts
            .iter()
            .map(|r| (r.committed, r.duplicates, r.dead_lettered))
            .collect();
        assert_eq!(counts, [(1, 2, 0), (1, 1, 0)]);
        let messages: Vec<String> = delivered(database)
            .await
            .into_iter()
            .map(|event| event.texts.columns().message.to_owned())
            .collect();
        assert_eq!(messages, ["event 1", "event 2", "event 3", "event 4"]);
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_nothing_but_duplicates_makes_no_outbox_row() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("a", &[event(1)])], &MODE)
            .await
            .expect("committed");
        for seed in ["b", "c", "d"] {
            let receipts = committer
                .commit(&mut [&mut request(seed, &[event(1)])], &MODE)
                .await
                .expect("committed");
            assert_eq!((receipts[0].committed, receipts[0].duplicates), (0, 1));
        }
        assert_eq!(database.number("select count(*) from log_writer.outbox").await, 1);
    })
    .await;
}

#[tokio::test]
async fn another_event_with_the_same_id_goes_in_under_its_derived_id() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("a", &[event(1)])], &MODE)
            .await
            .expect("committed");
        let mut other = event(1);
        other.message = "something else".into();
        let receipts = committer
            .commit(&mut [&mut request("b", &[other.clone()])], &MODE)
            .await
            .expect("committed");
        assert_eq!((receipts[0].committed, receipts[0].duplicates), (1, 0));

        let stored = delivered(database).await;
        assert_eq!(
            stored.iter().map(|event| event.id).collect::<Vec<_>>(),
            [id(1), derived(1)]
        );
        let fields: serde_json::Value =
            serde_json::from_str(stored[1].texts.columns().fields.expect("fields")).expect("JSON");
        assert_eq!(fields["_log_writer"]["id_conflict"], id(1).to_string());
        assert_eq!(fields["n"], 1);

        let again = committer
            .commit(&mut [&mut request("c", &[other])], &MODE)
            .await
            .expect("committed");
        assert_eq!(
            (again[0].committed, again[0].duplicates),
            (0, 1),
            "the same conflict again is a duplicate"
        );
    })
    .await;
}

#[tokio::test]
async fn events_of_one_id_within_a_batch_are_told_apart_by_content() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut louder = event(1);
        louder.level = log_writer_service::event::Level::Error;
        let mut first = request("a", &[event(1), event(1), louder.clone()]);
        let mut second = request("b", &[louder, event(2)]);
        let receipts = committer
            .commit(&mut [&mut first, &mut second], &MODE)
            .await
            .expect("committed");
        let counts: Vec<_> = receipts.iter().map(|r| (r.committed, r.duplicates)).collect();
        assert_eq!(counts, [(2, 1), (1, 1)]);
        assert_eq!(delivered(database).await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn content_is_kept_even_if_the_derived_id_is_taken_too() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut squatter = event(1);
        squatter.own_id = Some(derived(1));
        committer
            .commit(&mut [&mut request("a", &[squatter.clone()])], &MODE)
            .await
            .expect("committed");
        squatter.message = "has no id of its own, was given this one".into();
        for (seed, expected) in [("b", (1, 0)), ("c", (0, 1))] {
            let mut derived_is_own = request(seed, &[squatter.clone()]);
            derived_is_own.rows.set_ids(0, derived(1), derived(1));
            let receipts = committer
                .commit(&mut [&mut derived_is_own], &MODE)
                .await
                .expect("committed");
            assert_eq!((receipts[0].committed, receipts[0].duplicates), expected);
        }
        assert_eq!(delivered(database).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_same_id_and_time_of_two_tenants_are_two_events() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut blue = event(1);
        blue.tenant = "blue".into();
        let receipts = committer
            .commit(&mut [&mut request("a", &[event(1), blue])], &MODE)
            .await
            .expect("committed");
        assert_eq!((receipts[0].committed, receipts[0].duplicates), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn two_committers_with_the_same_events_store_each_once() {
    with_database(async |database| {
        let events: Vec<_> = (0..500).map(event).collect();
        let backwards: Vec<_> = events.iter().rev().cloned().collect();
        let (mut one, mut two) = (database.committer("one").await, database.committer("two").await);
        for round in 0..4 {
            database
                .execute("delete from application_logs; delete from log_writer.outbox; delete from log_writer.books")
                .await;
            let (mut a, mut b) = (
                request(&format!("a{round}"), &events),
                request(&format!("b{round}"), &backwards),
            );
            let (mut a, mut b) = ([&mut a], [&mut b]);
            // Each may wait for a row of the other's. Then one of them is told so, and its caller repeats.
            let (first, second) = tokio::join!(one.commit(&mut a, &MODE), two.commit(&mut b, &MODE));
            let first = match first {
                Ok(receipts) => receipts,
                Err(error) => {
                    assert!(is_a_clash(&error), "{error}");
                    one.commit(&mut a, &MODE).await.expect("the second time")
                }
            };
            let second = match second {
                Ok(receipts) => receipts,
                Err(error) => {
                    assert!(is_a_clash(&error), "{error}");
                    two.commit(&mut b, &MODE).await.expect("the second time")
                }
            };
            assert_eq!(first[0].committed + second[0].committed, 500, "{first:?} {second:?}");
        }
    })
    .await;
}

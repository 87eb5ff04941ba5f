//! A commit: all or none, known resends, receipts, dead letters, outbox rows, books.

use std::sync::Arc;

use log_writer_service::timescale::{Committer, DeadLetter, EncodedRows, Receipt, Stage, StoreErrorKind};

use crate::timescale_database::{DAY, MODE, STREAM, digest, event, request, request_to, with_database};

fn receipt(batch_id: i64, received: u32, committed: u32, duplicates: u32, dead_lettered: u32) -> Receipt {
    Receipt {
        batch_id,
        received,
        committed,
        duplicates,
        dead_lettered,
    }
}

fn letter(reason: &str, position: Option<u32>) -> DeadLetter {
    DeadLetter {
        stage: Stage::Decode,
        reason: reason.to_owned(),
        detail: "detail with \0 in it".to_owned(),
        raw: b"raw \0 bytes".to_vec(),
        raw_bytes: 11,
        position,
    }
}

#[tokio::test]
async fn all_requests_of_a_batch_are_committed_under_one_number() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut first = request("first", &[event(1), event(2)]);
        let mut second = request("second", &[event(3)]);
        let receipts = committer
            .commit(&mut [&mut first, &mut second], &MODE)
            .await
            .expect("committed");
        assert_eq!(receipts, [receipt(1, 2, 2, 0, 0), receipt(1, 1, 1, 0, 0)]);
        assert_eq!(
            database
                .number("select count(*) from application_logs where batch_id = 1")
                .await,
            3
        );
        assert_eq!(
            database
                .number("select sum(events)::bigint from log_writer.outbox where batch_id = 1")
                .await,
            3
        );
        assert_eq!(database.number("select count(*) from log_writer.outbox").await, 1);
        assert_eq!(database.text("select min(target) from log_writer.outbox").await, STREAM);
    })
    .await;
}

#[tokio::test]
async fn a_refused_row_leaves_nothing_of_its_batch_without_bisection() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut bad = event(2);
        bad.fields = "{not json".into();
        let mut good = request("good", &[event(0), event(1)]);
        let mut poisoned = request("poisoned", &[bad, event(3)]);
        let error = committer
            .commit(&mut [&mut good, &mut poisoned], &MODE)
            .await
            .expect_err("refused");
        assert_eq!(
            (error.kind(), error.sqlstate(), error.row()),
            (StoreErrorKind::Data, Some("22P02"), Some(2))
        );
        for table in [
            "public.application_logs",
            "log_writer.requests",
            "log_writer.outbox",
            "log_writer.books",
        ] {
            assert_eq!(
                database.number(&format!("select count(*) from {table}")).await,
                0,
                "{table}"
            );
        }
        let receipts = committer
            .commit(&mut [&mut good], &MODE)
            .await
            .expect("the same connection goes on");
        assert_eq!((receipts[0].committed, receipts[0].duplicates), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_resend_is_known_by_its_digest_and_stores_nothing() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut sent = request("sent", &[event(1), event(2)]);
        committer.commit(&mut [&mut sent], &MODE).await.expect("committed");
        let mut new = request("new", &[event(3)]);
        let receipts = committer
            .commit(&mut [&mut new, &mut sent], &MODE)
            .await
            .expect("committed");
        assert_eq!(receipts, [receipt(2, 1, 1, 0, 0), receipt(1, 2, 0, 2, 0)]);
        assert_eq!(database.number("select count(*) from application_logs").await, 3);
    })
    .await;
}

#[tokio::test]
async fn twins_within_a_batch_are_one() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let (mut one, mut twin) = (request("same", &[event(1)]), request("same", &[event(1)]));
        let receipts = committer
            .commit(&mut [&mut one, &mut twin], &MODE)
            .await
            .expect("committed");
        assert_eq!(receipts, [receipt(1, 1, 1, 0, 0), receipt(1, 1, 0, 1, 0)]);
    })
    .await;
}

#[tokio::test]
async fn a_request_without_events_leaves_no_trace() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let (mut empty, mut full) = (request("empty", &[]), request("full", &[event(1)]));
        assert_eq!(
            committer.commit(&mut [&mut empty], &MODE).await.expect("committed"),
            [Receipt::default()]
        );
        let receipts = committer
            .commit(&mut [&mut empty, &mut full], &MODE)
            .await
            .expect("committed");
        assert_eq!(receipts, [Receipt::default(), receipt(1, 1, 1, 0, 0)]);
        assert_eq!(database.number("select count(*) from log_writer.requests").await, 1);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_committed_with_their_request_and_not_kept_twice() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut mixed = request("mixed", &[event(1)]);
        mixed.received = 3;
        mixed.dead_letters = vec![letter("bad_line", Some(1)), letter("metric", Some(2))];
        let mut only_dead = request("only dead", &[]);
        only_dead.received = 1;
        only_dead.dead_letters = vec![letter("bad_line", Some(0))];
        let receipts = committer
            .commit(&mut [&mut mixed, &mut only_dead], &MODE)
            .await
            .expect("committed");
        assert_eq!(receipts, [receipt(1, 3, 1, 0, 2), receipt(1, 1, 0, 0, 1)]);
        assert_eq!(
            database
                .number("select count(*) from log_writer.dead_letters where raw = 'raw \\000 bytes'")
                .await,
            3
        );
        // A digest that was purged: the same letters come again.
        database.execute("delete from log_writer.requests").await;
        committer.commit(&mut [&mut mixed], &MODE).await.expect("committed");
        assert_eq!(database.number("select count(*) from log_writer.dead_letters").await, 3);
        assert_eq!(
            database
                .number("select count(*) from log_writer.dead_letters where attempts = 2")
                .await,
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_whole_request_can_be_kept_as_one_dead_letter() {
    with_database(async |database| {
        let mut settings = database.settings.clone();
        // A limit for single events; a whole request's events stand nowhere else.
        settings.dead_letter_bytes_max = 7;
        let mut committer = Committer::connect(&settings, "one").await.expect("connected");
        let mut poisoned = request("poisoned", &[event(1), event(2)]);
        poisoned.become_letter("panicked", "it panicked");
        let kept = committer.commit(&mut [&mut poisoned], &MODE).await.expect("kept");
        assert_eq!(kept, [receipt(1, 2, 0, 0, 2)]);
        assert_eq!(
            database
                .text("select concat_ws(' ', stage, reason, convert_from(raw, 'UTF8'), raw_bytes) from log_writer.dead_letters")
                .await,
            "store panicked body of poisoned 16"
        );
        assert_eq!(database.number("select events from log_writer.dead_letters").await, 2);
        let again = committer.commit(&mut [&mut poisoned], &MODE).await.expect("known");
        assert_eq!(again, [receipt(1, 2, 0, 2, 0)]);
    })
    .await;
}

#[tokio::test]
async fn each_chunk_and_target_gets_an_outbox_row_that_names_exactly_its_events() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut other_tenant = event(10);
        other_tenant.tenant = Arc::from("blue");
        let mut next_day = event(11);
        next_day.timestamp.0 += DAY;
        let mut rows = request("rows", &[event(1), next_day, event(2)]);
        let mut blue = request_to("blue", &[other_tenant], Some("logs-app-blue"));
        let mut nowhere = request_to("nowhere", &[event(20), event(21)], None);
        committer
            .commit(&mut [&mut rows, &mut blue, &mut nowhere], &MODE)
            .await
            .expect("committed");

        let rows: Vec<(String, i64, bool)> = sqlx::query_as(
            "select target, events, open_ids is null from log_writer.outbox order by target, first_time",
        )
        .fetch_all(&database.pool)
        .await
        .expect("the outbox");
        let expected = [("logs-app-blue", 1, true), (STREAM, 2, true), (STREAM, 1, true)];
        assert_eq!(
            rows,
            expected.map(|(target, events, whole)| (target.to_owned(), events, whole))
        );
        let books = database.books().await;
        assert_eq!((books.mirrored, books.unmirrored), (4, 2));
    })
    .await;
}

#[tokio::test]
async fn outbox_rows_that_could_be_confused_list_their_events() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut here = request("here", &[event(1), event(3)]);
        let mut there = request_to("there", &[event(2)], Some("logs-app-other"));
        committer
            .commit(&mut [&mut here, &mut there], &MODE)
            .await
            .expect("committed");
        assert_eq!(
            database
                .number("select count(*) from log_writer.outbox where cardinality(open_ids) = events")
                .await,
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_request_too_large_for_one_claim_is_split_in_the_outbox() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let events: Vec<_> = (0..12_000).map(event).collect();
        committer
            .commit(&mut [&mut request("large", &events)], &MODE)
            .await
            .expect("committed");
        let largest = database.number("select max(events) from log_writer.outbox").await;
        assert!(largest <= 5_000, "{largest} events in one outbox row");
        assert_eq!(
            database
                .number("select sum(events)::bigint from log_writer.outbox")
                .await,
            12_000
        );
    })
    .await;
}

#[test]
fn encoded_rows_know_their_size_and_their_first_and_last_time() {
    let mut rows = EncodedRows::with_capacity(1024, 2);
    assert!(rows.is_empty() && rows.span().is_none() && rows.bytes() == 0);
    rows.push(&event(5), event(5).timestamp, None);
    rows.push(&event(3), event(3).timestamp, None);
    assert_eq!(
        (rows.len(), rows.span()),
        (2, Some((event(3).timestamp, event(5).timestamp)))
    );
    assert_ne!(digest("a").0, digest("b").0);
}

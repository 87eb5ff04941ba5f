//! Rows that PostgreSQL refuses: each becomes a dead letter, no other row loses its place.

use log_writer_service::{
    event::LogEvent,
    timescale::{CommitMode, StoreErrorKind},
};

use crate::timescale_database::{MODE, event, request, with_database};

const BISECT: CommitMode = CommitMode { bisect: true, ..MODE };

fn poisoned(number: u32) -> LogEvent<'static> {
    LogEvent {
        fields: format!("{{\"n\":{number}, not json").into(),
        ..event(number)
    }
}

/// Deeper than PostgreSQL's parser can go (`max_stack_depth`): refused with 54001.
fn depth_bomb(number: u32) -> LogEvent<'static> {
    let depth = 100_000;
    LogEvent {
        fields: ("[".repeat(depth) + &"]".repeat(depth)).into(),
        ..event(number)
    }
}

#[tokio::test]
async fn poisoned_rows_are_dead_letters_and_all_others_are_stored() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let poison = [0, 7, 8, 9, 120, 199];
        let events: Vec<_> = (0..200)
            .map(|number| {
                if poison.contains(&number) {
                    poisoned(number)
                } else {
                    event(number)
                }
            })
            .collect();
        let (mut first, mut second) = (request("a", &events[..100]), request("b", &events[100..]));
        let receipts = committer
            .commit(&mut [&mut first, &mut second], &BISECT)
            .await
            .expect("committed");
        let counts: Vec<_> = receipts
            .iter()
            .map(|r| (r.committed, r.duplicates, r.dead_lettered))
            .collect();
        assert_eq!(counts, [(96, 0, 4), (98, 0, 2)]);

        let letters: Vec<(String, String, String, i32)> = sqlx::query_as(
            "select stage, reason, convert_from(raw, 'UTF8')::jsonb->>'message', position
             from log_writer.dead_letters order by event_time",
        )
        .fetch_all(&database.pool)
        .await
        .expect("dead letters");
        let expected: Vec<_> = poison
            .iter()
            .map(|number| {
                let position = i32::try_from(number % 100).expect("small");
                (
                    "store".to_owned(),
                    "invalid_value".to_owned(),
                    format!("event {number}"),
                    position,
                )
            })
            .collect();
        assert_eq!(letters, expected);
        assert_eq!(
            database
                .number("select sum(events)::bigint from log_writer.outbox")
                .await,
            194
        );
    })
    .await;
}

#[tokio::test]
async fn the_row_at_fault_is_counted_over_known_requests_too() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut known = request("known", &[event(1), event(2), event(3)]);
        committer.commit(&mut [&mut known], &MODE).await.expect("committed");
        let mut new = request("new", &[event(10), poisoned(11), event(12)]);
        let error = committer
            .commit(&mut [&mut known, &mut new], &MODE)
            .await
            .expect_err("refused");
        assert_eq!((error.kind(), error.row()), (StoreErrorKind::Data, Some(4)));
    })
    .await;
}

#[tokio::test]
async fn a_depth_bomb_is_a_dead_letter() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut bombed = request("a", &[event(1), depth_bomb(2), event(3)]);
        let error = committer.commit(&mut [&mut bombed], &MODE).await.expect_err("refused");
        assert_eq!((error.kind(), error.sqlstate()), (StoreErrorKind::Data, Some("54001")));
        let receipts = committer.commit(&mut [&mut bombed], &BISECT).await.expect("committed");
        assert_eq!((receipts[0].committed, receipts[0].dead_lettered), (2, 1));
        assert_eq!(
            database.text("select reason from log_writer.dead_letters").await,
            "too_large"
        );
    })
    .await;
}

#[tokio::test]
async fn late_rows_may_open_as_many_compressed_ones_as_they_meet() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        // TimescaleDB's own refusal, by its code, wherever its limit stands.
        database
            .execute(
                "create function limited() returns trigger language plpgsql as $$ begin
                   if current_setting('timescaledb.max_tuples_decompressed_per_dml_transaction', true) is distinct from '0' then
                     raise exception 'tuple decompression limit exceeded by operation' using errcode = '53400';
                   end if; return new; end $$;
                 create trigger limited before insert on application_logs for each row execute function limited()",
            )
            .await;
        let mut late = request("late", &[event(1)]);
        let error = committer.commit(&mut [&mut late], &MODE).await.expect_err("limited");
        assert_eq!((error.kind(), error.sqlstate()), (StoreErrorKind::Other, Some("53400")));
        let receipts = committer.commit(&mut [&mut late], &BISECT).await.expect("no limit");
        assert_eq!(receipts[0].committed, 1);
        // The limit is lifted for that transaction alone.
        let mut fresh = request("fresh", &[event(2)]);
        let error = committer.commit(&mut [&mut fresh], &MODE).await.expect_err("limited");
        assert_eq!(error.sqlstate(), Some("53400"));
    })
    .await;
}

#[tokio::test]
async fn poison_beside_duplicates_is_told_from_them() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let before: Vec<_> = [3, 4, 50].map(event).to_vec();
        committer
            .commit(&mut [&mut request("before", &before)], &MODE)
            .await
            .expect("committed");
        // 5: what only the insert refuses, not the staging table, so that no row is named.
        database
            .execute("alter table application_logs add constraint no_five check (message <> 'event 5')")
            .await;
        let events: Vec<_> = (0..60)
            .map(|number| if number == 20 { poisoned(20) } else { event(number) })
            .collect();
        let receipts = committer
            .commit(&mut [&mut request("a", &events)], &BISECT)
            .await
            .expect("committed");
        let receipt = receipts[0];
        assert_eq!(
            (receipt.committed, receipt.duplicates, receipt.dead_lettered),
            (55, 3, 2)
        );
    })
    .await;
}

#[tokio::test]
async fn poison_that_takes_the_first_staging_table_with_it_is_told_from_a_duplicate() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("before", &[event(3)])], &MODE)
            .await
            .expect("committed");
        // With a trigger rows go in one by one, so that the duplicate is met first.
        database
            .execute(
                "create function refuse() returns trigger language plpgsql as $$ begin
                   if new.message = 'event 5' then raise 'refused' using errcode = '23514'; end if; return new; end $$;
                 create trigger refuse before insert on application_logs for each row execute function refuse()",
            )
            .await;
        let receipts = committer
            .commit(&mut [&mut request("a", &[event(3), event(5)])], &BISECT)
            .await
            .expect("committed");
        assert_eq!(
            (receipts[0].committed, receipts[0].duplicates, receipts[0].dead_lettered),
            (0, 1, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn nothing_but_poison_is_found_in_one_go() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let events: Vec<_> = (0..1_000).map(poisoned).collect();
        let receipts = committer
            .commit(&mut [&mut request("a", &events)], &BISECT)
            .await
            .expect("committed");
        assert_eq!((receipts[0].committed, receipts[0].dead_lettered), (0, 1_000));
        assert_eq!(database.number("select count(*) from log_writer.outbox").await, 0);
    })
    .await;
}

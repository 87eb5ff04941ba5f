//! Dead letters that are tried again: requeued, or committed in their own place.

use std::time::Duration;

use log_writer_service::{
    event::Timestamp,
    timescale::{
        ActionId, ActionOutcome, Actor, ClaimOrder, ClaimRequest, CommitMode, DeadLetter, IndexRefusal, LetterFilter,
        OutboxRow, RawLetter, Recommitted, Requeued, Rest, Settlement, Stage, WorkKind, WriteRequest, count_letters,
        purge_letters, record,
    },
};
use uuid::Uuid;

use crate::timescale_database::{MODE, TestDatabase, event, id, request, time, with_database};

const OWNER: Uuid = Uuid::from_u128(1);
const BISECT: CommitMode = CommitMode { bisect: true, ..MODE };

async fn claim(database: &TestDatabase) -> Vec<OutboxRow> {
    let request = ClaimRequest {
        owner: OWNER,
        lease: Duration::from_secs(60),
        events_max: 5_000,
        bytes_max: 8_000_000,
        order: ClaimOrder::OldestFirst,
        left_alone: &[],
    };
    database.outbox.claim(&request).await.expect("claimed")
}

fn refusal(number: u32) -> IndexRefusal {
    IndexRefusal {
        id: id(number),
        timestamp: time(number),
        status: 400,
        error_type: "document_parsing_exception".to_owned(),
        reason: format!("no {number}"),
    }
}

/// Settles the only claimed row: these events are refused, these stay open, all others are indexed.
async fn settle(database: &TestDatabase, row: &OutboxRow, refused: &[u32], open: &[u32]) {
    let left = i64::try_from(refused.len() + open.len()).expect("few");
    let open: Vec<(Uuid, Timestamp)> = open.iter().map(|number| (id(*number), time(*number))).collect();
    let settlement = Settlement {
        id: row.id,
        attempts: row.attempts,
        indexed: row.events - left,
        dead: refused.iter().map(|number| refusal(*number)).collect(),
        expired: 0,
        awaited: Vec::new(),
        rest: if open.is_empty() {
            Rest::Done
        } else {
            Rest::Retry {
                open: Some(open),
                after: Duration::ZERO,
                awaits_bulk: false,
            }
        },
    };
    let lost = database
        .outbox
        .settle(OWNER, "worker", &[settlement])
        .await
        .expect("settled");
    assert!(lost.is_empty());
}

/// Commits ten events of which Elasticsearch refuses the last four.
pub(crate) async fn four_refused(database: &TestDatabase) -> Vec<i64> {
    let mut committer = database.committer("one").await;
    let events: Vec<_> = (0..10).map(event).collect();
    committer
        .commit(&mut [&mut request("a", &events)], &MODE)
        .await
        .expect("committed");
    for row in claim(database).await {
        settle(database, &row, &[6, 7, 8, 9], &[]).await;
    }
    letter_ids(database).await
}

async fn letter_ids(database: &TestDatabase) -> Vec<i64> {
    sqlx::query_scalar("select id from log_writer.dead_letters order by event_time, id")
        .fetch_all(&database.pool)
        .await
        .expect("letters")
}

/// An action of the audit trail under way.
pub(crate) async fn begun(database: &TestDatabase) -> ActionId {
    let target = serde_json::json!({});
    record(
        &database.pool,
        &Actor::of_process(),
        "test",
        &target,
        0,
        ActionOutcome::Running,
    )
    .await
    .expect("recorded")
}

async fn requeue(database: &TestDatabase, ids: &[i64]) -> Requeued {
    Requeued::requeue(
        &database.pool,
        "redriver",
        Some(begun(database).await),
        ids,
        5_000,
        8_000_000,
    )
    .await
    .expect("requeued")
}

#[tokio::test]
async fn a_requeued_letter_is_outstanding_once_and_looked_up_at_its_first_claim() {
    with_database(async |database| {
        let ids = four_refused(database).await;
        assert_eq!(database.books().await.index_dead_lettered, 4);
        // Two at once never put an event in twice.
        let (one, two) = tokio::join!(requeue(database, &ids), requeue(database, &ids));
        assert_eq!((one.requeued + two.requeued, one.gone + two.gone), (4, 0));
        let books = database.books().await;
        assert_eq!((books.index_dead_lettered, books.requeued), (0, 4));
        assert_eq!(
            count_letters(&database.pool).await.expect("counted").sum(),
            0,
            "none waits"
        );
        let rows = claim(database).await;
        assert_eq!(
            (rows.len(), rows[0].kind, rows[0].attempts, rows[0].events),
            (1, WorkKind::Redrive, 2, 4)
        );
        let events = database.outbox.read_back(&rows).await.expect("read back");
        assert_eq!(events[0].len(), 4);
        let purged = purge_letters(&database.pool, None, &LetterFilter::default(), Duration::ZERO, 100)
            .await
            .expect("purged");
        assert_eq!(purged, 0, "what is under way is left alone");
    })
    .await;
}

#[tokio::test]
async fn what_becomes_of_each_redriven_event_becomes_of_its_letter() {
    with_database(async |database| {
        let ids = four_refused(database).await;
        requeue(database, &ids).await;
        let rows = claim(database).await;
        // 6 is refused again, 7 and 8 stay open, 9 is indexed.
        settle(database, &rows[0], &[6], &[7, 8]).await;
        let state = "select string_agg(attempts || case when redriven_at is null then ' waits' else ' under way' end, ', ' order by event_time)
                     from log_writer.dead_letters";
        assert_eq!(database.text(state).await, "2 waits, 1 under way, 1 under way");
        let rows = claim(database).await;
        settle(database, &rows[0], &[8], &[]).await;
        assert_eq!(database.text(state).await, "2 waits, 2 waits");
        let books = database.books().await;
        assert_eq!((books.indexed, books.index_dead_lettered, books.requeued), (8, 2, 4));
        let waiting = letter_ids(database).await;
        assert_eq!(waiting, [ids[0], ids[2]], "the same letters");
        assert_eq!(requeue(database, &waiting).await.requeued, 2);
        let rows = claim(database).await;
        settle(database, &rows[0], &[], &[]).await;
        assert_eq!(letter_ids(database).await, Vec::<i64>::new());
    })
    .await;
}

#[tokio::test]
async fn a_letter_whose_event_is_gone_stays_and_many_events_make_several_outbox_rows() {
    with_database(async |database| {
        let ids = four_refused(database).await;
        let mut transaction = database.pool.begin().await.expect("begun");
        sqlx::query("delete from public.application_logs where id = $1")
            .bind(id(7))
            .execute(&mut *transaction)
            .await
            .expect("deleted");
        transaction.commit().await.expect("committed");
        let action = begun(database).await;
        let done = Requeued::requeue(&database.pool, "redriver", Some(action), &ids, 2, 8_000_000).await.expect("requeued");
        assert_eq!((done.requeued, done.gone), (3, 1));
        assert_eq!(database.number("select count(*) from log_writer.outbox").await, 2);
        assert_eq!(database.books().await.index_dead_lettered, 1);
        // Back, so that the books count the rows of the table.
        let sql = "insert into public.application_logs select '00000000-0000-0000-0000-000000000001', \"timestamp\", ingested_at,
                   batch_id, tenant, level, service, host, message from public.application_logs limit 1";
        database.execute(sql).await;
        let few_bytes = "select count(*) from log_writer.outbox";
        let rows = claim(database).await;
        for row in &rows {
            let refused: Vec<u32> = [6, 8, 9]
                .into_iter()
                .filter(|number| row.open.iter().flatten().any(|(open, _)| *open == id(*number)))
                .collect();
            settle(database, row, &refused, &[]).await;
        }
        let done = Requeued::requeue(&database.pool, "redriver", Some(action), &ids, 5_000, 1).await.expect("requeued");
        assert_eq!((done.requeued, database.number(few_bytes).await), (3, 3), "one large event a row");
    })
    .await;
}

pub(crate) fn broken(raw: &str) -> DeadLetter {
    DeadLetter {
        stage: Stage::Decode,
        reason: "malformed_json".to_owned(),
        detail: "broken \u{0} here".to_owned(),
        raw: raw.as_bytes().to_vec(),
        raw_bytes: u64::try_from(raw.len()).expect("short"),
        position: Some(1),
    }
}

/// A request of one event and two broken ones; the letters' numbers.
pub(crate) async fn two_broken(database: &TestDatabase) -> Vec<i64> {
    let mut committer = database.committer("one").await;
    let mut batch = request("a", &[event(0)]);
    batch.dead_letters = vec![broken("{one"), broken("{two")];
    batch.received = 3;
    committer.commit(&mut [&mut batch], &MODE).await.expect("committed");
    letter_ids(database).await
}

async fn recommit(database: &TestDatabase, letter: &RawLetter, mut request: WriteRequest) -> Recommitted {
    let mut committer = database.committer("redriver").await;
    committer
        .recommit(
            (letter.id, letter.attempts),
            begun(database).await,
            &mut request,
            &BISECT,
        )
        .await
        .expect("recommitted")
}

#[tokio::test]
async fn a_letter_and_what_it_becomes_change_places_in_one_transaction() {
    with_database(async |database| {
        let ids = two_broken(database).await;
        let letter = RawLetter::read(&database.pool, ids[0])
            .await
            .expect("read")
            .expect("there");
        assert_eq!((letter.raw.as_slice(), letter.position), (&b"{one"[..], Some(1)));

        // Refused again: the same letter, counted up.
        let mut again = request("x", &[]);
        (again.received, again.dead_letters) = (1, vec![broken("{one")]);
        assert_eq!(recommit(database, &letter, again.clone()).await, Recommitted::Refused);
        assert_eq!(
            recommit(database, &letter, again).await,
            Recommitted::Gone,
            "it is not as it was read"
        );
        let letter = RawLetter::read(&database.pool, ids[0])
            .await
            .expect("read")
            .expect("there");
        assert_eq!(letter.attempts, 2);
        assert_eq!(database.books().await.dead_lettered, 2);

        // Three events: one new, one stored before, one that PostgreSQL refuses.
        let mut poison = event(2);
        poison.fields = "{not json".into();
        let mut several = request("x", &[event(1), event(0), poison]);
        several.received = 3;
        let Recommitted::Done(receipt) = recommit(database, &letter, several.clone()).await else {
            panic!("not done");
        };
        assert_eq!(
            (receipt.committed, receipt.duplicates, receipt.dead_lettered),
            (1, 1, 1)
        );
        assert_eq!(
            recommit(database, &letter, several).await,
            Recommitted::Gone,
            "once is enough"
        );
        let books = database.books().await;
        assert_eq!(
            (books.received, books.committed, books.duplicates, books.dead_lettered),
            (5, 2, 1, 2)
        );
        let left = "select string_agg(stage || ' ' || attempts, ', ' order by id) from log_writer.dead_letters";
        assert_eq!(database.text(left).await, "decode 1, store 3", "attempts go on");
        assert_eq!(
            database
                .number("select sum(events)::bigint from log_writer.outbox")
                .await,
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_recommit_that_fails_leaves_the_letter_as_it_was() {
    with_database(async |database| {
        let ids = two_broken(database).await;
        let letter = RawLetter::read(&database.pool, ids[0])
            .await
            .expect("read")
            .expect("there");
        database
            .execute("alter table log_writer.outbox rename to outbox_away")
            .await;
        let mut committer = database.committer("redriver").await;
        let mut better = request("x", &[event(1)]);
        let action = begun(database).await;
        let failed = committer
            .recommit((letter.id, letter.attempts), action, &mut better, &BISECT)
            .await;
        database
            .execute("alter table log_writer.outbox_away rename to outbox")
            .await;
        assert!(failed.is_err());
        assert_eq!(letter_ids(database).await, ids);
        assert_eq!(database.number("select count(*) from public.application_logs").await, 1);
        let done = committer
            .recommit((letter.id, letter.attempts), action, &mut better, &BISECT)
            .await;
        assert!(matches!(done, Ok(Recommitted::Done(_))), "{done:?}");
    })
    .await;
}

#[tokio::test]
async fn a_whole_request_that_is_refused_again_is_one_letter() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        let mut refused = request("a", &[event(0), event(1)]);
        refused.become_letter("request_failed_alone", "on purpose");
        committer.commit(&mut [&mut refused], &MODE).await.expect("kept");
        let ids = letter_ids(database).await;
        let letter = RawLetter::read(&database.pool, ids[0])
            .await
            .expect("read")
            .expect("there");
        assert_eq!((letter.raw.as_slice(), letter.position), (&b"body of a"[..], None));
        assert_eq!(letter.digest, request("a", &[]).digest);
        // Both events now, and a third that the first count did not know of.
        let done = recommit(database, &letter, request("a", &[event(0), event(1), event(2)])).await;
        assert!(matches!(done, Recommitted::Done(_)), "{done:?}");
        let books = database.books().await;
        assert_eq!((books.received, books.committed, books.dead_lettered), (3, 3, 0));
    })
    .await;
}

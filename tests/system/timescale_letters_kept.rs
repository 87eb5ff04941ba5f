//! Dead letters that stay for a while: found, counted, deleted by age.

use std::time::Duration;

use log_writer_service::{
    event::Timestamp,
    timescale::{LetterFilter, Requeued, Stage, claim_looks, note_looks, upkeep_letters},
};

use crate::{
    timescale_database::{MODE, TestDatabase, request, with_database},
    timescale_letters::{broken, four_refused, two_broken},
};

#[tokio::test]
async fn retention_deletes_by_age_and_the_quota_only_tells() {
    with_database(async |database| {
        two_broken(database).await;
        let mut settings = database.settings.clone();
        settings.dead_letters_rows_max = 2;
        let done = upkeep_letters(&database.pool, &settings).await.expect("done");
        assert_eq!((done.expired, done.is_over_quota), (0, false));
        settings.dead_letters_rows_max = 1;
        let done = upkeep_letters(&database.pool, &settings).await.expect("done");
        assert_eq!((done.expired, done.is_over_quota), (0, true), "none is dropped");
        database
            .execute("update log_writer.dead_letters set last_at = now() - interval '91 days' where raw = '{one'")
            .await;
        let done = upkeep_letters(&database.pool, &settings).await.expect("done");
        assert_eq!((done.expired, done.is_over_quota), (1, false));
        let left = "select convert_from(raw, 'UTF8') from log_writer.dead_letters";
        assert_eq!(database.text(left).await, "{two");
        assert_eq!(database.books().await.dead_lettered, 2, "the books stay");
    })
    .await;
}

/// Claims letters whose document is to be looked for, three at most; their numbers.
async fn looks(database: &TestDatabase) -> Vec<i64> {
    let claimed = claim_looks(&database.pool, LEASE, 3).await.expect("claimed");
    let mut letters: Vec<i64> = claimed.into_iter().map(|refused| refused.letter).collect();
    letters.sort_unstable();
    letters
}

const LEASE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn each_document_is_looked_for_by_one_ever_more_seldom_until_its_refusal_is_an_hour_ago() {
    with_database(async |database| {
        let mut letters = four_refused(database).await;
        letters.sort_unstable();
        let mut claimed = looks(database).await;
        assert_eq!(claimed.len(), 3);
        claimed.extend(looks(database).await);
        claimed.sort_unstable();
        assert_eq!(claimed, letters, "each is claimed once");
        assert!(looks(database).await.is_empty(), "another looks for them");
        let due = "update log_writer.dead_letters set look_at = now()";
        database.execute(due).await;
        assert_eq!(looks(database).await.len(), 3, "who had claimed them has died");

        for (letter, ago) in letters.iter().zip(["10 seconds", "10 minutes", "59 minutes", "61 minutes"]) {
            let age = format!("update log_writer.dead_letters set last_at = now() - interval '{ago}' where id = {letter}");
            database.execute(&age).await;
        }
        note_looks(&database.pool, &letters, LEASE).await.expect("noted");
        let leases = "select string_agg(coalesce(round(extract(epoch from look_at - now()) / 30)::text, 'never'), ' ' order by id)
            from log_writer.dead_letters";
        assert_eq!(database.text(leases).await, "1 20 118 never");

        let again = Requeued::requeue(&database.pool, "redriver", None, &letters[..3], 10, 1_000_000).await;
        assert_eq!(again.expect("requeued").requeued, 3);
        let of_waiting = format!("{due} where look_at is not null or redriven_at is null");
        database.execute(&of_waiting).await;
        assert_eq!(looks(database).await, letters[3..], "the others are in the outbox again");
    })
    .await;
}

/// Filters, and how many of four refused an hour ago and two broken just now they match.
fn filters(ids: Vec<i64>) -> Vec<(LetterFilter, usize)> {
    let hour_ago = Timestamp::from(chrono::Utc::now() - chrono::Duration::hours(1));
    let none = LetterFilter::default;
    vec![
        (
            LetterFilter {
                since: Some(hour_ago),
                ..none()
            },
            2,
        ),
        (
            LetterFilter {
                until: Some(hour_ago),
                ..none()
            },
            4,
        ),
        (
            LetterFilter {
                stage: Some(Stage::Index),
                ..none()
            },
            4,
        ),
        (
            LetterFilter {
                reason: Some("malformed_json".to_owned()),
                ..none()
            },
            2,
        ),
        (
            LetterFilter {
                tenant: Some("default".to_owned()),
                ..none()
            },
            6,
        ),
        (
            LetterFilter {
                tenant: Some("blue".to_owned()),
                ..none()
            },
            0,
        ),
        (
            LetterFilter {
                ids: Some(ids),
                ..none()
            },
            2,
        ),
        (
            LetterFilter {
                ids: Some(Vec::new()),
                ..none()
            },
            0,
        ),
    ]
}

#[tokio::test]
async fn every_filter_narrows_and_the_newest_come_first() {
    with_database(async |database| {
        let index = four_refused(database).await;
        let decode = two_broken_of(database, "b").await;
        database
            .execute("update log_writer.dead_letters set last_at = now() - interval '2 hours' where stage = 'index'")
            .await;
        let list = async |filter: &LetterFilter| -> Vec<i64> {
            let letters = filter.list(&database.pool, 100).await.expect("listed");
            letters.iter().map(|letter| letter.id).collect()
        };
        let all = list(&LetterFilter::default()).await;
        let newest_first: Vec<i64> = decode.iter().rev().chain(index.iter().rev()).copied().collect();
        assert_eq!(all, newest_first);
        let index_one = index.first().copied().expect("a letter");
        let decode_one = decode.first().copied().expect("a letter");
        for (filter, expected) in filters(vec![index_one, decode_one, -1]) {
            assert_eq!(list(&filter).await.len(), expected, "{filter:?}");
        }
        let summary = LetterFilter::default().summary(&database.pool).await.expect("counted");
        let counts: Vec<_> = summary
            .iter()
            .map(|count| (count.stage.as_str(), count.letters))
            .collect();
        assert_eq!(counts, [("index", 4), ("decode", 2)]);
    })
    .await;
}

async fn two_broken_of(database: &TestDatabase, seed: &str) -> Vec<i64> {
    let mut committer = database.committer(seed).await;
    let mut batch = request(seed, &[]);
    (batch.received, batch.dead_letters) = (2, vec![broken("{one"), broken("{two")]);
    committer.commit(&mut [&mut batch], &MODE).await.expect("committed");
    sqlx::query_scalar("select id from log_writer.dead_letters where stage = 'decode' order by id")
        .fetch_all(&database.pool)
        .await
        .expect("letters")
}

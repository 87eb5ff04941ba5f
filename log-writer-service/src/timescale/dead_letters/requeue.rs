//! Redrive of the stage `index`: the event stands in `application_logs`, so it only goes into the outbox again.
//!
//! | step | a crash after it means |
//! |---|---|
//! | 1 lock the letters, look for their events | nothing |
//! | 2 outbox rows, letters marked, 3 books: from `index_dead_lettered` to outstanding, audit trail | nothing: uncommitted |
//! | 4 COMMIT | any replica delivers; a second redrive passes the marked letters over |
//!
//! What becomes of the event is the settlement's to record: a refusal raises the letter's attempts and unmarks it, anything
//! else removes the letter.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgPool, Row};
use uuid::Uuid;

use crate::{
    event::Timestamp,
    failpoint::failpoint,
    timescale::{
        audit::{self, ActionId, ActionOutcome},
        books::{self, Books},
        error::StoreError,
        limits::{ANSWER_TIMEOUT, on_pool},
    },
};

/// What became of a group of letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Events in the outbox again.
    pub requeued: i64,
    /// Letters whose event is no longer stored; they stay.
    pub gone: i64,
}

impl Requeued {
    /// Puts the events of these letters into the outbox again, in one transaction, as a part of the action if somebody asked
    /// for it.
    ///
    /// Outbox rows hold at most `events_max` events and about `bytes_max` bytes. Letters that are gone, of another stage, or
    /// in the outbox again already count nowhere.
    ///
    /// # Errors
    /// As any query; nothing is then done, or, if COMMIT was under way, all of it may be.
    ///
    /// # Cancel safety
    /// All or nothing.
    pub async fn requeue(
        pool: &PgPool,
        worker: &str,
        action: Option<ActionId>,
        ids: &[i64],
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Self, StoreError> {
        let attempted = "put dead letters into the outbox";
        on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
            let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
            let row = sqlx::query(include_str!("../sql/requeue_letters.sql"))
                .bind(ids)
                .bind(i64::try_from(events_max).unwrap_or(i64::MAX))
                .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
                .fetch_one(&mut *transaction)
                .await
                .map_err(StoreError::during(attempted))?;
            let number = |name: &str| row.try_get::<i64, _>(name).map_err(StoreError::during(attempted));
            let (requeued, locked) = (number("requeued")?, number("locked")?);
            if requeued > 0 {
                let books = Books {
                    index_dead_lettered: -requeued,
                    requeued,
                    ..Books::default()
                };
                books::add_to_books(&mut transaction, worker, &books).await?;
            }
            if let Some(action) = action {
                audit::progress(&mut *transaction, action, requeued, ActionOutcome::Running).await?;
            }
            failpoint!("requeue::before_commit");
            transaction.commit().await.map_err(StoreError::during(attempted))?;
            failpoint!("requeue::after_commit");
            Ok(Self {
                requeued,
                gone: locked - requeued,
            })
        })
        .await
    }

    /// The same for events by id, time and tenant that have a letter though Elasticsearch has them: the next claim finds
    /// them. How many.
    ///
    /// # Errors
    /// As [`Requeued::requeue`].
    pub async fn requeue_indexed(
        pool: &PgPool,
        worker: &str,
        action: Option<ActionId>,
        events: &[(Uuid, Timestamp, &str)],
        events_max: usize,
        bytes_max: usize,
    ) -> Result<i64, StoreError> {
        let ids: Vec<Uuid> = events.iter().map(|(id, ..)| *id).collect();
        let times: Vec<DateTime<Utc>> = events.iter().map(|(_, time, _)| (*time).into()).collect();
        let tenants: Vec<&str> = events.iter().map(|(.., tenant)| *tenant).collect();
        let attempted = "look for dead letters of events";
        let letters: Vec<i64> = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
            sqlx::query_scalar(include_str!("../sql/letters_of_events.sql"))
                .bind(ids)
                .bind(times)
                .bind(tenants)
                .fetch_all(connection)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await?;
        if letters.is_empty() {
            return Ok(0);
        }
        let done = Self::requeue(pool, worker, action, &letters, events_max, bytes_max).await?;
        Ok(done.requeued)
    }
}

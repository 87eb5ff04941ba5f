//! Deleting dead letters: by a person, or because of their age. The books stay: a purged letter was dead lettered.
//!
//! Letters whose event is in the outbox again are left alone: its settlement decides about them.

use std::time::Duration;

use sqlx::{Connection, PgPool, Row};

use super::read::{LetterFilter, MATCHES};
use crate::{
    config::Database,
    failpoint::failpoint,
    timescale::{
        audit::{self, ActionId, ActionOutcome},
        error::StoreError,
        limits::{ANSWER_TIMEOUT, on_pool},
    },
};

/// Letters deleted by one statement.
const GROUP: i64 = 1_000;
/// Six thousand years, in microseconds.
const AGE_MAX: i64 = 6_000 * 365 * 86_400 * 1_000_000;

/// Letters that [`purge_letters`] would delete.
///
/// # Errors
/// As any query.
pub async fn count_purgeable(pool: &PgPool, filter: &LetterFilter, older_than: Duration) -> Result<i64, StoreError> {
    let attempted = "count dead letters";
    let sql = format!(
        "select count(*) from log_writer.dead_letters d
         where {MATCHES} and d.redriven_at is null and d.last_at < now() - $7 * interval '1 microsecond'"
    );
    let query = filter.bind(sqlx::query(&sql)).bind(micros(older_than));
    let row = query.fetch_one(pool).await.map_err(StoreError::during(attempted))?;
    row.try_get(0).map_err(StoreError::during(attempted))
}

/// Bounded, so that PostgreSQL's times reach as far back.
fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).min(AGE_MAX)
}

/// Deletes one group of letters that match, the oldest first; returns how many, 0 if none is left.
///
/// Only such as failed last longer ago than `older_than`. They are counted to the action of the person who does it.
///
/// # Errors
/// As any query; earlier groups stay deleted.
pub async fn purge_letters(
    pool: &PgPool,
    action: Option<ActionId>,
    filter: &LetterFilter,
    older_than: Duration,
    limit: i64,
) -> Result<u64, StoreError> {
    let sql = format!(
        "delete from log_writer.dead_letters where id in (
           select d.id from log_writer.dead_letters d
           where {MATCHES} and d.redriven_at is null and d.last_at < now() - $7 * interval '1 microsecond'
           order by d.last_at limit $8 for update skip locked)"
    );
    let attempted = "purge dead letters";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
        let done = filter
            .bind(sqlx::query(&sql))
            .bind(micros(older_than))
            .bind(limit.min(GROUP))
            .execute(&mut *transaction)
            .await;
        let gone = done.map_err(StoreError::during(attempted))?.rows_affected();
        if let Some(action) = action {
            let count = i64::try_from(gone).unwrap_or(i64::MAX);
            audit::progress(&mut *transaction, action, count, ActionOutcome::Running).await?;
        }
        transaction.commit().await.map_err(StoreError::during(attempted))?;
        Ok(gone)
    })
    .await
}

/// What looking after the dead letters found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LetterUpkeep {
    /// Letters deleted because they were older than `dead_letter_retention`.
    pub expired: u64,
    /// Whether more are kept than `dead_letters_rows_max`; none is dropped for that.
    pub is_over_quota: bool,
}

/// Deletes what is older than the retention and compares what is left with the quota.
///
/// # Errors
/// As any query; what was deleted before stays deleted.
pub async fn upkeep_letters(pool: &PgPool, settings: &Database) -> Result<LetterUpkeep, StoreError> {
    let mut done = LetterUpkeep::default();
    let all = LetterFilter::default();
    loop {
        let gone = purge_letters(pool, None, &all, settings.dead_letter_retention, GROUP).await?;
        done.expired += gone;
        failpoint!("letters::after_retention");
        if gone == 0 {
            break;
        }
    }
    // Counts no further than it must.
    let quota = i64::try_from(settings.dead_letters_rows_max).unwrap_or(i64::MAX);
    let attempted = "count dead letters";
    done.is_over_quota = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query_scalar(
            "select count(*) > $1 from (select from log_writer.dead_letters where redriven_at is null limit $2) d",
        )
        .bind(quota)
        .bind(quota.saturating_add(1))
        .fetch_one(connection)
        .await
        .map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(done)
}

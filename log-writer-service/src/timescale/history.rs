//! Counts and what is too old: on the Apache edition the counts are brought up to date, on both what is older than it is
//! kept is dropped.
//!
//! May be run by several replicas at once and left undone for hours: `log_stats_*` stay right, only slower to read. The
//! work is done by functions of the owner's (`migrations/`), which hold the limits that must not be crossed.

use std::time::Duration;

use sqlx::{Connection, PgPool};

use super::{
    error::{StoreError, StoreErrorKind},
    limits::{ANSWER_TIMEOUT, on_pool},
};
use crate::config::Retention;

/// Rounds of counting at one go, each of ten minutes at most: after a long pause the rest is left to the next call.
const ROUNDS_MAX: usize = 60;
/// Time whose events are counted in one transaction.
const MOST_AT_ONCE: Duration = Duration::from_secs(600);
/// The same where there are too many of them for that.
const LEAST_AT_ONCE: Duration = Duration::from_secs(60);
/// How long PostgreSQL may count at one go.
const COUNT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for the events of the least time: they can't be made fewer.
const LEAST_COUNT_TIMEOUT: Duration = Duration::from_secs(1_800);
/// How much longer than PostgreSQL's own limit we wait: its error says more than ours.
const GRACE: Duration = Duration::from_secs(5);
/// Calls that drop events at one go, of twenty chunks each; more are left to the next one.
const DROPS_MAX: usize = 10;

/// Brings the counts of the Apache edition up to date; nothing to do on Community, whose jobs do it.
///
/// # Errors
/// As any query; what was counted stays counted.
pub async fn refresh_stats(pool: &PgPool) -> Result<(), StoreError> {
    let mut round = (MOST_AT_ONCE, COUNT_TIMEOUT);
    for _ in 0..ROUNDS_MAX {
        let (most, limit) = round;
        match count_events(pool, most, limit).await {
            Ok(true) => {}
            Ok(false) => break,
            // More events than can be counted in that time: of a shorter one, and for as long as they take.
            Err(error) if error.kind() == StoreErrorKind::Timeout && most > LEAST_AT_ONCE => {
                round = (LEAST_AT_ONCE, LEAST_COUNT_TIMEOUT);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Counts the events of so much time, within a limit; whether there are more.
async fn count_events(pool: &PgPool, most: Duration, limit: Duration) -> Result<bool, StoreError> {
    let attempted = "count events for log_stats";
    on_pool(pool, limit + GRACE, attempted, async |connection| {
        let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
        // In place of the pool's.
        sqlx::query("select set_config('statement_timeout', $1, true)")
            .bind(limit.as_millis().to_string())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
        let more = sqlx::query_scalar("select log_writer.refresh_stats($1)")
            .bind(most)
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
        transaction.commit().await.map_err(StoreError::during(attempted))?;
        Ok(more)
    })
    .await
}

/// Drops events and counts that are older than they are kept; how many chunks of events. Those that are to be archived first
/// are left to the archive.
///
/// # Errors
/// As any query.
pub async fn expire(pool: &PgPool, settings: &Retention) -> Result<u64, StoreError> {
    if !settings.enabled {
        return Ok(0);
    }
    let dropped = if settings.archive_path.is_some() {
        0
    } else {
        drop_old_events(pool, settings.events).await?
    };
    let attempted = "drop counts older than retention.stats";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query("select log_writer.drop_old_stats($1, $2)")
            .bind(settings.stats_minutes)
            .bind(settings.stats)
            .execute(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(dropped)
}

async fn drop_old_events(pool: &PgPool, keep: Duration) -> Result<u64, StoreError> {
    let attempted = "drop events older than retention.events";
    let mut dropped = 0;
    for _ in 0..DROPS_MAX {
        let of_call = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
            sqlx::query_scalar::<_, i64>("select log_writer.drop_old_events($1)")
                .bind(keep)
                .fetch_one(connection)
                .await
                .map_err(StoreError::during(attempted))
        });
        match u64::try_from(of_call.await?).unwrap_or_default() {
            0 => break,
            of_call => dropped += of_call,
        }
    }
    Ok(dropped)
}

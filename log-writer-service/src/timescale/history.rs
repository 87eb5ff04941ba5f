//! Counts and what is too old: on the Apache edition the counts are brought up to date, on both what is older than it is
//! kept is dropped.
//!
//! May be run by several replicas at once and left undone for hours: `log_stats_*` stay right, only slower to read. The
//! work is done by functions of the owner's (`migrations/`), which hold the limits that must not be crossed.

use sqlx::PgPool;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};
use crate::config::Retention;

/// Rounds of counting at one go, each of ten minutes: after a long pause the rest is left to the next call.
const ROUNDS_MAX: usize = 60;

/// Brings the counts of the Apache edition up to date; nothing to do on Community, whose jobs do it.
///
/// # Errors
/// As any query; what was counted stays counted.
pub async fn refresh_stats(pool: &PgPool) -> Result<(), StoreError> {
    let attempted = "count events for log_stats";
    for _ in 0..ROUNDS_MAX {
        let more = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
            sqlx::query_scalar::<_, bool>("select log_writer.refresh_stats()")
                .fetch_one(connection)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await?;
        if !more {
            break;
        }
    }
    Ok(())
}

/// Drops events and counts that are older than they are kept; how many chunks of events.
///
/// # Errors
/// As any query.
pub async fn expire(pool: &PgPool, settings: &Retention) -> Result<u64, StoreError> {
    if !settings.enabled {
        return Ok(0);
    }
    let attempted = "drop events older than retention.events";
    let dropped = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query_scalar::<_, i64>("select log_writer.drop_old_events($1)")
            .bind(settings.events)
            .fetch_one(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await?;
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
    Ok(u64::try_from(dropped).unwrap_or_default())
}

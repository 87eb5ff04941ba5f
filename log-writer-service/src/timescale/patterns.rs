//! The texts of `log_patterns`: each kind of message once per tenant.
//!
//! Written beside the commits, never in them: a text that a crash loses comes with the next event of its kind, since
//! every process notes what it has not noted itself.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};
use crate::event::{Level, Timestamp};

/// A kind of message that this process has not noted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPattern {
    /// Whose event it was.
    pub tenant: Arc<str>,
    /// Its hash, as in the column `pattern`.
    pub pattern: i64,
    /// Of the event.
    pub level: Level,
    /// Of the event.
    pub service: String,
    /// The masked message.
    pub template: String,
    /// Time of the event.
    pub first_seen: Timestamp,
}

/// Notes kinds of messages; of one that is there already only an earlier time.
///
/// # Errors
/// As any query; then none is noted.
pub async fn note_patterns(pool: &PgPool, patterns: &[NewPattern]) -> Result<(), StoreError> {
    let attempted = "note kinds of messages";
    // Once each, in the order of the key: two replicas wait for each other instead of deadlocking.
    let mut sorted: BTreeMap<(&str, i64), &NewPattern> = BTreeMap::new();
    for pattern in patterns {
        let first = sorted.entry((&pattern.tenant, pattern.pattern)).or_insert(pattern);
        if pattern.first_seen < first.first_seen {
            *first = pattern;
        }
    }
    let column = |of: fn(&NewPattern) -> &str| sorted.values().map(|pattern| of(pattern)).collect::<Vec<&str>>();
    let hashes: Vec<i64> = sorted.values().map(|pattern| pattern.pattern).collect();
    let times: Vec<DateTime<Utc>> = sorted
        .values()
        .map(|pattern| DateTime::from_timestamp_micros(pattern.first_seen.0).unwrap_or_default())
        .collect();
    let query = sqlx::query(include_str!("sql/note_patterns.sql"))
        .bind(column(|pattern| &pattern.tenant))
        .bind(hashes)
        .bind(column(|pattern| pattern.level.as_str()))
        .bind(column(|pattern| &pattern.service))
        .bind(column(|pattern| &pattern.template))
        .bind(times);
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.execute(connection).await.map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(())
}

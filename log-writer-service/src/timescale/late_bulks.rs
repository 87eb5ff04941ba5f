//! Bulks that may still come: nobody heard their answer, and what was in them is settled by a later claim.
//!
//! Such a bulk is refused document by document (409), but not if the stream has rolled over in between: then it brings second
//! copies. So the documents are looked for a few times, ever more seldom, the last time when they were settled more than an
//! hour ago. A look is claimed for a while before Elasticsearch is asked: replicas share the work, and what one that died had
//! claimed is taken up by another. What is to be looked for is kept by [`super::settle`].

use std::time::Duration;

use sqlx::{FromRow, PgPool};

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};

/// A bulk that is due to be looked for.
#[derive(Debug, Clone, FromRow)]
pub struct LateBulk {
    /// Its number.
    pub id: i64,
    /// Data stream or index.
    pub target: String,
}

/// Claims the one that is longest due, if any is, for `lease`.
///
/// # Errors
/// As any query; nothing is then claimed.
///
/// # Cancel safety
/// A claim that nobody heard of ends with its lease.
pub async fn claim_late_bulk(pool: &PgPool, lease: Duration) -> Result<Option<LateBulk>, StoreError> {
    let attempted = "claim a late bulk to look for";
    let query = sqlx::query_as(include_str!("sql/claim_late_bulk.sql")).bind(lease);
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        let claimed = query.fetch_optional(connection).await;
        claimed.map_err(StoreError::during(attempted))
    })
    .await
}

/// Ids of the documents of one, as Elasticsearch has them; none if it is gone.
///
/// # Errors
/// As any query.
pub async fn read_late_bulk(pool: &PgPool, id: i64) -> Result<Vec<String>, StoreError> {
    let attempted = "read a late bulk";
    let query = sqlx::query_scalar("select document_ids from log_writer.late_bulks where id = $1").bind(id);
    let found: Option<Vec<String>> = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        let found = query.fetch_optional(connection).await;
        found.map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(found.unwrap_or_default())
}

/// Notes that one was looked for; the next look is `lease` from now at the earliest, and the last one ends it.
///
/// # Errors
/// As any query; it is then due again when its claim ends.
pub async fn note_late_bulk(pool: &PgPool, id: i64, lease: Duration) -> Result<(), StoreError> {
    let attempted = "note a look for a late bulk";
    let query = sqlx::query(include_str!("sql/note_late_bulk.sql")).bind(id).bind(lease);
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.execute(connection).await.map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(())
}

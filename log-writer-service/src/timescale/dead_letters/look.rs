//! Letters of the stage `index` whose document may have come after all.
//!
//! A `_bulk` that nobody answered may be applied after its documents were refused to a later one: from then on there is a
//! letter and a document. So each document is looked for a few times, ever more seldom, until its refusal is an hour ago.
//! A look is claimed for a while before Elasticsearch is asked: replicas share the work, and what one that died had
//! claimed is taken up by another. Letters of a refused change are not looked at: their document was there all the time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::timescale::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};

/// The document of a letter, as it would be found.
#[derive(Debug, Clone, FromRow)]
pub struct RefusedDocument {
    /// Number of the letter.
    #[sqlx(rename = "id")]
    pub letter: i64,
    /// Id of the event.
    pub event_id: Uuid,
    /// Time of the event.
    pub event_time: DateTime<Utc>,
    /// Whose it is.
    pub tenant: String,
    /// Data stream or index that refused it.
    pub target: String,
}

/// Claims documents that are due to be looked for, so many at most, for `lease`.
///
/// # Errors
/// As any query; nothing is then claimed.
///
/// # Cancel safety
/// A claim that nobody heard of ends with its lease.
pub async fn claim_looks(pool: &PgPool, lease: Duration, limit: i64) -> Result<Vec<RefusedDocument>, StoreError> {
    let attempted = "claim dead letters to look at";
    let query = sqlx::query_as(include_str!("../sql/claim_looks.sql"))
        .bind(lease)
        .bind(limit);
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.fetch_all(connection).await.map_err(StoreError::during(attempted))
    })
    .await
}

/// Notes that the documents of these letters were looked for; the next look is `lease` from now at the earliest.
///
/// # Errors
/// As any query; they are then due again when their claim ends.
pub async fn note_looks(pool: &PgPool, letters: &[i64], lease: Duration) -> Result<(), StoreError> {
    let attempted = "note a look at dead letters";
    let query = sqlx::query(include_str!("../sql/note_looks.sql"))
        .bind(letters)
        .bind(lease);
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.execute(connection).await.map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(())
}

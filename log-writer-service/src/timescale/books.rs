//! The books: what became of every event, in one row for each worker, added to in the counted transactions themselves.
//!
//! A row of its own for each worker means that no two transactions wait for each other; only sums mean something.

use sqlx::{PgConnection, PgPool, Row};

use super::error::StoreError;

/// Sums over all workers that ever were; events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    /// Events that requests brought: `committed + duplicates + dead_lettered`.
    pub received: i64,
    /// New rows in `application_logs`: `mirrored + unmirrored`.
    pub committed: i64,
    /// Events that were there already.
    pub duplicates: i64,
    /// Events kept as dead letters instead of rows.
    pub dead_lettered: i64,
    /// Rows meant for Elasticsearch: `indexed + index_dead_lettered + expired` + open in the outbox.
    pub mirrored: i64,
    /// Rows not meant for Elasticsearch.
    pub unmirrored: i64,
    /// Rows that Elasticsearch has.
    pub indexed: i64,
    /// Rows that Elasticsearch refused.
    pub index_dead_lettered: i64,
    /// Rows that were gone before they could be indexed.
    pub expired: i64,
    /// Rows put into the outbox again; tells history, stands in no sum.
    pub requeued: i64,
}

/// Reads the sums.
///
/// # Errors
/// As any query.
pub async fn read_books(pool: &PgPool) -> Result<Books, StoreError> {
    let row = sqlx::query(include_str!("sql/read_books.sql"))
        .fetch_one(pool)
        .await
        .map_err(StoreError::during("read the books"))?;
    let sum = |column: &str| {
        row.try_get::<i64, _>(column)
            .map_err(StoreError::during("read the books"))
    };
    Ok(Books {
        received: sum("received")?,
        committed: sum("committed")?,
        duplicates: sum("duplicates")?,
        dead_lettered: sum("dead_lettered")?,
        mirrored: sum("mirrored")?,
        unmirrored: sum("unmirrored")?,
        indexed: sum("indexed")?,
        index_dead_lettered: sum("index_dead_lettered")?,
        expired: sum("expired")?,
        requeued: sum("requeued")?,
    })
}

/// Adds to a worker's own row, within the caller's transaction.
pub(super) async fn add_to_books(connection: &mut PgConnection, worker: &str, more: &Books) -> Result<(), StoreError> {
    sqlx::query(include_str!("sql/add_to_books.sql"))
        .bind(worker)
        .bind(more.received)
        .bind(more.committed)
        .bind(more.duplicates)
        .bind(more.dead_lettered)
        .bind(more.mirrored)
        .bind(more.unmirrored)
        .bind(more.indexed)
        .bind(more.index_dead_lettered)
        .bind(more.expired)
        .bind(more.requeued)
        .execute(connection)
        .await
        .map_err(StoreError::during("add to the books"))?;
    Ok(())
}

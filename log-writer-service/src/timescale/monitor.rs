//! Books, backlog, dead letters and versions, for status and metrics.
//!
//! Each is asked for on its own and for so long and no longer, here and at the server: what one of them waits for must
//! neither hide the others nor pile up sessions.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection, PgPool};

use super::{
    books::{Books, read_books},
    dead_letters::{LetterTotals, read_totals},
    error::StoreError,
    limits::{on_pool, within},
    outbox::{Backlog, read_backlog},
    status::{StoreStatus, read_status},
};

/// Reads what status and metrics show; cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitor {
    pool: PgPool,
}

/// Books and backlog of the same moment, so that they balance whatever goes on meanwhile.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The books.
    pub books: Books,
    /// What waits for Elasticsearch.
    pub backlog: Backlog,
}

impl Monitor {
    /// Works over connections of this pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Reads books and backlog in one snapshot of the database.
    ///
    /// # Errors
    /// As any query; after `limit` at the latest.
    pub async fn snapshot(&self, limit: Duration) -> Result<Snapshot, StoreError> {
        self.look("read books and backlog", limit, async |connection| {
            Ok(Snapshot {
                books: read_books(connection).await?,
                backlog: read_backlog(connection).await?,
            })
        })
        .await
    }

    /// Counts the dead letters that wait for somebody.
    ///
    /// # Errors
    /// As any query; after `limit` at the latest.
    pub async fn letters(&self, limit: Duration) -> Result<LetterTotals, StoreError> {
        self.look("count dead letters", limit, async |connection| {
            read_totals(connection).await
        })
        .await
    }

    /// Asks for versions and edition; works before the first migration too.
    ///
    /// # Errors
    /// As any query; after `limit` at the latest.
    pub async fn status(&self, limit: Duration) -> Result<StoreStatus, StoreError> {
        self.look("read the store's versions", limit, async |connection| {
            read_status(connection).await
        })
        .await
    }

    async fn look<T>(
        &self,
        attempted: &'static str,
        limit: Duration,
        read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let on_connection = on_pool(&self.pool, limit, attempted, async |connection| {
            let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
            let set = format!(
                "set transaction isolation level repeatable read, read only; set local statement_timeout = {}",
                limit.as_millis().max(1)
            );
            transaction
                .execute(set.as_str())
                .await
                .map_err(StoreError::during(attempted))?;
            let found = read(&mut transaction).await?;
            transaction.commit().await.map_err(StoreError::during(attempted))?;
            Ok(found)
        });
        // Time to get a connection included.
        within(limit, attempted, on_connection).await
    }
}

//! Books, backlog and versions at one moment, for status and metrics.

use sqlx::{Connection, Executor, PgPool};

use super::{
    books::{Books, read_books},
    dead_letters::{LetterTotals, read_totals},
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
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
    /// Dead letters that wait for somebody.
    pub letters: LetterTotals,
    /// Versions and edition.
    pub status: StoreStatus,
}

impl Monitor {
    /// Works over connections of this pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Reads everything in one snapshot of the database.
    ///
    /// # Errors
    /// As any query.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let attempted = "read books and backlog";
        on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
            transaction
                .execute("set transaction isolation level repeatable read, read only")
                .await
                .map_err(StoreError::during(attempted))?;
            let books = read_books(&mut transaction).await?;
            let backlog = read_backlog(&mut transaction).await?;
            let letters = read_totals(&mut transaction).await?;
            let status = read_status(&mut transaction).await?;
            transaction.commit().await.map_err(StoreError::during(attempted))?;
            Ok(Snapshot {
                books,
                backlog,
                letters,
                status,
            })
        })
        .await
    }

    /// Asks for versions and edition; works before the first migration too.
    ///
    /// # Errors
    /// As any query.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        on_pool(
            &self.pool,
            ANSWER_TIMEOUT,
            "read the store's status",
            async |connection| read_status(connection).await,
        )
        .await
    }
}

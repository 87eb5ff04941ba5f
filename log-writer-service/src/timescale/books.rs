//! The books: what became of every event, in one row for each worker, added to in the counted transactions themselves.
//!
//! A row of its own for each worker means that no two transactions wait for each other; only sums mean something.

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::error::StoreError;

/// Sums over all workers that ever were; events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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

impl Books {
    /// The accounts by name.
    pub fn accounts(&self) -> [(&'static str, i64); 10] {
        [
            ("received", self.received),
            ("committed", self.committed),
            ("duplicates", self.duplicates),
            ("dead_lettered", self.dead_lettered),
            ("mirrored", self.mirrored),
            ("unmirrored", self.unmirrored),
            ("indexed", self.indexed),
            ("index_dead_lettered", self.index_dead_lettered),
            ("expired", self.expired),
            ("requeued", self.requeued),
        ]
    }

    /// Whether everything received and everything committed is accounted for, with so many events in the outbox.
    pub fn balance(&self, outstanding: i64) -> bool {
        self.received == self.committed + self.duplicates + self.dead_lettered
            && self.committed == self.mirrored + self.unmirrored
            && self.mirrored == self.indexed + self.index_dead_lettered + self.expired + outstanding
    }
}

/// Reads the sums.
///
/// # Errors
/// As any query.
pub(super) async fn read_books(connection: &mut PgConnection) -> Result<Books, StoreError> {
    let row = sqlx::query(include_str!("sql/read_books.sql"))
        .fetch_one(connection)
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

/// Prepares [`statement`]'s statement; once on each connection.
pub(super) const PREPARE: &str = concat!(
    "prepare log_writer_add_to_books as ",
    include_str!("sql/add_to_books.sql")
);

/// What [`add_to_books`] does, as a statement to be sent with others.
pub(super) fn statement(worker: &str, more: &Books) -> String {
    // No quotes to care for, whatever the name.
    let mut statement = "execute log_writer_add_to_books(convert_from(decode('".to_owned();
    for byte in worker.bytes() {
        statement.push_str(&format!("{byte:02x}"));
    }
    statement.push_str("', 'hex'), 'UTF8')");
    for (_, events) in more.accounts() {
        statement.push_str(&format!(", {events}"));
    }
    statement.push(')');
    statement
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

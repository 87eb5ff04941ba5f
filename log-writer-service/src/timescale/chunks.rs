//! Chunks that a batch needs, made before its transaction begins.
//!
//! Whoever makes a chunk keeps all others waiting that need a new one, until the transaction ends. A batch may stay long
//! in the middle of its COPY, or for ever if its process is frozen there; a chunk of its own transaction is made at once.

use std::collections::BTreeMap;

use sqlx::{Executor as _, PgConnection, Row};

use super::{
    error::StoreError,
    write::{CommitMode, Part, begin},
};
use crate::event::Timestamp;

/// Ranges remembered at most; a day each by default.
const REMEMBERED_MAX: usize = 10_000;

/// Ranges of time whose chunk is known to be there, or to have been: what retention dropped meanwhile is made by the COPY.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// From the first microsecond to the one after the last.
    ranges: BTreeMap<i64, i64>,
}

impl Chunks {
    /// Makes what is missing for these rows, each chunk in a transaction of its own.
    ///
    /// # Errors
    /// As a commit that had to make the chunk itself.
    pub(super) async fn make_for(
        &mut self,
        connection: &mut PgConnection,
        parts: &[Part<'_>],
        mode: &CommitMode,
    ) -> Result<(), StoreError> {
        for part in parts {
            if part.rows.span().is_none_or(|span| self.covers_all(span)) {
                continue;
            }
            for row in 0..part.rows.len() {
                if let Some(note) = part.rows.note(row)
                    && !self.covers(note.timestamp)
                {
                    self.make(connection, note.timestamp, mode).await?;
                }
            }
        }
        Ok(())
    }

    fn covers(&self, time: Timestamp) -> bool {
        self.covers_all((time, time))
    }

    /// Whether one range holds both and so all between.
    fn covers_all(&self, (oldest, newest): (Timestamp, Timestamp)) -> bool {
        self.ranges
            .range(..=oldest.0)
            .next_back()
            .is_some_and(|(_, end)| newest.0 < *end)
    }

    async fn make(
        &mut self,
        connection: &mut PgConnection,
        time: Timestamp,
        mode: &CommitMode,
    ) -> Result<(), StoreError> {
        let attempted = "make a chunk ahead";
        // With the limits of the batch: PostgreSQL ends it too, if nobody waits for it any more.
        begin(connection, mode).await?;
        let row = sqlx::query(
            "select (extract(epoch from range_start) * 1000000)::bigint as first,
               (extract(epoch from range_end) * 1000000)::bigint as after
             from log_writer.make_chunk('epoch'::timestamptz + $1 * interval '1 microsecond', $2)",
        )
        .bind(time.0)
        .bind(i64::try_from(mode.lock_timeout.as_millis().max(1)).unwrap_or(i64::MAX))
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::during(attempted))?;
        connection
            .execute("commit")
            .await
            .map_err(StoreError::during(attempted))?;
        let bound = |column| row.try_get(column).map_err(StoreError::during(attempted));
        if self.ranges.len() >= REMEMBERED_MAX {
            self.ranges.clear();
        }
        self.ranges.insert(bound("first")?, bound("after")?);
        Ok(())
    }
}

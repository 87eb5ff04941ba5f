//! Claims: the right to deliver outbox rows for a while.
//!
//! A claim is a lease that is committed before anything is sent. It ends by settling, by release, or by itself; a claim
//! whose time has passed but that nobody else took still counts.

use std::time::Duration;

use uuid::Uuid;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
    outbox::{Outbox, OutboxId, OutboxRow},
};
use crate::failpoint::failpoint;

/// A shutdown waits for a release, and without one the lease ends the claim.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows that a claim looks at, at most: as in the two queries.
pub const CLAIM_ROWS_MAX: i64 = 256;

/// Which rows go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOrder<'a> {
    /// The newest of one target: live events stay current. Targets take turns by their names.
    NewestFirst {
        /// The target whose turn it is, if it has rows; or none by this name.
        first: &'a str,
        /// Else the one after this name.
        after: &'a str,
    },
    /// The oldest of all targets.
    OldestFirst,
}

/// What a worker is ready to take.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest<'a> {
    /// Of the process.
    pub owner: Uuid,
    /// How long the claim lasts without renewal.
    pub lease: Duration,
    /// Events at most; one larger row is taken alone.
    pub events_max: i64,
    /// Bytes at most; one larger row is taken alone.
    pub bytes_max: i64,
    /// Which rows go first.
    pub order: ClaimOrder<'a>,
    /// Targets to leave alone.
    pub left_alone: &'a [String],
}

impl Outbox {
    /// Claims rows of one target, neighbours in the given order, their attempts counted up; none if nothing is free.
    ///
    /// # Errors
    /// As any query; nothing is then claimed.
    ///
    /// # Cancel safety
    /// A claim that nobody heard of ends with its lease.
    pub async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<OutboxRow>, StoreError> {
        let attempted = "claim outbox rows";
        let (sql, turn) = match request.order {
            ClaimOrder::OldestFirst => (include_str!("sql/claim_oldest.sql"), None),
            ClaimOrder::NewestFirst { first, after } => (include_str!("sql/claim_newest.sql"), Some((first, after))),
        };
        let mut query = sqlx::query(sql)
            .bind(request.owner)
            .bind(request.lease)
            .bind(request.events_max)
            .bind(request.bytes_max)
            .bind(request.left_alone);
        if let Some((first, after)) = turn {
            query = query.bind(first).bind(after);
        }
        // One statement, which commits itself.
        failpoint!("claim::before");
        let rows = on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_all(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        if !rows.is_empty() {
            failpoint!("claim::after_commit");
        }
        rows.iter()
            .map(|row| OutboxRow::from_row(row).map_err(StoreError::during(attempted)))
            .collect()
    }

    /// Prolongs claims, each told by its row and that row's attempts; returns those that still hold.
    ///
    /// # Errors
    /// As any query.
    pub async fn renew(
        &self,
        owner: Uuid,
        claims: &[(OutboxId, i32)],
        lease: Duration,
    ) -> Result<Vec<OutboxId>, StoreError> {
        let (ids, attempts): (Vec<i64>, Vec<i32>) = claims.iter().map(|(id, attempts)| (id.0, *attempts)).unzip();
        let attempted = "renew claims";
        let query = sqlx::query_scalar(
            "update log_writer.outbox
             set claimed_until = now() + $3, next_attempt_at = now() + $3
             where id in (
                 select o.id from log_writer.outbox o
                 join unnest($2::bigint[], $4::integer[]) as c (id, attempts) on c.id = o.id and c.attempts = o.attempts
                 where o.claimed_by = $1
                 order by o.id
                 for update of o)
               and claimed_by = $1
             returning id",
        )
        .bind(owner)
        .bind(&ids)
        .bind(lease)
        .bind(&attempts);
        let renewed: Vec<i64> = on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_all(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        failpoint!("claim::after_renewal");
        Ok(renewed.into_iter().map(OutboxId).collect())
    }

    /// Gives back all that the owner holds; attempts stay counted and a bulk is expected, since one may have been sent.
    ///
    /// # Errors
    /// As any query; the claims then end with their lease.
    pub async fn release(&self, owner: Uuid) -> Result<u64, StoreError> {
        let attempted = "release claims";
        failpoint!("claim::before_release");
        let query = sqlx::query(
            "update log_writer.outbox
             set claimed_by = null, claimed_until = null, next_attempt_at = now(), awaits_bulk = true
             where claimed_by = $1",
        )
        .bind(owner);
        let done = on_pool(&self.pool, RELEASE_TIMEOUT, attempted, async |connection| {
            query.execute(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use super::CLAIM_ROWS_MAX;

    #[test]
    fn both_queries_take_as_many_rows() {
        for sql in [
            include_str!("sql/claim_newest.sql"),
            include_str!("sql/claim_oldest.sql"),
        ] {
            assert!(sql.contains(&format!(" limit {CLAIM_ROWS_MAX}\n")));
        }
    }
}

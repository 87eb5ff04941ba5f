//! What must be done now and then: old digests, sessions that hang, books of workers that are gone, the next chunk.
//!
//! Everything here may be run by several replicas at once, at any time, and left undone for hours.

use std::time::Duration;

use sqlx::PgPool;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
    pool::{COMMITTER_NAME, OUR_NAME},
};
use crate::{config::Database, failpoint::failpoint};

/// Digests are purged only after this much uninterrupted readiness: senders had the time to resend what they hold.
const READY_BEFORE_PURGE: Duration = Duration::from_secs(3600);
/// Books that nobody added to for this long are folded into one row; a worker that lives makes a new one.
const BOOKS_IDLE: &str = "1 hour";
/// Digests deleted by one statement.
const PURGE_GROUP: i64 = 10_000;

/// What housekeeping did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// Digests older than their retention that were deleted.
    pub digests_purged: u64,
    /// Rows of the books that were folded.
    pub books_folded: u64,
    /// Whether the next chunk was made ahead.
    pub chunk_made: bool,
}

/// Does what is due; `ready_for` is how long the service has been ready without a break.
///
/// # Errors
/// As any query; what was done before stays done.
pub async fn housekeep(pool: &PgPool, settings: &Database, ready_for: Duration) -> Result<Housekeeping, StoreError> {
    let mut done = Housekeeping::default();
    if ready_for >= READY_BEFORE_PURGE {
        done.digests_purged = purge_digests(pool, settings.digest_retention).await?;
    }
    done.books_folded = fold_books(pool).await?;
    failpoint!("housekeeping::after_books");
    done.chunk_made = make_next_chunk(pool).await?;
    Ok(done)
}

async fn purge_digests(pool: &PgPool, retention: Duration) -> Result<u64, StoreError> {
    let attempted = "purge old digests";
    let mut purged = 0;
    loop {
        let query = sqlx::query(
            "delete from log_writer.requests where digest in (
               select r.digest from log_writer.requests r where r.noted_at < now() - $1
               order by r.noted_at limit $2 for update skip locked)",
        )
        .bind(retention)
        .bind(PURGE_GROUP);
        let gone = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.execute(connection).await.map_err(StoreError::during(attempted))
        })
        .await?
        .rows_affected();
        purged += gone;
        if gone == 0 {
            return Ok(purged);
        }
    }
}

/// Ends sessions that no limit of PostgreSQL's ends: those of committers that wait for their client in a transaction, and
/// all of ours that wait for a standby; how many.
///
/// A process frozen in mid-COPY counts as active, and it holds its locks. Four times the limit leaves room for a large
/// request that goes alone with more time. A COMMIT that waits for a standby does not notice that its client has gone; those
/// of the pool would be one more every half minute, until nobody can connect.
///
/// # Errors
/// As any query.
pub async fn end_hanging_sessions(pool: &PgPool, settings: &Database) -> Result<u64, StoreError> {
    let attempted = "end sessions that hang";
    let query = sqlx::query_scalar(
        "select count(*) filter (where pg_terminate_backend(pid))
         from pg_stat_activity
         where datname = current_database() and usename = current_user
           and (starts_with(application_name, $1) and wait_event_type = 'Client' and xact_start < clock_timestamp() - $2
             or starts_with(application_name, $3) and wait_event = 'SyncRep' and query_start < clock_timestamp() - $2)",
    )
    .bind(COMMITTER_NAME)
    .bind(settings.transaction_timeout * 4)
    .bind(OUR_NAME);
    let ended: i64 = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.fetch_one(connection).await.map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(u64::try_from(ended).unwrap_or_default())
}

/// Replicas come and go under new names; the sums stay the same at every moment.
async fn fold_books(pool: &PgPool) -> Result<u64, StoreError> {
    let attempted = "fold idle books";
    let query = sqlx::query_scalar(include_str!("sql/fold_books.sql")).bind(BOOKS_IDLE);
    let folded: i64 = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.fetch_one(connection).await.map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(u64::try_from(folded).unwrap_or_default())
}

/// Makes the next chunk shortly before it is needed: making one keeps every other maker waiting for a transaction.
async fn make_next_chunk(pool: &PgPool) -> Result<bool, StoreError> {
    let attempted = "make the next chunk ahead";
    let query = sqlx::query_scalar("select log_writer.make_next_chunk()");
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        query.fetch_one(connection).await.map_err(StoreError::during(attempted))
    })
    .await
}

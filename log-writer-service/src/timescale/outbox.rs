//! The outbox: what of each batch is not yet settled in Elasticsearch, and the handle that delivery works it with.
//!
//! A row is claimed for a while ([`Outbox::claim`], [`Outbox::renew`]), read back ([`Outbox::read_back`]) and settled
//! ([`Outbox::settle`]). Nothing is open in PostgreSQL while Elasticsearch is asked: each call is one short transaction.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgRow},
};
use uuid::Uuid;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool, within},
    pool,
};
use crate::event::Timestamp;

/// Number of an outbox row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(pub i64);

/// Why a row stands in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// From a commit; its first attempt needs no look-up.
    Fresh,
    /// Dead letters of the index stage, tried again.
    Redrive,
    /// Events that `verify` missed in Elasticsearch.
    Repair,
    /// Events whose document is to be written over where it stands.
    Replace,
}

impl WorkKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Redrive => "redrive",
            Self::Repair => "repair",
            Self::Replace => "replace",
        }
    }

    fn from_column(kind: &str) -> Self {
        match kind {
            "redrive" => Self::Redrive,
            "repair" => Self::Repair,
            "replace" => Self::Replace,
            _ => Self::Fresh,
        }
    }
}

/// A claimed row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number.
    pub id: OutboxId,
    /// The batch its events were committed in; for other kinds than fresh it says nothing.
    pub batch_id: i64,
    /// Data stream or index, fixed at commit.
    pub target: Arc<str>,
    /// Tenants of its events: with the batch and the times they name exactly these.
    pub tenants: Vec<String>,
    /// Time of its earliest event.
    pub first: Timestamp,
    /// Time of its latest event.
    pub last: Timestamp,
    /// Events not yet settled.
    pub events: i64,
    /// Their size as encoded for PostgreSQL.
    pub bytes: i64,
    /// Why it is here.
    pub kind: WorkKind,
    /// The events not yet settled; `None`: all of the row.
    pub open: Option<Vec<(Uuid, Timestamp)>>,
    /// How often it was claimed, this claim included; one more where documents may be there before the first.
    pub attempts: i32,
    /// Whether another process held it when its lease ended.
    pub taken_over: bool,
    /// Whether a bulk of an earlier claim may still come.
    pub awaits_bulk: bool,
    /// Rows of its target that could be claimed then, itself and those left included; [`super::CLAIM_ROWS_MAX`] at most.
    pub claimable: i64,
}

impl OutboxRow {
    /// Size of the events of all these rows, as encoded for PostgreSQL.
    pub fn bytes_of(rows: &[Self]) -> usize {
        rows.iter().filter_map(|row| usize::try_from(row.bytes).ok()).sum()
    }

    pub(super) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let time = |column: &str| {
            row.try_get::<chrono::DateTime<chrono::Utc>, _>(column)
                .map(Timestamp::from)
        };
        let ids: Option<Vec<Uuid>> = row.try_get("open_ids")?;
        let times: Option<Vec<chrono::DateTime<chrono::Utc>>> = row.try_get("open_times")?;
        let open = ids
            .zip(times)
            .map(|(ids, times)| ids.into_iter().zip(times.into_iter().map(Timestamp::from)).collect());
        Ok(Self {
            id: OutboxId(row.try_get("id")?),
            batch_id: row.try_get("batch_id")?,
            target: Arc::from(row.try_get::<&str, _>("target")?),
            tenants: row.try_get("tenants")?,
            first: time("first_time")?,
            last: time("last_time")?,
            events: row.try_get("events")?,
            bytes: row.try_get("bytes")?,
            kind: WorkKind::from_column(row.try_get("kind")?),
            open,
            attempts: row.try_get("attempts")?,
            taken_over: row.try_get("taken_over")?,
            awaits_bulk: row.try_get("awaits_bulk")?,
            claimable: row.try_get("claimable")?,
        })
    }
}

/// What waits for Elasticsearch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Outbox rows.
    pub rows: i64,
    /// Events not yet settled.
    pub events: i64,
    /// Their size as encoded for PostgreSQL.
    pub bytes: i64,
    /// Time since the oldest row was put in; `None` if there is none.
    pub oldest: Option<Duration>,
}

/// The handle on the outbox; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) pool: PgPool,
    /// Idle connections for COPY, which a pool would take back in the middle of one; as many as read at once.
    readers: Arc<Mutex<Vec<PgConnection>>>,
}

impl Outbox {
    /// Works over connections of this pool.
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            readers: Arc::default(),
        }
    }

    /// Over which connections it works.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How many of these rows are under a claim other than these, each a row and its attempts.
    ///
    /// # Errors
    /// As any query.
    pub async fn claimed_otherwise(&self, claims: &[(OutboxId, i32)]) -> Result<i64, StoreError> {
        let ids: Vec<i64> = claims.iter().map(|(id, _)| id.0).collect();
        let attempts: Vec<i32> = claims.iter().map(|(_, attempts)| *attempts).collect();
        let attempted = "look for other claims";
        on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            sqlx::query_scalar(
                "select count(*) from log_writer.outbox o
                 join unnest($1::bigint[], $2::integer[]) as c (id, attempts) on c.id = o.id and c.attempts <> o.attempts
                 where o.claimed_by is not null",
            )
            .bind(ids)
            .bind(attempts)
            .fetch_one(connection)
            .await
            .map_err(StoreError::during(attempted))
        })
        .await
    }

    /// An idle connection for COPY, or a new one. Dropped and not kept, it is closed.
    pub(super) async fn reader(&self) -> Result<PgConnection, StoreError> {
        let timeout = self.pool.options().get_acquire_timeout();
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut reader) = idle {
            let attempted = "try an idle connection";
            let ping = async { reader.ping().await.map_err(StoreError::during(attempted)) };
            if within(timeout, attempted, ping).await.is_ok() {
                return Ok(reader);
            }
        }
        // Else the bitmap of the batches may be cut with one of every row of their time.
        let options = PgConnectOptions::clone(&self.pool.connect_options());
        let options = Box::new(options.options([("enable_bitmapscan", "off")]));
        pool::connect(&options, timeout).await
    }

    /// Keeps a connection that is ready for the next statement.
    pub(super) fn keep_reader(&self, reader: PgConnection) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
    }
}

/// Sums up what waits; reads the whole outbox.
pub(super) async fn read_backlog(connection: &mut PgConnection) -> Result<Backlog, StoreError> {
    let attempted = "sum up the outbox";
    let row = sqlx::query(
        "select count(*) as rows, coalesce(sum(events), 0)::bigint as events, coalesce(sum(bytes), 0)::bigint as bytes,
           (extract(epoch from now() - min(enqueued_at)) * 1000000)::bigint as oldest_micros
         from log_writer.outbox",
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::during(attempted))?;
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(StoreError::during(attempted));
    let oldest: Option<i64> = row.try_get("oldest_micros").map_err(StoreError::during(attempted))?;
    Ok(Backlog {
        rows: number("rows")?,
        events: number("events")?,
        bytes: number("bytes")?,
        oldest: oldest.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())),
    })
}

//! Settling: the outcome of every event of a claimed outbox row, in one short transaction.
//!
//! | step | a crash after it means |
//! |---|---|
//! | 1 lock the rows whose claim still holds | nothing |
//! | 2 dead letters kept, or removed where a redrive has worked, late bulks kept, 3 finished rows deleted, the rest put back, 4 books | nothing: uncommitted; delivered again, found there |
//! | 5 COMMIT | settled; if its answer is lost, a second settlement finds the claim gone and records nothing |

use std::{borrow::Cow, collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    books::{self, Books},
    dead_letters::without_nul,
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
    outbox::{Outbox, OutboxId},
};
use crate::{event::Timestamp, failpoint::failpoint};

/// The outcome of a claimed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Which row.
    pub id: OutboxId,
    /// As claimed: another number means another claim.
    pub attempts: i32,
    /// Events that Elasticsearch has now, those that were there already included.
    pub indexed: i64,
    /// Events that Elasticsearch refuses for good.
    pub dead: Vec<IndexRefusal>,
    /// Events that are no longer in the hypertable.
    pub expired: i64,
    /// Ids, in Elasticsearch, of documents that are settled by it though a bulk of an earlier claim may still bring them.
    pub awaited: Vec<String>,
    /// What is left.
    pub rest: Rest,
}

/// An event that Elasticsearch refuses for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRefusal {
    /// Id of the event.
    pub id: Uuid,
    /// Time of the event.
    pub timestamp: Timestamp,
    /// Status of the item.
    pub status: u16,
    /// Elasticsearch's error type.
    pub error_type: String,
    /// Elasticsearch's reason, cut by the caller; quotes user data.
    pub reason: String,
}

/// What is left of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Done,
    /// Some events are to be tried again.
    Retry {
        /// These; `None`: all that were open.
        open: Option<Vec<(Uuid, Timestamp)>>,
        /// Not before this has passed.
        after: Duration,
        /// Whether a bulk of this claim may still come, since it was not answered.
        awaits_bulk: bool,
    },
}

impl Outbox {
    /// Records outcomes; returns the rows whose claim was lost, for which nothing was recorded.
    ///
    /// # Errors
    /// As any query; nothing is then recorded, or, if COMMIT was under way, all of it may be.
    ///
    /// # Cancel safety
    /// All or nothing.
    pub async fn settle(
        &self,
        owner: Uuid,
        worker: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<OutboxId>, StoreError> {
        let settled = async |connection: &mut PgConnection| record(connection, owner, worker, settlements).await;
        on_pool(&self.pool, ANSWER_TIMEOUT, "settle outbox rows", settled).await
    }
}

async fn record(
    connection: &mut PgConnection,
    owner: Uuid,
    worker: &str,
    settlements: &[Settlement],
) -> Result<Vec<OutboxId>, StoreError> {
    let attempted = "settle outbox rows";
    let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
    let held = lock_held(&mut transaction, owner, settlements).await?;
    let mut books = Books::default();
    let mut finished = Vec::new();
    let mut lost = Vec::new();
    let (mut awaited, mut awaiting) = (Vec::new(), None);
    for settlement in settlements {
        let Some(held) = held.iter().find(|held| held.id == settlement.id.0) else {
            lost.push(settlement.id);
            continue;
        };
        let left = held.left_after(settlement);
        let dead = count(settlement.dead.len());
        books.indexed += settlement.indexed;
        books.index_dead_lettered += dead;
        // By difference, so that the books balance whatever was counted.
        books.expired += held.events - settlement.indexed - dead - left;
        keep_refusals(&mut transaction, settlement).await?;
        if !settlement.awaited.is_empty() {
            awaited.extend(settlement.awaited.iter().map(String::as_str));
            awaiting = Some(settlement.id);
        }
        forget_redriven(&mut transaction, held, settlement).await?;
        match &settlement.rest {
            Rest::Retry {
                open,
                after,
                awaits_bulk,
            } if left > 0 => {
                let (id, open) = (settlement.id, open.as_deref());
                put_back(&mut transaction, id, left, open, *after, *awaits_bulk).await?;
            }
            Rest::Retry { .. } | Rest::Done => finished.push(settlement.id.0),
        }
    }
    if let Some(row) = awaiting {
        keep_late_bulk(&mut transaction, row, &awaited).await?;
    }
    if !finished.is_empty() {
        sqlx::query("delete from log_writer.outbox where id = any($1)")
            .bind(&finished)
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
    }
    if books != Books::default() {
        books::add_to_books(&mut transaction, worker, &books).await?;
    }
    failpoint!("settle::before_commit");
    transaction.commit().await.map_err(StoreError::during(attempted))?;
    failpoint!("settle::after_commit");
    Ok(lost)
}

struct Held {
    id: i64,
    events: i64,
    /// Events that dead letters may stand for, and whose they are; empty but for the kinds `redrive` and `replace`.
    redriven: Vec<(Uuid, Timestamp)>,
    tenant: String,
}

impl Held {
    fn left_after(&self, settlement: &Settlement) -> i64 {
        let settled = settlement.indexed + count(settlement.dead.len()) + settlement.expired;
        let left = match &settlement.rest {
            Rest::Done => 0,
            Rest::Retry { open: Some(open), .. } => count(open.len()),
            Rest::Retry { open: None, .. } => self.events - settled,
        };
        if left + settled != self.events {
            tracing::error!(
                outbox.id = self.id,
                events = self.events,
                settled,
                left,
                "a settlement does not account for all events of its outbox row; the difference is booked as expired"
            );
        }
        left
    }
}

/// Locks, in the order of their numbers, the rows that are still claimed as the settlements say.
async fn lock_held(
    connection: &mut PgConnection,
    owner: Uuid,
    settlements: &[Settlement],
) -> Result<Vec<Held>, StoreError> {
    let attempted = "lock claimed outbox rows";
    let ids: Vec<i64> = settlements.iter().map(|settlement| settlement.id.0).collect();
    let attempts: Vec<i32> = settlements.iter().map(|settlement| settlement.attempts).collect();
    sqlx::query(
        "select o.id, o.events, o.tenants[1] as tenant,
           case when o.kind in ('redrive', 'replace') then o.open_ids else '{}' end as ids,
           case when o.kind in ('redrive', 'replace') then o.open_times else '{}' end as times
         from log_writer.outbox o
         join unnest($2::bigint[], $3::integer[]) as s (id, attempts) on s.id = o.id and s.attempts = o.attempts
         where o.claimed_by = $1
         order by o.id
         for update of o",
    )
    .bind(owner)
    .bind(&ids)
    .bind(&attempts)
    .fetch_all(connection)
    .await
    .map_err(StoreError::during(attempted))?
    .iter()
    .map(|row| held(row).map_err(StoreError::during(attempted)))
    .collect()
}

fn held(row: &PgRow) -> Result<Held, sqlx::Error> {
    let ids: Vec<Uuid> = row.try_get("ids")?;
    let times: Vec<DateTime<Utc>> = row.try_get("times")?;
    Ok(Held {
        id: row.try_get("id")?,
        events: row.try_get("events")?,
        redriven: ids.into_iter().zip(times.into_iter().map(Timestamp::from)).collect(),
        tenant: row.try_get("tenant")?,
    })
}

/// Removes the letters of redriven events that are settled and were not refused again.
async fn forget_redriven(
    connection: &mut PgConnection,
    held: &Held,
    settlement: &Settlement,
) -> Result<(), StoreError> {
    let mut left: HashSet<(Uuid, Timestamp)> = settlement.dead.iter().map(|dead| (dead.id, dead.timestamp)).collect();
    match &settlement.rest {
        Rest::Done => {}
        Rest::Retry { open: Some(open), .. } => left.extend(open),
        // All of the row is still open.
        Rest::Retry { open: None, .. } => return Ok(()),
    }
    let settled: Vec<_> = held.redriven.iter().filter(|event| !left.contains(event)).collect();
    if settled.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = settled.iter().map(|(id, _)| *id).collect();
    let times: Vec<DateTime<Utc>> = settled.iter().map(|(_, time)| (*time).into()).collect();
    sqlx::query(include_str!("sql/forget_redriven_letters.sql"))
        .bind(&ids)
        .bind(&times)
        .bind(&held.tenant)
        .execute(connection)
        .await
        .map_err(StoreError::during("remove redriven dead letters"))?;
    Ok(())
}

async fn keep_refusals(connection: &mut PgConnection, settlement: &Settlement) -> Result<(), StoreError> {
    for group in settlement.dead.chunks(500) {
        let ids: Vec<Uuid> = group.iter().map(|dead| dead.id).collect();
        let times: Vec<DateTime<Utc>> = group.iter().map(|dead| dead.timestamp.into()).collect();
        let types: Vec<Cow<'_, str>> = group.iter().map(|dead| without_nul(&dead.error_type)).collect();
        let details: Vec<String> = group
            .iter()
            .map(|dead| without_nul(&format!("status {}: {}", dead.status, dead.reason)).into_owned())
            .collect();
        sqlx::query(include_str!("sql/keep_index_refusals.sql"))
            .bind(settlement.id.0)
            .bind(&ids)
            .bind(&times)
            .bind(&types)
            .bind(&details)
            .execute(&mut *connection)
            .await
            .map_err(StoreError::during("keep refusals of Elasticsearch"))?;
    }
    Ok(())
}

/// Keeps what has to be looked for again in the target of a row that is still there; a claim has one target.
async fn keep_late_bulk(connection: &mut PgConnection, row: OutboxId, awaited: &[&str]) -> Result<(), StoreError> {
    sqlx::query(
        "insert into log_writer.late_bulks (target, document_ids)
         select o.target, $2 from log_writer.outbox o where o.id = $1",
    )
    .bind(row.0)
    .bind(awaited)
    .execute(connection)
    .await
    .map_err(StoreError::during("keep a late bulk"))?;
    Ok(())
}

async fn put_back(
    connection: &mut PgConnection,
    id: OutboxId,
    left: i64,
    open: Option<&[(Uuid, Timestamp)]>,
    after: Duration,
    awaits_bulk: bool,
) -> Result<(), StoreError> {
    let (ids, times): (Option<Vec<Uuid>>, Option<Vec<DateTime<Utc>>>) = match open {
        Some(open) => (
            Some(open.iter().map(|(id, _)| *id).collect()),
            Some(open.iter().map(|(_, time)| (*time).into()).collect()),
        ),
        None => (None, None),
    };
    sqlx::query(
        "update log_writer.outbox
         set events = $2, bytes = bytes * $2 / greatest(events, 1),
             open_ids = coalesce($3, open_ids), open_times = coalesce($4, open_times),
             next_attempt_at = now() + $5 * interval '1 microsecond', claimed_by = null, claimed_until = null,
             awaits_bulk = awaits_bulk or $6
         where id = $1",
    )
    .bind(id.0)
    .bind(left)
    .bind(ids)
    .bind(times)
    // Not as an interval: sqlx refuses to send a duration that has nanoseconds, as every jittered one has.
    .bind(i64::try_from(after.as_micros()).unwrap_or(i64::MAX))
    .bind(awaits_bulk)
    .execute(connection)
    .await
    .map_err(StoreError::during("put an outbox row back"))?;
    Ok(())
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

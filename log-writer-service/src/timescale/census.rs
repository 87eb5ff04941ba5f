//! What a comparison of both stores asks PostgreSQL: counts by time, ids, where an event stands, and a second delivery.
//!
//! Works beside the service and its load: nothing is locked but, for a second delivery, other such ones. An event is
//! judged by one statement, at one moment: *settled* means that Elasticsearch has had its document from then on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Row, postgres::PgPoolOptions};
use uuid::Uuid;

use super::{
    audit::{self, ActionId, ActionOutcome},
    books::{self, Books},
    error::StoreError,
    limits::{on_pool, within},
    outbox::WorkKind,
    pool,
};
use crate::{config::Database, event::Timestamp, failpoint::failpoint};

/// How long one statement may take: a day of events is counted by one.
const STATEMENT_TIMEOUT: &str = "15min";
/// The server's limit tells more, so it comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15 * 60 + 5);
/// Held while events are put into the outbox again; `log_veri` in ASCII.
const LOCK: i64 = 0x6c6f_675f_7665_7269;

/// Events of a tenant within a bucket of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedBucket {
    /// Whose.
    pub tenant: String,
    /// Its beginning.
    pub start: Timestamp,
    /// Events that Elasticsearch should have.
    pub events: i64,
    /// Sum of the last 32 bits of their ids.
    pub tails: i64,
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not in `application_logs`.
    Gone,
    /// In the outbox: on its way.
    Outstanding,
    /// Its document was refused by Elasticsearch.
    DeadLetter,
    /// A change of its document was refused: the one that is there is older than the event.
    RefusedChange,
    /// Elasticsearch has it, or it was never meant to.
    Settled,
}

/// A second delivery.
#[derive(Debug, Clone, Copy)]
pub struct Again<'a> {
    /// Names the row in the books.
    pub worker: &'a str,
    /// Counted as a part of this.
    pub action: ActionId,
    /// Why: `repair` or `replace`.
    pub kind: WorkKind,
    /// Events of one outbox row at most.
    pub events_max: usize,
    /// Bytes of one outbox row, about.
    pub bytes_max: usize,
}

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Census {
    pool: PgPool,
}

impl Census {
    /// Prepares connections of its own, which may take longer over a statement; connects when first used.
    ///
    /// # Errors
    /// [`super::StoreErrorKind::Setup`] if the URL cannot be read.
    pub fn new(settings: &Database) -> Result<Self, StoreError> {
        let options =
            pool::connect_options(settings, "log-writer verify")?.options([("statement_timeout", STATEMENT_TIMEOUT)]);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(settings.connect_timeout)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Its connections, for the audit trail and reading back.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Time of the first event in a range.
    ///
    /// # Errors
    /// As any query.
    pub async fn first_event(&self, from: Timestamp, until: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let attempted = "look for the first event";
        let query = sqlx::query_scalar::<_, Option<DateTime<Utc>>>(
            "select min(\"timestamp\") from public.application_logs where \"timestamp\" >= $1 and \"timestamp\" < $2",
        )
        .bind(DateTime::<Utc>::from(from))
        .bind(DateTime::<Utc>::from(until));
        let first = on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_one(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        Ok(first.map(Timestamp::from))
    }

    /// Events in the outbox, and those that Elasticsearch refused; a tenant's if it is named.
    ///
    /// # Errors
    /// As any query.
    pub async fn undelivered(&self, tenant: Option<&str>) -> Result<(i64, i64), StoreError> {
        let attempted = "count what is not delivered";
        let query = sqlx::query_as::<_, (i64, i64)>(
            "select
               (select coalesce(sum(events), 0)::bigint from log_writer.outbox where $1::text is null or $1 = any (tenants)),
               (select count(*) from log_writer.dead_letters
                where stage = 'index' and redriven_at is null and ($1::text is null or tenant = $1))",
        )
        .bind(tenant);
        on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_one(connection).await.map_err(StoreError::during(attempted))
        })
        .await
    }

    /// Counts the events that Elasticsearch should have, by tenant and bucket.
    ///
    /// # Errors
    /// As any query.
    pub async fn count(
        &self,
        from: Timestamp,
        until: Timestamp,
        width: Duration,
        tenant: Option<&str>,
    ) -> Result<Vec<CountedBucket>, StoreError> {
        let attempted = "count events";
        let query = sqlx::query(include_str!("sql/count_settled_events.sql"))
            .bind(DateTime::<Utc>::from(from))
            .bind(DateTime::<Utc>::from(until))
            .bind(width)
            .bind(tenant);
        let rows = on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_all(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        let bucket = |row: &sqlx::postgres::PgRow| {
            Ok(CountedBucket {
                tenant: row.try_get("tenant")?,
                start: row.try_get::<DateTime<Utc>, _>("bucket")?.into(),
                events: row.try_get("events")?,
                tails: row.try_get("tails")?,
            })
        };
        rows.iter()
            .map(bucket)
            .collect::<Result<_, sqlx::Error>>()
            .map_err(StoreError::during(attempted))
    }

    /// The next events of a tenant within a range, by time and id, after the last one that is known; batches that stand
    /// in the outbox as a whole and dead letters are left out.
    ///
    /// # Errors
    /// As any query.
    pub async fn events(
        &self,
        tenant: &str,
        (from, until): (Timestamp, Timestamp),
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Uuid)>, StoreError> {
        let attempted = "list events";
        let (after_time, after_id) = after.unwrap_or((Timestamp(from.0.saturating_sub(1)), Uuid::max()));
        let query = sqlx::query_as::<_, (Uuid, DateTime<Utc>)>(include_str!("sql/list_events.sql"))
            .bind(tenant)
            .bind(DateTime::<Utc>::from(from.max(after_time)))
            .bind(DateTime::<Utc>::from(until))
            .bind(DateTime::<Utc>::from(after_time))
            .bind(after_id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_all(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        Ok(rows.into_iter().map(|(id, time)| (time.into(), id)).collect())
    }

    /// Where events of a tenant stand, in their order, all at one moment.
    ///
    /// # Errors
    /// As any query.
    pub async fn standing(&self, tenant: &str, events: &[(Timestamp, Uuid)]) -> Result<Vec<Standing>, StoreError> {
        let attempted = "judge events";
        let (ids, times) = columns(events);
        let query = sqlx::query_scalar::<_, String>(include_str!("sql/judge_events.sql"))
            .bind(tenant)
            .bind(&ids)
            .bind(&times);
        let standings = on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
            query.fetch_all(connection).await.map_err(StoreError::during(attempted))
        })
        .await?;
        let standing = |name: String| match name.as_str() {
            "gone" => Standing::Gone,
            "outstanding" => Standing::Outstanding,
            "dead_letter" => Standing::DeadLetter,
            "refused_change" => Standing::RefusedChange,
            _ => Standing::Settled,
        };
        Ok(standings.into_iter().map(standing).collect())
    }

    /// Puts events of a tenant into the outbox again; how many, those that stand in it by now and those that are gone apart.
    ///
    /// The books: from `indexed` to outstanding. First, as far as that goes, nothing for what outbox rows that were lost
    /// stood for: it is still counted as meant for Elasticsearch, and nowhere else. Then, for a repair, from `unmirrored`:
    /// what was never meant for Elasticsearch is missing there. No event says which of these it was; the sums come out right.
    ///
    /// # Errors
    /// As any query; nothing is then done, or, if COMMIT was under way, all of it may be.
    ///
    /// # Cancel safety
    /// All or nothing.
    pub async fn deliver_again(
        &self,
        again: Again<'_>,
        tenant: &str,
        target: &str,
        events: &[(Timestamp, Uuid)],
    ) -> Result<i64, StoreError> {
        let attempted = "put events into the outbox again";
        let work = self.enqueue(again, tenant, target, events, attempted);
        within(ANSWER_TIMEOUT, attempted, work).await
    }

    /// Makes the books balance once everything that is stored was compared: what is accounted for nowhere stood in outbox
    /// rows that were lost, and is in Elasticsearch. By how many events; below 0 if such rows came back.
    ///
    /// # Errors
    /// As any query; nothing is then done, or, if COMMIT was under way, all of it may be.
    ///
    /// # Cancel safety
    /// All or nothing.
    pub async fn correct_books(&self, worker: &str, action: ActionId) -> Result<i64, StoreError> {
        let attempted = "correct the books";
        within(ANSWER_TIMEOUT, attempted, async {
            let mut transaction = self.pool.begin().await.map_err(StoreError::during(attempted))?;
            lock(&mut transaction, attempted).await?;
            let lost: i64 = sqlx::query_scalar(
                "select (coalesce(sum(b.mirrored - b.indexed - b.index_dead_lettered - b.expired), 0)
                   - (select coalesce(sum(o.events), 0) from log_writer.outbox o))::bigint
                 from log_writer.books b",
            )
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
            if lost != 0 {
                let books = Books {
                    indexed: lost,
                    ..Books::default()
                };
                books::add_to_books(&mut transaction, worker, &books).await?;
                audit::correction(&mut *transaction, action, lost).await?;
            }
            transaction.commit().await.map_err(StoreError::during(attempted))?;
            Ok(lost)
        })
        .await
    }

    /// Counts second copies that were deleted as a part of the action.
    ///
    /// # Errors
    /// As any query.
    pub async fn note_deleted(&self, action: ActionId, count: usize) -> Result<(), StoreError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        audit::progress(&self.pool, action, count, ActionOutcome::Running).await
    }

    async fn enqueue(
        &self,
        again: Again<'_>,
        tenant: &str,
        target: &str,
        events: &[(Timestamp, Uuid)],
        attempted: &'static str,
    ) -> Result<i64, StoreError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::during(attempted))?;
        lock(&mut transaction, attempted).await?;
        let (ids, times) = columns(events);
        let (enqueued, unmirrored, lost): (i64, i64, i64) = sqlx::query_as(include_str!("sql/enqueue_again.sql"))
            .bind(tenant)
            .bind(&ids)
            .bind(&times)
            .bind(target)
            .bind(again.kind.as_str())
            .bind(i64::try_from(again.events_max).unwrap_or(i64::MAX))
            .bind(i64::try_from(again.bytes_max).unwrap_or(i64::MAX))
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
        if enqueued > 0 {
            let lost = enqueued.min(lost.max(0));
            let unmirrored = match again.kind {
                WorkKind::Repair => (enqueued - lost).min(unmirrored.max(0)),
                WorkKind::Fresh | WorkKind::Redrive | WorkKind::Replace => 0,
            };
            let books = Books {
                unmirrored: -unmirrored,
                mirrored: unmirrored,
                indexed: lost + unmirrored - enqueued,
                requeued: enqueued,
                ..Books::default()
            };
            books::add_to_books(&mut transaction, again.worker, &books).await?;
            if lost > 0 {
                audit::correction(&mut *transaction, again.action, lost).await?;
            }
        }
        audit::progress(&mut *transaction, again.action, enqueued, ActionOutcome::Running).await?;
        failpoint!("verify::before_commit");
        transaction.commit().await.map_err(StoreError::during(attempted))?;
        failpoint!("verify::after_commit");
        Ok(enqueued)
    }
}

/// Of two that repair the same at once the second sees what the first has done.
async fn lock(connection: &mut PgConnection, attempted: &'static str) -> Result<(), StoreError> {
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(StoreError::during(attempted))
}

fn columns(events: &[(Timestamp, Uuid)]) -> (Vec<Uuid>, Vec<DateTime<Utc>>) {
    events
        .iter()
        .map(|(time, id)| (*id, DateTime::<Utc>::from(*time)))
        .unzip()
}

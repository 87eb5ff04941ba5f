//! What an archive asks PostgreSQL: which chunks may be dropped, their events, and to drop one that is archived.
//!
//! One replica at a time: a turn is an advisory lock, and everything is done over the connection that holds it. So whoever
//! lost it can drop nothing any more. Events are read an hour at a time; no snapshot lives longer than that, and what
//! changed meanwhile is found by the fingerprint when the chunk is to be dropped.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::mpsc;

use super::{
    copy::COLUMNS,
    copy_out::CopyReader,
    error::{StoreError, StoreErrorKind},
    limits::{ANSWER_TIMEOUT, on_pool, within},
    pool,
};
use crate::{
    config::Database,
    event::{StoredEvent, Timestamp},
};

/// How long one statement may take: a chunk is counted by one, an hour of events is read by one.
const STATEMENT_TIMEOUT: &str = "60min";
/// The server's limit tells more, so it comes first.
const TURN_TIMEOUT: Duration = Duration::from_secs(60 * 60 + 5);
/// Held by whose turn it is; `log_arch` in ASCII.
const LOCK: i64 = 0x6c6f_675f_6172_6368;
/// Time that is read at one go: it is sorted there.
const WINDOW_MICROS: i64 = 3_600_000_000;
/// Events handed on together, and bytes of theirs, about.
const GROUP: (usize, usize) = (1_000, 1024 * 1024);

/// A time, its end not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its beginning.
    pub from: Timestamp,
    /// What comes after it.
    pub to: Timestamp,
}

/// What of `application_logs` an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedSpan {
    /// Its beginning.
    pub from: DateTime<Utc>,
    /// What comes after it.
    pub to: DateTime<Utc>,
    /// How many events it had.
    pub events: i64,
    /// Sum of the hashes of these; changes with any of them.
    pub fingerprint: String,
}

/// A tenant's events within a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantState {
    /// Whose.
    pub tenant: String,
    /// How many.
    pub events: i64,
    /// Sum of their hashes.
    pub fingerprint: i128,
}

/// An event with what no document needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchivedEvent {
    /// All but the pattern.
    pub event: StoredEvent,
    /// Column `pattern`.
    pub pattern: Option<i64>,
}

/// The right to archive and drop, until it is dropped.
#[derive(Debug)]
pub struct ArchiveTurn(PgConnection);

impl ArchiveTurn {
    /// Takes the turn; `None` if it is another's.
    ///
    /// # Errors
    /// As any query.
    pub async fn begin(settings: &Database) -> Result<Option<Self>, StoreError> {
        // Its statements take seconds by their nature: that is nothing to warn of.
        let options = pool::connect_options(settings, "log-writer archive")?
            .options([("statement_timeout", STATEMENT_TIMEOUT)])
            .disable_statement_logging();
        let mut connection = pool::connect(&options, settings.connect_timeout).await?;
        let attempted = "take the turn to archive";
        let query = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LOCK);
        let taken = within(ANSWER_TIMEOUT, attempted, async {
            query
                .fetch_one(&mut connection)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await?;
        Ok(if taken { Some(Self(connection)) } else { None })
    }

    /// Gives the turn back at once; a turn that is merely dropped ends when the server notices.
    pub async fn end(self) {
        let Self(mut connection) = self;
        let ended = async {
            let query = sqlx::query("select pg_advisory_unlock($1)").bind(LOCK);
            query.execute(&mut connection).await?;
            connection.close().await
        };
        // If it cannot be said, the turn ends with the connection, when the server notices.
        tokio::time::timeout(Duration::from_secs(1), ended).await.ok();
    }

    /// Chunks that may be dropped once they are archived, whole days of them, the oldest first.
    ///
    /// # Errors
    /// As any query.
    pub async fn expired_chunks(&mut self, keep: Duration) -> Result<Vec<Span>, StoreError> {
        let attempted = "look for chunks to archive";
        let query = sqlx::query_as::<_, (DateTime<Utc>, DateTime<Utc>)>(
            "select range_start, range_end from log_writer.expired_chunks($1)
             where range_end <= date_trunc('day', now() - $1, 'UTC') order by range_start",
        )
        .bind(keep);
        let chunks = within(TURN_TIMEOUT, attempted, async {
            query
                .fetch_all(&mut self.0)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await?;
        let span = |(from, to): (DateTime<Utc>, DateTime<Utc>)| Span {
            from: from.into(),
            to: to.into(),
        };
        Ok(chunks.into_iter().map(span).collect())
    }

    /// What a time holds now, by tenant.
    ///
    /// # Errors
    /// As any query.
    pub async fn state(&mut self, span: Span) -> Result<Vec<TenantState>, StoreError> {
        let attempted = "count events to archive";
        let query = sqlx::query_as::<_, (String, i64, String)>(
            "select tenant, events, fingerprint::text from log_writer.archive_state($1, $2) order by tenant",
        )
        .bind(DateTime::<Utc>::from(span.from))
        .bind(DateTime::<Utc>::from(span.to));
        let states = within(TURN_TIMEOUT, attempted, async {
            query
                .fetch_all(&mut self.0)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await?;
        let state = |(tenant, events, fingerprint): (String, i64, String)| {
            let fingerprint = fingerprint
                .parse()
                .map_err(|_| StoreError::own(StoreErrorKind::Other, attempted, "the fingerprint is no number"))?;
            Ok(TenantState {
                tenant,
                events,
                fingerprint,
            })
        };
        states.into_iter().map(state).collect()
    }

    /// Sends events of some tenants, by time and id, until all are sent or nobody receives them any more.
    ///
    /// # Errors
    /// As any query.
    pub async fn read(
        &mut self,
        span: Span,
        tenants: &[String],
        to: &mpsc::Sender<Vec<ArchivedEvent>>,
    ) -> Result<(), StoreError> {
        let mut from = span.from;
        while from < span.to && !to.is_closed() {
            let next = Timestamp(from.0.saturating_add(WINDOW_MICROS)).min(span.to);
            let window = Span { from, to: next };
            let attempted = "read events to archive";
            within(
                TURN_TIMEOUT,
                attempted,
                self.read_window(window, tenants, to, attempted),
            )
            .await?;
            from = next;
        }
        Ok(())
    }

    async fn read_window(
        &mut self,
        window: Span,
        tenants: &[String],
        to: &mpsc::Sender<Vec<ArchivedEvent>>,
        attempted: &'static str,
    ) -> Result<(), StoreError> {
        let failed = |error| StoreError::during(attempted)(error);
        let mut transaction = self.0.begin().await.map_err(failed)?;
        // COPY takes no parameters, and a tenant's name must not become a part of a statement.
        sqlx::query("select set_config('log_writer.archived_tenants', $1::text[]::text, true)")
            .bind(tenants)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let (from, until) = (window.from.to_rfc3339(), window.to.to_rfc3339());
        let statement = format!(
            "copy (select {COLUMNS} from public.application_logs where \"timestamp\" >= '{from}'::timestamptz and \
             \"timestamp\" < '{until}'::timestamptz and tenant = any \
             (current_setting('log_writer.archived_tenants')::text[]) order by \"timestamp\", id) to stdout (format binary)"
        );
        let mut reader = CopyReader::default();
        let mut rows = transaction.copy_out_raw(&statement).await.map_err(failed)?;
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(message) = rows.try_next().await.map_err(failed)? {
            bytes += message.len();
            reader
                .read(&message, |event, pattern| group.push(ArchivedEvent { event, pattern }))
                .ok_or_else(|| {
                    StoreError::own(
                        StoreErrorKind::Other,
                        attempted,
                        "the server sent something else than rows",
                    )
                })?;
            if group.len() >= GROUP.0 || bytes >= GROUP.1 {
                bytes = 0;
                // Who receives knows why no more is wanted; the COPY is read to its end or its connection is closed.
                to.send(std::mem::take(&mut group)).await.ok();
            }
        }
        drop(rows);
        if !group.is_empty() {
            to.send(group).await.ok();
        }
        transaction.commit().await.map_err(failed)
    }

    /// Drops a chunk whose events are exactly what was archived; whether it did.
    ///
    /// # Errors
    /// As any query; nothing is then dropped, or, if COMMIT was under way, all of it may be.
    pub async fn drop_chunk(
        &mut self,
        keep: Duration,
        chunk: Span,
        archived: &[ArchivedSpan],
    ) -> Result<bool, StoreError> {
        let attempted = "drop an archived chunk";
        let query = sqlx::query_scalar("select log_writer.drop_archived_chunk($1, $2, $3, $4)")
            .bind(keep)
            .bind(DateTime::<Utc>::from(chunk.from))
            .bind(DateTime::<Utc>::from(chunk.to))
            .bind(sqlx::types::Json(archived));
        within(TURN_TIMEOUT, attempted, async {
            query
                .fetch_one(&mut self.0)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await
    }
}

/// Keeps events of a time from being dropped for so long from now on.
///
/// # Errors
/// As any query.
pub async fn hold_events(pool: &PgPool, span: Span, keep: Duration, reason: &str) -> Result<(), StoreError> {
    let attempted = "hold restored events";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query("select log_writer.hold_events($1, $2, $3, $4)")
            .bind(DateTime::<Utc>::from(span.from))
            .bind(DateTime::<Utc>::from(span.to))
            .bind(keep)
            .bind(reason)
            .execute(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await
    .map(|_| ())
}

/// Whether events of a tenant were ever counted.
///
/// # Errors
/// As any query.
pub async fn tenant_existed(pool: &PgPool, tenant: &str) -> Result<bool, StoreError> {
    let attempted = "look for a tenant";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query_scalar("select exists (select from public.log_stats_1d where tenant = $1)")
            .bind(tenant)
            .fetch_one(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await
}

//! Finding, counting and showing dead letters.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Row, postgres::PgRow, query::Query};
use uuid::Uuid;

use super::keep::Stage;
use crate::{
    event::Timestamp,
    timescale::{
        audit::{self, ActionOutcome, Actor},
        error::StoreError,
    },
};

/// Which letters are meant; what is not given matches all.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// By number.
    pub ids: Option<Vec<i64>>,
    /// Failed last at this time or later.
    pub since: Option<Timestamp>,
    /// Failed last before this time.
    pub until: Option<Timestamp>,
    /// Where it failed.
    pub stage: Option<Stage>,
    /// The short kind, exactly.
    pub reason: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
}

/// Takes the first six parameters, bound by [`LetterFilter::bind`].
pub(super) const MATCHES: &str =
    "($1::bigint[] is null or d.id = any ($1)) and ($2::timestamptz is null or d.last_at >= $2)
  and ($3::timestamptz is null or d.last_at < $3) and ($4::text is null or d.stage = $4)
  and ($5::text is null or d.reason = $5) and ($6::text is null or d.tenant = $6)";

type Arguments = sqlx::postgres::PgArguments;

impl LetterFilter {
    pub(super) fn bind<'q>(&'q self, query: Query<'q, Postgres, Arguments>) -> Query<'q, Postgres, Arguments> {
        query
            .bind(self.ids.as_deref())
            .bind(self.since.map(DateTime::<Utc>::from))
            .bind(self.until.map(DateTime::<Utc>::from))
            .bind(self.stage.map(Stage::as_str))
            .bind(self.reason.as_deref())
            .bind(self.tenant.as_deref())
    }
}

/// A letter without what it keeps of the event.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Letter {
    /// Its number.
    pub id: i64,
    /// `decode`, `store` or `index`.
    pub stage: String,
    /// Short kind in `snake_case`, or Elasticsearch's error type.
    pub reason: String,
    /// In words; quotes user data.
    pub detail: String,
    /// Whose it is.
    pub tenant: Option<String>,
    /// How often it failed.
    pub attempts: i32,
    /// When it failed first.
    pub first_at: DateTime<Utc>,
    /// When it failed last.
    pub last_at: DateTime<Utc>,
    /// When its event was put into the outbox again; absent: it waits for somebody.
    pub redriven_at: Option<DateTime<Utc>>,
    /// Events it stands for.
    pub events: i64,
    /// Length of what was received, before it was cut.
    pub raw_bytes: i64,
    /// Length of what is kept of it.
    pub raw_kept_bytes: i64,
    /// Who sent it.
    pub source_address: Option<String>,
    /// Header of the request.
    pub content_type: Option<String>,
    /// Header of the request.
    pub content_encoding: Option<String>,
    /// Path of the request.
    pub path: Option<String>,
    /// Place in the request, from 0; absent: the whole request.
    pub position: Option<i32>,
    /// The transaction that kept it last.
    pub batch_id: Option<i64>,
    /// The event's id, if it has one.
    pub event_id: Option<Uuid>,
    /// The event's time, if it has an id.
    pub event_time: Option<DateTime<Utc>>,
    /// Data stream or index that refused it.
    pub target: Option<String>,
    /// Kind of the outbox row that was refused; `replace`: a change, so that the document that is there is the old one.
    pub kind: Option<String>,
}

/// All that is known of one letter.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// What a list shows.
    pub letter: Letter,
    /// Digest of the request and number in it, or time, id and tenant of the event.
    pub identity: Vec<u8>,
    /// What is kept of what was received.
    pub raw: Option<Vec<u8>>,
    /// The row of `application_logs` as JSON, where the event stands there.
    pub event: Option<String>,
}

/// Letters of one stage and reason.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct LetterCount {
    /// `decode`, `store` or `index`.
    pub stage: String,
    /// Short kind.
    pub reason: String,
    /// How many.
    pub letters: i64,
    /// Of them in the outbox again.
    pub redriven: i64,
    /// Events they stand for.
    pub events: i64,
    /// Bytes they keep.
    pub raw_kept_bytes: i64,
    /// First failure of the first.
    pub first_at: DateTime<Utc>,
    /// Last failure of the last.
    pub last_at: DateTime<Utc>,
}

/// Letters that wait for somebody, by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LetterTotals {
    /// Never became an event.
    pub decode: i64,
    /// PostgreSQL refused it.
    pub store: i64,
    /// Elasticsearch refused it.
    pub index: i64,
}

/// A letter to be tried again.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Redrivable {
    /// Its number.
    pub id: i64,
    /// Whether its event is stored, and only to be indexed.
    pub is_stored: bool,
    /// Whether all that was received is kept; else there is nothing whole to try again.
    pub is_whole: bool,
}

const COLUMNS: &str = "d.id, d.stage, d.reason, d.detail, d.tenant, d.attempts, d.first_at, d.last_at, d.redriven_at,
  d.events, d.raw_bytes, coalesce(octet_length(d.raw), 0)::bigint as raw_kept_bytes, host(d.source_address) as source_address,
  d.content_type, d.content_encoding, d.path, d.position, d.batch_id, d.event_id, d.event_time, d.target, d.kind";

impl LetterFilter {
    /// Letters that match, those that failed last first.
    ///
    /// # Errors
    /// As any query.
    pub async fn list(&self, pool: &PgPool, limit: i64) -> Result<Vec<Letter>, StoreError> {
        let attempted = "list dead letters";
        let sql = format!(
            "select {COLUMNS} from log_writer.dead_letters d where {MATCHES} order by d.last_at desc, d.id desc limit $7"
        );
        let rows = self.bind(sqlx::query(&sql)).bind(limit).fetch_all(pool).await;
        rows.map_err(StoreError::during(attempted))?
            .iter()
            .map(|row| Letter::from_row(row).map_err(StoreError::during(attempted)))
            .collect()
    }

    /// Counts by stage and reason, the most first.
    ///
    /// # Errors
    /// As any query.
    pub async fn summary(&self, pool: &PgPool) -> Result<Vec<LetterCount>, StoreError> {
        let attempted = "count dead letters";
        let sql = format!(
            "select d.stage, d.reason, count(*) as letters, count(d.redriven_at) as redriven, sum(d.events)::bigint as events,
               coalesce(sum(octet_length(d.raw)), 0)::bigint as raw_kept_bytes, min(d.first_at) as first_at, max(d.last_at) as last_at
             from log_writer.dead_letters d where {MATCHES} group by d.stage, d.reason order by letters desc, d.stage, d.reason"
        );
        let rows = self.bind(sqlx::query(&sql)).fetch_all(pool).await;
        rows.map_err(StoreError::during(attempted))?
            .iter()
            .map(|row| LetterCount::from_row(row).map_err(StoreError::during(attempted)))
            .collect()
    }

    /// Letters to be tried again with numbers above `after` up to `last`, in order; not those in the outbox again.
    ///
    /// # Errors
    /// As any query.
    pub async fn redrivable(
        &self,
        pool: &PgPool,
        after: i64,
        last: i64,
        limit: i64,
    ) -> Result<Vec<Redrivable>, StoreError> {
        let attempted = "find dead letters";
        let sql = format!(
            "select d.id, d.stage = 'index' as is_stored, coalesce(octet_length(d.raw), 0) >= greatest(d.raw_bytes, 1) as is_whole
             from log_writer.dead_letters d
             where {MATCHES} and d.redriven_at is null and d.id > $7 and d.id <= $8 order by d.id limit $9"
        );
        let query = self.bind(sqlx::query(&sql)).bind(after).bind(last).bind(limit);
        let rows = query.fetch_all(pool).await.map_err(StoreError::during(attempted))?;
        rows.iter()
            .map(|row| Redrivable::from_row(row).map_err(StoreError::during(attempted)))
            .collect()
    }

    /// How many letters match that are not in the outbox again, and the highest number among them.
    ///
    /// # Errors
    /// As any query.
    pub async fn extent(&self, pool: &PgPool) -> Result<(i64, i64), StoreError> {
        let attempted = "count dead letters";
        let sql = format!(
            "select count(*) as letters, coalesce(max(d.id), 0) as last from log_writer.dead_letters d
             where {MATCHES} and d.redriven_at is null"
        );
        let row = self.bind(sqlx::query(&sql)).fetch_one(pool).await;
        let row = row.map_err(StoreError::during(attempted))?;
        let number = |name: &str| row.try_get(name).map_err(StoreError::during(attempted));
        Ok((number("letters")?, number("last")?))
    }
}

impl StoredLetter {
    /// Reads one letter, with its event where that is stored, for somebody: it shows what was received.
    ///
    /// # Errors
    /// As any query; then nothing is shown.
    pub async fn read(pool: &PgPool, actor: &Actor, id: i64) -> Result<Option<Self>, StoreError> {
        let attempted = "read a dead letter";
        let mut transaction = pool.begin().await.map_err(StoreError::during(attempted))?;
        let sql = format!(
            "select {COLUMNS}, d.identity, d.raw,
               (select to_jsonb(a)::text from public.application_logs a
                where a.id = d.event_id and a.\"timestamp\" = d.event_time and a.tenant = d.tenant limit 1) as event
             from log_writer.dead_letters d where d.id = $1"
        );
        let row = sqlx::query(&sql).bind(id).fetch_optional(&mut *transaction).await;
        let row = row.map_err(StoreError::during(attempted))?;
        let (target, shown) = (serde_json::json!({ "ids": [id] }), i64::from(row.is_some()));
        audit::record_in(
            &mut *transaction,
            actor,
            "dead-letters show",
            &target,
            shown,
            ActionOutcome::Done,
        )
        .await?;
        transaction.commit().await.map_err(StoreError::during(attempted))?;
        let Some(row) = row else { return Ok(None) };
        let read = |row: &PgRow| {
            Ok::<_, sqlx::Error>(Self {
                letter: Letter::from_row(row)?,
                identity: row.try_get("identity")?,
                raw: row.try_get("raw")?,
                event: row.try_get("event")?,
            })
        };
        read(&row).map(Some).map_err(StoreError::during(attempted))
    }
}

/// Counts the letters that wait for somebody.
///
/// # Errors
/// As any query.
pub async fn count_letters(pool: &PgPool) -> Result<LetterTotals, StoreError> {
    let mut connection = pool.acquire().await.map_err(StoreError::during("count dead letters"))?;
    read_totals(&mut connection).await
}

/// The same, within the caller's transaction.
pub(in crate::timescale) async fn read_totals(connection: &mut PgConnection) -> Result<LetterTotals, StoreError> {
    let attempted = "count dead letters";
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select stage, count(*) from log_writer.dead_letters where redriven_at is null group by stage")
            .fetch_all(connection)
            .await
            .map_err(StoreError::during(attempted))?;
    let of = |stage: Stage| {
        rows.iter()
            .find(|(name, _)| name == stage.as_str())
            .map_or(0, |(_, letters)| *letters)
    };
    Ok(LetterTotals {
        decode: of(Stage::Decode),
        store: of(Stage::Store),
        index: of(Stage::Index),
    })
}

impl LetterTotals {
    /// Numbers by stage.
    #[must_use]
    pub fn by_stage(&self) -> [(&'static str, i64); 3] {
        [
            (Stage::Decode.as_str(), self.decode),
            (Stage::Store.as_str(), self.store),
            (Stage::Index.as_str(), self.index),
        ]
    }

    /// All of them.
    #[must_use]
    pub fn sum(&self) -> i64 {
        self.decode + self.store + self.index
    }
}

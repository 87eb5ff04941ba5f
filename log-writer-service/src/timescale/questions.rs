//! Questions that are read and never written: the SQL functions for people and agents, and SQL of their own.
//!
//! Every answer comes from one read-only transaction with a time limit, as rows of JSON text, and ends at a number of rows
//! and bytes; PostgreSQL itself leaves out a row that is larger than that, so that it never arrives here. What protects the
//! data is that transaction and the role of its connection, never a look at the text.

use std::{str::FromStr, time::Duration};

use futures::TryStreamExt;
use secrecy::ExposeSecret;
use serde_json::{Value, value::RawValue};
use sqlx::{
    Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    error::{StoreError, StoreErrorKind},
    limits::{on_pool, on_pool_unless, within},
    pool::connect_options,
};
use crate::config::{Api, Database};

/// What is waited beyond `api.statement_timeout` for PostgreSQL to say so itself.
const GRACE: Duration = Duration::from_secs(2);

/// One question whose SQL is ours; the parameters come as one JSON object, `$1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question(pub(crate) &'static str);

macro_rules! questions {
    ($($name:ident = $file:literal, $doc:literal;)*) => {
        impl Question {
            $(#[doc = $doc]
            pub const $name: Self = Self(include_str!(concat!("sql/questions/", $file, ".sql")));)*
        }
    };
}

questions! {
    SEARCH_LOGS = "search_logs", "`search_logs`.";
    LISTED_LOGS = "listed_logs", "The events of `keys`, as `search_logs` shows them.";
    GET_LOG = "get_log", "One event, or those of one id.";
    GET_LOG_CONTEXT = "get_log_context", "`get_log_context`.";
    TRACE_LOGS = "trace_logs", "`trace_logs`.";
    GET_ERROR_STATS = "get_error_stats", "`get_error_stats`.";
    GET_LOG_VOLUME = "get_log_volume", "`get_log_volume`.";
    GET_LATENCY_STATS = "get_latency_stats", "`get_latency_stats`.";
    TOP_ERROR_PATTERNS = "top_error_patterns", "`top_error_patterns`.";
    NEW_ERROR_PATTERNS = "new_error_patterns", "`new_error_patterns`.";
    SERVICE_DEPENDENCIES = "service_dependencies", "`service_dependencies`.";
    DETECT_ANOMALIES = "detect_anomalies", "`detect_anomalies`.";
    SILENT_SERVICES = "silent_services", "`silent_services`.";
    DESCRIBE_TABLES = "describe_tables", "What stands in `public`: tables, views, columns, comments.";
    DESCRIBE_FUNCTIONS = "describe_functions", "The functions in `public`, with their comments.";
}

/// Rows of an answer, each a JSON object.
#[derive(Debug, Default)]
pub struct Rows {
    /// In the order of the query.
    pub rows: Vec<Box<RawValue>>,
    /// Whether there were more than the limits of rows and bytes allow.
    pub truncated: bool,
    /// Rows left out, as each alone is larger than the limit of bytes.
    pub too_large: usize,
}

/// Asks; clones share the connections.
#[derive(Debug, Clone)]
pub struct Questions {
    /// For questions of ours.
    pool: PgPool,
    /// For SQL of others: a role that may read and nothing else.
    reader: Option<PgPool>,
    settings: Api,
}

impl Questions {
    /// Connects when first asked. `api.database_url` is the reader's; without it nobody can ask SQL of their own.
    ///
    /// # Errors
    /// [`StoreErrorKind::Setup`] if a URL cannot be read.
    pub fn new(database: &Database, settings: &Api) -> Result<Self, StoreError> {
        let pool = |options: PgConnectOptions| {
            PgPoolOptions::new()
                .max_connections(settings.connections_max.max(1))
                .acquire_timeout(database.connect_timeout)
                // A stranger's statement may have taken locks that outlive its transaction.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        connection.execute("select pg_advisory_unlock_all()").await?;
                        Ok(true)
                    })
                })
                .connect_lazy_with(options)
        };
        let own = connect_options(database, "log-writer api")?;
        let reader = match &settings.database_url {
            None => None,
            Some(url) => Some(
                PgConnectOptions::from_str(url.expose_secret())
                    .map_err(StoreError::during("read api.database_url"))?
                    .application_name("log-writer api reader")
                    .options([("timezone", "UTC")]),
            ),
        };
        Ok(Self {
            pool: pool(reader.clone().unwrap_or(own)),
            reader: reader.map(pool),
            settings: settings.clone(),
        })
    }

    /// Whether SQL of others is taken.
    #[must_use]
    pub fn takes_sql(&self) -> bool {
        self.reader.is_some()
    }

    /// Asks one of our questions.
    ///
    /// # Errors
    /// [`StoreErrorKind::Data`] if a parameter cannot be read, [`StoreErrorKind::Timeout`] if it took too long.
    pub async fn ask(&self, question: Question, parameters: &Value) -> Result<Rows, StoreError> {
        let whole = self.within_limits("answer (line)", question.0, "line");
        self.read(&self.pool, "answer a question", async |connection, rows| {
            self.collect(sqlx::query_scalar(&whole).bind(parameters), connection, rows)
                .await
        })
        .await
    }

    /// Runs one statement of somebody else's as the reader.
    ///
    /// A statement that writes is refused by the role and by the transaction, several at once by the protocol.
    ///
    /// # Errors
    /// [`StoreErrorKind::Setup`] if there is no reader, or its role could write.
    pub async fn run_sql(&self, sql: &str) -> Result<Rows, StoreError> {
        let attempted = "run the statement";
        let Some(reader) = &self.reader else {
            return Err(StoreError::own(
                StoreErrorKind::Setup,
                attempted,
                "api.database_url is not set: it names a role that may only read (docs/SECURITY.md)",
            ));
        };
        // As a part of a larger query, so that its rows become JSON whatever their types.
        let sql = sql.trim().trim_end_matches(';');
        let whole = self.within_limits("answer", sql, "row_to_json(answer)::text");
        self.read(reader, attempted, async |connection, rows| {
            refuse_a_writer(connection).await?;
            self.collect(sqlx::query_scalar(&whole).persistent(false), connection, rows)
                .await
        })
        .await
    }

    /// A query with the limits of rows and of the bytes of one row around it: null stands for a row that is too large.
    ///
    /// The query comes first, inside a parenthesis that only what follows closes: no text of it can become the part that
    /// answers. On lines of its own, as it may end in a comment.
    fn within_limits(&self, answer: &str, query: &str, line: &str) -> String {
        format!(
            "with {answer} as (\n{query}\n), lines as (select {line} as line from answer limit {}) \
             select case when octet_length(line) <= {} then line end from lines",
            self.settings.rows_max.saturating_add(1),
            self.settings.answer_bytes_max
        )
    }

    /// How old the oldest event is that Elasticsearch does not have yet; none waits: zero.
    ///
    /// # Errors
    /// As any query.
    pub async fn mirror_age(pool: &PgPool) -> Result<Duration, StoreError> {
        let attempted = "read the age of the outbox";
        let seconds: Option<f64> = on_pool(pool, Duration::from_secs(5), attempted, async |connection| {
            sqlx::query_scalar(
                "select extract(epoch from clock_timestamp() - enqueued_at)::double precision
                 from log_writer.outbox order by id limit 1",
            )
            .fetch_optional(connection)
            .await
            .map_err(StoreError::during(attempted))
        })
        .await?;
        Ok(Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default())
    }

    /// Runs work in a read-only transaction, which is rolled back whatever comes.
    async fn read(
        &self,
        pool: &PgPool,
        attempted: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection, &mut Rows) -> Result<(), StoreError>,
    ) -> Result<Rows, StoreError> {
        let limit = self.settings.statement_timeout;
        // Of a cut answer the rest is still on its way: as much as rows_max such rows. Its connection is closed.
        let is_cut = |rows: &Rows| rows.truncated;
        on_pool_unless(is_cut, pool, limit + GRACE, attempted, async |connection| {
            let mut rows = Rows::default();
            let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
            let begin = format!(
                "set transaction isolation level repeatable read, read only; set local statement_timeout = {}; set local \
                 lock_timeout = '1s'",
                limit.as_millis().max(1)
            );
            transaction
                .execute(begin.as_str())
                .await
                .map_err(StoreError::during(attempted))?;
            work(&mut transaction, &mut rows).await?;
            if !rows.truncated {
                let end = async { transaction.rollback().await.map_err(StoreError::during(attempted)) };
                within(GRACE, attempted, end).await?;
                // It has room for the largest row that it read.
                connection.shrink_buffers();
            }
            Ok(rows)
        })
        .await
    }

    /// Reads rows until there are no more, or enough.
    async fn collect<'q>(
        &self,
        query: sqlx::query::QueryScalar<'q, sqlx::Postgres, Option<String>, sqlx::postgres::PgArguments>,
        connection: &mut PgConnection,
        rows: &mut Rows,
    ) -> Result<(), StoreError> {
        let attempted = "answer the question";
        let mut stream = query.fetch(connection);
        let mut bytes = 0;
        while let Some(row) = stream.try_next().await.map_err(StoreError::during(attempted))? {
            let Some(row) = row else {
                rows.too_large += 1;
                continue;
            };
            bytes += row.len();
            if rows.rows.len() >= self.settings.rows_max || bytes > self.settings.answer_bytes_max {
                rows.truncated = true;
                break;
            }
            let row = RawValue::from_string(row).map_err(|error| {
                StoreError::own(StoreErrorKind::Other, attempted, format!("a row is no JSON: {error}"))
            })?;
            rows.rows.push(row);
        }
        Ok(())
    }
}

/// The role is what keeps a stranger's statement from writing: one that could is not used.
async fn refuse_a_writer(connection: &mut PgConnection) -> Result<(), StoreError> {
    let attempted = "check the role of api.database_url";
    let could_write: bool = sqlx::query_scalar(
        // A member may become the other role, by a function in a statement, even where it inherits nothing.
        "select bool_or(rolsuper or rolcreaterole or pg_has_role(oid, 'pg_write_all_data', 'usage')
           or has_table_privilege(oid, 'public.application_logs', 'insert, update, delete, truncate')
           or has_schema_privilege(oid, 'public', 'create')
           or case when has_schema_privilege(oid, 'log_writer', 'usage')
                then has_table_privilege(oid, 'log_writer.dead_letters', 'select') else false end)
         from pg_roles where pg_has_role(current_user, oid, 'member')",
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::during(attempted))?;
    if could_write {
        return Err(StoreError::own(
            StoreErrorKind::Setup,
            attempted,
            "it may write, or read what is not for readers; give one that may only read (docs/SECURITY.md)",
        ));
    }
    Ok(())
}

//! What SQL holds: the rows of `application_logs`, typed enough to be compared.

use serde_json::Value;
use sqlx::{PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

/// One row of `application_logs`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// Column `id`.
    pub id: Uuid,
    /// Column `timestamp` in microseconds.
    pub timestamp_us: i64,
    /// Column `tenant`.
    pub tenant: String,
    /// The columns of text, by name; nulls are left out.
    pub texts: Vec<(&'static str, String)>,
    /// Column `tags`; empty for null.
    pub tags: Vec<String>,
    /// Columns of JSON, by name; `{}` for null.
    pub fields: Value,
    /// `{}` for null.
    pub error_details: Value,
    /// `{}` for null.
    pub performance_metrics: Value,
    /// `{}` for null.
    pub ai_analysis: Value,
}

/// Columns of text that are compared.
pub const TEXT_COLUMNS: [&str; 8] = [
    "level",
    "service",
    "host",
    "message",
    "correlation_id",
    "user_id",
    "trace_id",
    "span_id",
];

impl StoredRow {
    /// A column of text; `None` for null.
    #[must_use]
    pub fn text(&self, column: &str) -> Option<&str> {
        self.texts
            .iter()
            .find(|(name, _)| *name == column)
            .map(|(_, value)| value.as_str())
    }
}

/// All rows, in the order of time and id.
pub async fn stored_rows(pool: &PgPool) -> Vec<StoredRow> {
    let rows = sqlx::query(
        "select id, (extract(epoch from \"timestamp\") * 1000000)::bigint as timestamp_us, tenant, level, service, \
         host, message, correlation_id, user_id, trace_id, span_id, tags, fields::text, error_details::text, \
         performance_metrics::text, ai_analysis::text from public.application_logs order by \"timestamp\", id",
    )
    .fetch_all(pool)
    .await
    .expect("cannot read application_logs");
    rows.iter().map(stored_row).collect()
}

fn stored_row(row: &PgRow) -> StoredRow {
    let json = |column: &str| -> Value {
        row.get::<Option<String>, _>(column).map_or_else(
            || Value::Object(serde_json::Map::new()),
            |text| serde_json::from_str(&text).expect("jsonb is JSON"),
        )
    };
    StoredRow {
        id: row.get("id"),
        timestamp_us: row.get("timestamp_us"),
        tenant: row.get("tenant"),
        texts: TEXT_COLUMNS
            .into_iter()
            .filter_map(|column| Some((column, row.get::<Option<String>, _>(column)?)))
            .collect(),
        tags: row.get::<Option<Vec<String>>, _>("tags").unwrap_or_default(),
        fields: json("fields"),
        error_details: json("error_details"),
        performance_metrics: json("performance_metrics"),
        ai_analysis: json("ai_analysis"),
    }
}

/// One dead letter, as far as every stage has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// `decode`, `store` or `index`.
    pub stage: String,
    /// The short reason.
    pub reason: String,
    /// All of the row as JSON text, for what a test asks beyond that.
    pub whole: String,
}

/// All dead letters.
pub async fn dead_letters(pool: &PgPool) -> Vec<DeadLetterRow> {
    sqlx::query("select stage::text, reason, to_jsonb(d)::text as whole from log_writer.dead_letters d")
        .fetch_all(pool)
        .await
        .expect("cannot read log_writer.dead_letters")
        .iter()
        .map(|row| DeadLetterRow {
            stage: row.get("stage"),
            reason: row.get("reason"),
            whole: row.get("whole"),
        })
        .collect()
}

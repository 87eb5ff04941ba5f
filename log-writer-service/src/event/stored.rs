//! One event as the hypertable holds it: what documents for Elasticsearch are made of.

use std::sync::Arc;

use uuid::Uuid;

use super::Timestamp;

/// One row of `application_logs`, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Column `id`.
    pub id: Uuid,
    /// Column `timestamp`.
    pub timestamp: Timestamp,
    /// Column `ingested_at`.
    pub ingested_at: Timestamp,
    /// Column `batch_id`.
    pub batch_id: i64,
    /// Column `tenant`.
    pub tenant: Arc<str>,
    /// Column `level`: TRACE, DEBUG, INFO, WARN, ERROR or FATAL.
    pub level: String,
    /// Column `service`.
    pub service: String,
    /// Column `host`.
    pub host: Option<String>,
    /// Column `message`.
    pub message: String,
    /// Column `correlation_id`.
    pub correlation_id: Option<String>,
    /// Column `user_id`.
    pub user_id: Option<String>,
    /// Column `trace_id`.
    pub trace_id: Option<String>,
    /// Column `span_id`.
    pub span_id: Option<String>,
    /// Column `tags`; empty for null.
    pub tags: Vec<String>,
    /// Column `fields`: JSON object text.
    pub fields: Option<String>,
    /// Column `error_details`: JSON object text.
    pub error_details: Option<String>,
    /// Column `performance_metrics`: JSON object text.
    pub performance_metrics: Option<String>,
    /// Column `ai_analysis`: JSON object text.
    pub ai_analysis: Option<String>,
}

impl StoredEvent {
    /// Bytes of the message and the JSON columns: the document has more.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let objects = [
            &self.fields,
            &self.error_details,
            &self.performance_metrics,
            &self.ai_analysis,
        ];
        self.message.len() + objects.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

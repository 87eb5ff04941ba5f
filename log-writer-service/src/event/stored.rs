//! One event as the hypertable holds it: what documents for Elasticsearch are made of.

use std::sync::Arc;

use uuid::Uuid;

use super::{Timestamp, stored_texts::StoredTexts};

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
    /// The other columns but `pattern`.
    pub texts: StoredTexts,
}

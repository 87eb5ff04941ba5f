//! One event after normalising: the columns of `application_logs` that come from the sender.

use std::{borrow::Cow, sync::Arc};

use uuid::Uuid;

use super::Timestamp;

/// Severity, in the six steps of the column `level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// OpenTelemetry 1-4.
    Trace,
    /// OpenTelemetry 5-8.
    Debug,
    /// OpenTelemetry 9-12; what an event without a level gets.
    Info,
    /// OpenTelemetry 13-16.
    Warn,
    /// OpenTelemetry 17-20.
    Error,
    /// OpenTelemetry 21-24.
    Fatal,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// The text of the column `level`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// What makes an event the same event in both stores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// The event's own id, or the one derived from its request.
    pub id: Uuid,
    /// The stored time.
    pub timestamp: Timestamp,
    /// Whose event it is.
    pub tenant: Arc<str>,
}

/// One normalised event, borrowing from the body it came in where it can.
///
/// Text is valid UTF-8 without NUL. JSON text (`fields` and the three after it) is one object that PostgreSQL's
/// `jsonb` accepts: no `\u0000`, no lone surrogate, bounded depth.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEvent<'a> {
    /// The id the event brought, if it is a UUID or a ULID.
    pub own_id: Option<Uuid>,
    /// The time the event claims, usable or not; `None` if absent or unreadable.
    pub claimed_time: Option<Timestamp>,
    /// The time to store: the claimed one, else the one in a v7 id or ULID, else the arrival, later by its place.
    pub timestamp: Timestamp,
    /// Whose event it is.
    pub tenant: Arc<str>,
    /// Severity.
    pub level: Level,
    /// At most 512 bytes; `unknown` if the event names none.
    pub service: Cow<'a, str>,
    /// At most 512 bytes.
    pub host: Option<Cow<'a, str>>,
    /// Empty if the event has none; an object or array is kept as its JSON text.
    pub message: Cow<'a, str>,
    /// At most 512 bytes.
    pub correlation_id: Option<Cow<'a, str>>,
    /// At most 512 bytes.
    pub user_id: Option<Cow<'a, str>>,
    /// At most 512 bytes; lower-case hex where it was hex.
    pub trace_id: Option<Cow<'a, str>>,
    /// At most 512 bytes; lower-case hex where it was hex.
    pub span_id: Option<Cow<'a, str>>,
    /// Empty is stored as null.
    pub tags: Vec<Cow<'a, str>>,
    /// JSON object text of everything else; empty string for none.
    pub fields: Cow<'a, str>,
    /// JSON object text.
    pub error_details: Option<String>,
    /// JSON object text; numbers where the sender's values can be read as numbers.
    pub performance_metrics: Option<String>,
    /// JSON object text.
    pub ai_analysis: Option<String>,
}

/// Why a raw event is no log event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A Vector metric; this service stores logs only.
    #[error("metric: only log events are stored")]
    Metric,
    /// A trace or span; this service stores logs only.
    #[error("trace: only log events are stored")]
    Trace,
    /// Not one JSON object although it was cut out as one.
    #[error("not a JSON object that can be read")]
    Malformed,
}

impl Unusable {
    /// A stable name in `snake_case`, for dead letters and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metric => "metric",
            Self::Trace => "trace",
            Self::Malformed => "malformed_json",
        }
    }
}

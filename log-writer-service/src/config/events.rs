//! Section `[events]`: how raw events become log events.

use std::time::Duration;

use serde::Deserialize;

/// Section `[events]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// How far back an event's time is accepted; older ones are stored under another time (design, section 3).
    #[serde(with = "super::unit::duration")]
    pub accept_past: Duration,
    /// How far ahead of now an event's time is accepted.
    #[serde(with = "super::unit::duration")]
    pub accept_future: Duration,
    /// The tenant of events that name none they may name.
    pub default_tenant: String,
    /// Tenants that a body may name in `tenant`; another name goes to `fields`.
    pub body_tenants: Vec<String>,
    /// Deepest nesting kept as JSON in `fields`; what is deeper is kept as a string of its JSON text.
    pub depth_max: usize,
    /// Events in one request at most; the rest of a larger one is one dead letter.
    pub per_request_max: usize,
    /// Names of an object member that holds the array of events: `{"data":[…]}`.
    pub wrappers: Vec<String>,
    /// Where each part of an event is looked for, first match wins.
    pub aliases: Aliases,
}

/// Section `[events.aliases]`: names of an event's parts, dotted names match nested members and dotted keys alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aliases {
    /// The event's own id (UUID or ULID).
    pub id: Vec<String>,
    /// The time of the event.
    pub timestamp: Vec<String>,
    /// Severity as text or number.
    pub level: Vec<String>,
    /// The message.
    pub message: Vec<String>,
    /// The service.
    pub service: Vec<String>,
    /// The host.
    pub host: Vec<String>,
    /// The correlation id.
    pub correlation_id: Vec<String>,
    /// The user's id.
    pub user_id: Vec<String>,
    /// The trace id.
    pub trace_id: Vec<String>,
    /// The span id.
    pub span_id: Vec<String>,
    /// Tags: an array or a comma-separated text.
    pub tags: Vec<String>,
    /// Details of an error: an object, or text.
    pub error_details: Vec<String>,
    /// Measured numbers: an object.
    pub performance_metrics: Vec<String>,
    /// What an analysis said: an object.
    pub ai_analysis: Vec<String>,
    /// The tenant, where the body may name it.
    pub tenant: Vec<String>,
}

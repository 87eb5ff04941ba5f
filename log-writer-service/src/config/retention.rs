//! Section `[retention]`: how long events and counts are kept.

use std::time::Duration;

use serde::Deserialize;

/// Section `[retention]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Whether anything is dropped at all.
    pub enabled: bool,
    /// How long events are kept; whole chunks are dropped.
    #[serde(with = "super::unit::duration")]
    pub events: Duration,
    /// How long counts per minute and per pattern are kept.
    #[serde(with = "super::unit::duration")]
    pub stats_minutes: Duration,
    /// How long counts per hour and per day are kept.
    #[serde(with = "super::unit::duration")]
    pub stats: Duration,
}

//! Section `[retention]`: how long events and counts are kept, and where events are archived.

use std::{path::PathBuf, time::Duration};

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
    /// Folder to archive events in before they are dropped; `None`: they are dropped.
    pub archive_path: Option<PathBuf>,
    /// How hard the files there are compressed, 1 to 19.
    pub archive_zstd_level: i32,
}

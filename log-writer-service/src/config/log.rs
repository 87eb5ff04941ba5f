//! Section `[log]`: the service's own log.

use serde::Deserialize;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Section `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How log lines look.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as in `RUST_LOG`, which goes over the file's.
    pub filter: String,
}

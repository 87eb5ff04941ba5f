//! Section `[auth]`: who may send and read.

use std::path::PathBuf;

use serde::Deserialize;

/// Section `[auth]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whether requests need a token.
    pub enabled: bool,
    /// TOML file of the tokens.
    pub tokens_file: Option<PathBuf>,
}

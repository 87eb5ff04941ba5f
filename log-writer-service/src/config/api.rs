//! Section `[api]`: what questions over HTTP and MCP may cost.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

/// Section `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Whether questions are answered.
    pub enabled: bool,
    /// URL of a role that may only read; without it SQL of others is refused.
    pub database_url: Option<SecretString>,
    /// A file that holds it; read at start into `database_url`.
    pub database_url_file: Option<PathBuf>,
    /// Names under which `/mcp` answers.
    pub allowed_hosts: Vec<String>,
    /// Connections for questions.
    pub connections_max: u32,
    /// How long one question may take.
    #[serde(with = "super::unit::duration")]
    pub statement_timeout: Duration,
    /// Rows of an answer.
    pub rows_max: usize,
    /// Bytes of an answer.
    #[serde(with = "super::unit::bytes")]
    pub answer_bytes_max: usize,
    /// How far Elasticsearch may be behind and still be asked.
    #[serde(with = "super::unit::duration")]
    pub search_behind_max: Duration,
}

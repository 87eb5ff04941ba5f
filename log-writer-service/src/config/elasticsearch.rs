//! Section `[elasticsearch]`: the cluster, what is applied to it and how documents are named.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// How indices are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// Data stream `logs-<dataset>-<tenant>`.
    DataStream,
    /// Plain indices `logs-<tenant>-YYYY.MM`, by the month of the event.
    Monthly,
}

/// When bulk bodies, and the answers to them, are compressed (gzip level 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gzip {
    /// Unless the cluster is on loopback.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Section `[elasticsearch]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elasticsearch {
    /// Off: events are stored in SQL only.
    pub enabled: bool,
    /// Nodes, asked in turn; `ELASTICSEARCH_URL` is honoured. After loading they hold no user and no password.
    #[serde(with = "super::unit::urls")]
    pub urls: Vec<Url>,
    /// User for basic authentication, from here or from the URLs.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// A file that holds the password; read at start into `password`.
    pub password_file: Option<PathBuf>,
    /// API key, encoded (`id:key` in base64) as Kibana shows it.
    pub api_key: Option<SecretString>,
    /// A file that holds the API key; read at start into `api_key`.
    pub api_key_file: Option<PathBuf>,
    /// PEM file of the CA that signed the cluster's certificate.
    pub ca_file: Option<PathBuf>,
    /// How indices are named.
    pub naming: Naming,
    /// The middle of `logs-<dataset>-<tenant>`.
    pub dataset: String,
    /// Copies of each shard.
    pub replicas: u32,
    /// How soon a document can be found; Elasticsearch's own notation.
    pub refresh_interval: String,
    /// Whether the service applies templates and policy at start.
    pub bootstrap: bool,
    /// A folder whose `*.json` go over the built-in `es-templates` and `ilm`.
    pub templates_dir: Option<PathBuf>,
    /// Further members of `fields` that get a typed field of their own: name → `keyword`, `long`, `double`, `boolean` or `ip`.
    pub promote: BTreeMap<String, String>,
    /// When bulk bodies are compressed.
    pub gzip: Gzip,
    /// Documents in one `_bulk` at most.
    pub bulk_documents_max: usize,
    /// Bytes of one `_bulk` at most, before compression.
    #[serde(with = "super::unit::bytes")]
    pub bulk_bytes_max: usize,
    /// Time for one request; above 35 s, since making a data stream can take 31.
    #[serde(with = "super::unit::duration")]
    pub request_timeout: Duration,
}

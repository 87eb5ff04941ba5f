//! The configuration: one struct a section, final types, read once at start.
//!
//! `config.default.toml` is the default; a file, `LOG_WRITER__SECTION__KEY` and flags go over it.
//! Every other module gets only the section it needs.

mod database;
mod delivery;
mod elasticsearch;
mod events;
mod http;
mod log;
mod unit;

use serde::Deserialize;

pub use self::database::{Database, SynchronousCommit};
pub use self::delivery::Delivery;
pub use self::elasticsearch::{Elasticsearch, Gzip, Naming};
pub use self::events::{Aliases, Events};
pub use self::http::Http;
pub use self::log::{Format, Log};

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Section `[http]`.
    pub http: Http,
    /// Section `[events]`.
    pub events: Events,
    /// Section `[database]`.
    pub database: Database,
    /// Section `[elasticsearch]`.
    pub elasticsearch: Elasticsearch,
    /// Section `[delivery]`.
    pub delivery: Delivery,
    /// Section `[log]`.
    pub log: Log,
}

//! The configuration: one struct a section, final types, read once at start.
//!
//! `config.default.toml` is the default; a file, `DATABASE_URL` and its like, `LOG_WRITER__SECTION__KEY` and flags go
//! over it, in this order. [`load()`] reads them all and gives either a configuration in which everything holds, or a
//! [`Report`] of every mistake. It reads the files that hold secrets, too: no other module reads the environment or
//! those files, and every other module gets only the section it needs.

mod api;
mod auth;
mod check;
mod credentials;
mod database;
mod delivery;
#[cfg(test)]
mod document;
mod elasticsearch;
mod events;
mod http;
mod known;
mod load;
mod log;
mod print;
mod report;
mod retention;
mod secret;
mod setting;
mod source;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod unit;

use serde::Deserialize;

pub use self::api::Api;
pub use self::auth::{Auth, Jwt};
pub use self::check::tenant_mistake;
pub use self::database::{Database, SynchronousCommit};
pub use self::delivery::Delivery;
pub use self::elasticsearch::{Elasticsearch, Gzip, Naming};
pub use self::events::{Aliases, Events};
pub use self::http::Http;
pub use self::known::DEFAULT_FILE;
pub use self::load::{Loaded, load, load_with};
pub use self::log::{Format, Log};
pub use self::report::{Given, Mistake, Report};
pub use self::retention::Retention;
pub use self::secret::url as url_without_secrets;
pub use self::source::{Sources, USUAL_FILE};
pub use self::storage::{Profile, Storage};
pub use self::tls::Tls;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Section `[http]`.
    pub http: Http,
    /// Section `[auth]`.
    pub auth: Auth,
    /// Section `[tls]`.
    pub tls: Tls,
    /// Section `[events]`.
    pub events: Events,
    /// Section `[database]`.
    pub database: Database,
    /// Section `[storage]`.
    pub storage: Storage,
    /// Section `[elasticsearch]`.
    pub elasticsearch: Elasticsearch,
    /// Section `[delivery]`.
    pub delivery: Delivery,
    /// Section `[retention]`.
    pub retention: Retention,
    /// Section `[api]`.
    pub api: Api,
    /// Section `[log]`.
    pub log: Log,
}

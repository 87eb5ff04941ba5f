//! What the store is: versions and edition, for status, `doctor` and the start-up summary.

use std::fmt;

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::error::StoreError;

/// Which build of TimescaleDB is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Edition {
    /// Hypertables and `drop_chunks` only.
    Apache,
    /// Continuous aggregates and columnstore too.
    Community,
}

impl Edition {
    /// From `current_setting('timescaledb.license', true)`: `apache`, `timescale`, or null where nothing is loaded.
    pub(super) fn from_license(license: Option<&str>) -> Self {
        if license == Some("timescale") {
            Self::Community
        } else {
            Self::Apache
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apache => "apache",
            Self::Community => "community",
        })
    }
}

/// Versions of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// As PostgreSQL names itself: `17.11 (Debian …)`.
    pub postgres_version: String,
    /// `None` if the extension is not in this database.
    pub timescaledb_version: Option<String>,
    /// Of the loaded library.
    pub edition: Edition,
    /// Version of the last applied migration; `None` before the first.
    pub schema_version: Option<i64>,
}

/// Asks for versions and edition; works before the first migration too.
///
/// # Errors
/// As any query.
pub(super) async fn read_status(connection: &mut PgConnection) -> Result<StoreStatus, StoreError> {
    let attempted = "read the store's status";
    let row = sqlx::query(
        "select current_setting('server_version') as postgres,
           (select extversion from pg_extension where extname = 'timescaledb') as timescaledb,
           current_setting('timescaledb.license', true) as license,
           to_regclass('log_writer._sqlx_migrations') is not null as migrated",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::during(attempted))?;
    let migrated: bool = row.try_get("migrated").map_err(StoreError::during(attempted))?;
    let schema_version = if migrated {
        sqlx::query_scalar("select max(version) from log_writer._sqlx_migrations where success")
            .fetch_one(connection)
            .await
            .map_err(StoreError::during(attempted))?
    } else {
        None
    };
    let license: Option<String> = row.try_get("license").map_err(StoreError::during(attempted))?;
    Ok(StoreStatus {
        postgres_version: row.try_get("postgres").map_err(StoreError::during(attempted))?,
        timescaledb_version: row.try_get("timescaledb").map_err(StoreError::during(attempted))?,
        edition: Edition::from_license(license.as_deref()),
        schema_version,
    })
}

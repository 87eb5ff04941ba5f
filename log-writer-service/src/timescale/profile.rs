//! How `application_logs` stores events: the database says it, and `migrate` makes it so while there are none.
//!
//! Whoever writes asks the database and not the configuration: replicas with different ones write alike.

use sqlx::{Connection, Executor, PgConnection, PgPool};

use super::{
    error::{StoreError, StoreErrorKind},
    limits::{ANSWER_TIMEOUT, on_pool, within},
    pool,
};
use crate::config::{Database, Profile};

/// How this database stores events.
///
/// # Errors
/// As any query.
pub async fn storage_profile(pool: &PgPool) -> Result<Profile, StoreError> {
    on_pool(pool, ANSWER_TIMEOUT, READ, read).await
}

/// Makes the database store events like this, with the owner's rights; whether it had to be changed.
///
/// # Errors
/// [`StoreErrorKind::Setup`] if it has events already and stores them otherwise, if its TimescaleDB cannot, or without
/// the rights.
pub async fn set_storage_profile(settings: &Database, profile: Profile) -> Result<bool, StoreError> {
    let attempted = "set the storage profile";
    let options = pool::connect_options(settings, "log-writer migrate")?;
    let mut connection = pool::connect(&options, settings.connect_timeout).await?;
    let setting = async {
        connection
            .execute("set lock_timeout = '10s'")
            .await
            .map_err(StoreError::during(attempted))?;
        let changed = sqlx::query_scalar("select log_writer.set_storage_profile($1)")
            .bind(profile.as_str())
            .fetch_one(&mut connection)
            .await
            .map_err(StoreError::during(attempted))?;
        connection.close().await.map_err(StoreError::during(attempted))?;
        Ok(changed)
    };
    within(ANSWER_TIMEOUT, attempted, setting).await
}

/// Prepares a connection that commits; how it is to store events.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<Profile, StoreError> {
    let profile = read(connection).await?;
    if profile == Profile::Columnar {
        // What PostgreSQL compresses once more is a sixth of the whole cost with pglz; not every server was built with
        // lz4. And the table's own choice of no segments holds for chunks that a COPY makes, too.
        connection
            .execute(
                "select set_config('default_toast_compression', 'lz4', false) from pg_settings
                 where name = 'default_toast_compression' and 'lz4' = any (enumvals);
                 set timescaledb.enable_direct_compress_auto_segmentby = off;
                 set timescaledb.enable_direct_compress_copy = on",
            )
            .await
            .map_err(StoreError::during("prepare a connection for the columnstore"))?;
    }
    Ok(profile)
}

const READ: &str = "read the storage profile";

async fn read(connection: &mut PgConnection) -> Result<Profile, StoreError> {
    let name: String = sqlx::query_scalar("select log_writer.storage_profile()")
        .fetch_one(connection)
        .await
        .map_err(StoreError::during(READ))?;
    match name.as_str() {
        "row" => Ok(Profile::Row),
        "columnar" => Ok(Profile::Columnar),
        other => Err(StoreError::own(
            StoreErrorKind::Setup,
            READ,
            format!("this version does not know {other}: use the version that made the database so"),
        )),
    }
}

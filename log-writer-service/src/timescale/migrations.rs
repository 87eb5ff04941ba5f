//! Brings the schema to what this version needs; the files stand in `migrations/` and are compiled in.
//!
//! Safe to run from several replicas at once: an advisory lock is held from before the first look until the end.
//! Migrations that this version does not know are a newer version's, and no reason to stop: during an upgrade both run.
//! What is not ours is never touched: a foreign `public.application_logs` stops it before anything is made.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use sqlx::{
    Connection, Executor, PgConnection, PgPool, Row,
    migrate::{Migrate, MigrateError, Migrator},
};

use super::{
    audit,
    error::{StoreError, StoreErrorKind},
    limits::{ANSWER_TIMEOUT, on_pool, within},
    pool,
    status::Edition,
};
use crate::{config::Database, failpoint::failpoint};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Held while migrating; `log_writ` in ASCII.
const LOCK: i64 = 0x6c6f_675f_7772_6974;

/// How long to wait for that lock or any other; then the caller hears of it and tries again.
const LOCK_TIMEOUT: &str = "10s";

/// How long a run may take: far above what any file in `migrations/` needs, each being a transaction that is repeated.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(1800);

/// What a migration run found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// Names of the migrations applied now, in order.
    pub applied: Vec<String>,
    /// How many were there already.
    pub already_there: usize,
    /// Which build of TimescaleDB the schema was made for.
    pub edition: Edition,
    /// Version of PostgreSQL.
    pub postgres_version: String,
    /// Version of the extension.
    pub timescaledb_version: String,
}

/// Applies what is missing.
///
/// # Errors
/// [`StoreErrorKind::Setup`] if TimescaleDB is not available, a table of that name is not ours, or rights are missing;
/// [`StoreErrorKind::LockTimeout`] while another migrator is at work.
///
/// # Crash safety
/// Each migration is one transaction; a killed run is taken up by the next one where it stopped.
pub async fn migrate(settings: &Database) -> Result<MigrationReport, StoreError> {
    let options = pool::connect_options(settings, "log-writer migrate")?;
    let mut connection = pool::connect(&options, settings.connect_timeout).await?;
    // Ends with the session, so a killed migrator leaves no lock behind.
    let attempted = "take the migration lock, which another migrator may hold";
    let lock = format!("set lock_timeout = '{LOCK_TIMEOUT}'; select pg_advisory_lock({LOCK})");
    within(ANSWER_TIMEOUT, attempted, execute(&mut connection, attempted, &lock)).await?;
    let migration = migrate_locked(&mut connection, settings);
    let report = within(MIGRATION_TIMEOUT, "migrate the database", migration).await?;
    let attempted = "close the migration's connection";
    let closing = async { connection.close().await.map_err(StoreError::during(attempted)) };
    within(ANSWER_TIMEOUT, attempted, closing).await?;
    Ok(report)
}

/// Names of the migrations that this version needs and the database lacks; for those who migrate by hand.
///
/// # Errors
/// As any query.
pub async fn pending_migrations(pool: &PgPool) -> Result<Vec<String>, StoreError> {
    let attempted = "look for pending migrations";
    let applied: Vec<i64> = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        let there: bool = sqlx::query_scalar("select to_regclass('log_writer._sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await
            .map_err(StoreError::during(attempted))?;
        if !there {
            return Ok(Vec::new());
        }
        sqlx::query_scalar("select version from log_writer._sqlx_migrations where success")
            .fetch_all(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(MIGRATOR
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .map(name_of)
        .collect())
}

async fn migrate_locked(connection: &mut PgConnection, settings: &Database) -> Result<MigrationReport, StoreError> {
    let versions = ensure_extension(connection).await?;
    execute(
        connection,
        "create schema log_writer",
        "create schema if not exists log_writer",
    )
    .await?;
    // The migration table has no schema in its name: it goes to the first of the path. TimescaleDB's own functions are
    // found in the second, wherever the extension stands.
    sqlx::query("select set_config('search_path', 'log_writer, ' || quote_ident($1), false), set_config('log_writer.chunk_interval', $2, false)")
        .bind(&versions.extension_schema)
        .bind(format!("{} microseconds", settings.chunk_interval.as_micros()))
        .execute(&mut *connection)
        .await
        .map_err(StoreError::during("prepare the migration's session"))?;

    connection
        .ensure_migrations_table()
        .await
        .map_err(StoreError::from_migration)?;
    let applied = apply_missing(connection).await.map_err(StoreError::from_migration)?;
    // At every run, so that one that was killed after its last migration is made up for.
    execute(
        connection,
        "give roles their rights",
        "select log_writer.apply_rights()",
    )
    .await?;
    execute(
        connection,
        "make the functions of tenants' roles anew",
        "select log_writer.remake_tenant_schemas()",
    )
    .await?;
    audit::set_retention(connection, settings.audit_retention).await?;
    if !applied.is_empty() {
        let (actor, target) = (audit::Actor::of_process(), serde_json::json!({ "applied": applied }));
        let count = i64::try_from(applied.len()).unwrap_or(i64::MAX);
        audit::record_in(
            &mut *connection,
            &actor,
            "migrate",
            &target,
            count,
            audit::ActionOutcome::Done,
        )
        .await?;
    }
    Ok(MigrationReport {
        already_there: MIGRATOR.iter().count() - applied.len(),
        applied,
        edition: versions.edition,
        postgres_version: versions.postgres,
        timescaledb_version: versions.timescaledb,
    })
}

/// Applies what is missing, one transaction for each migration and its record; their names.
async fn apply_missing(connection: &mut PgConnection) -> Result<Vec<String>, MigrateError> {
    let there: HashMap<i64, Cow<'static, [u8]>> = connection
        .list_applied_migrations()
        .await?
        .into_iter()
        .map(|applied| (applied.version, applied.checksum))
        .collect();
    // A newer version of the service has been here: what it adds leaves older ones working (migrations/README.md).
    let unknown = there
        .keys()
        .filter(|version| !MIGRATOR.version_exists(**version))
        .count();
    if unknown > 0 {
        tracing::info!(
            migrations.unknown = unknown,
            "the schema is newer than this version of the service, which goes on with it"
        );
    }
    let mut missing = Vec::new();
    for migration in MIGRATOR.iter() {
        match there.get(&migration.version) {
            Some(checksum) if *checksum != migration.checksum => {
                return Err(MigrateError::VersionMismatch(migration.version));
            }
            Some(_) => {}
            None => missing.push(migration),
        }
    }
    for migration in &missing {
        // What sqlx begins becomes a savepoint in it.
        let mut transaction = connection.begin().await?;
        transaction.apply(migration).await?;
        failpoint!("migration::before_commit");
        transaction.commit().await?;
        failpoint!("migration::after_commit");
    }
    Ok(missing.into_iter().map(name_of).collect())
}

struct Versions {
    postgres: String,
    timescaledb: String,
    extension_schema: String,
    edition: Edition,
}

async fn ensure_extension(connection: &mut PgConnection) -> Result<Versions, StoreError> {
    let attempted = "look for the extension timescaledb";
    let available: Option<(String, Option<String>)> = sqlx::query_as(
        "select default_version, installed_version from pg_available_extensions where name = 'timescaledb'",
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(StoreError::during(attempted))?;
    let Some((_, installed)) = available else {
        return Err(StoreError::own(
            StoreErrorKind::Setup,
            attempted,
            "the server has no extension timescaledb: install TimescaleDB for its PostgreSQL version and add \
             timescaledb to shared_preload_libraries",
        ));
    };
    if installed.is_none() {
        create_extension(connection).await?;
    }
    let row = sqlx::query(
        "select current_setting('server_version') as postgres, extversion, extnamespace::regnamespace::text as schema,
           current_setting('timescaledb.license', true) as license
         from pg_extension where extname = 'timescaledb'",
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::during(attempted))?;
    let text = |column: &str| row.try_get::<String, _>(column).map_err(StoreError::during(attempted));
    let license: Option<String> = row.try_get("license").map_err(StoreError::during(attempted))?;
    Ok(Versions {
        postgres: text("postgres")?,
        timescaledb: text("extversion")?,
        extension_schema: text("schema")?.trim_matches('"').to_owned(),
        edition: Edition::from_license(license.as_deref()),
    })
}

/// It is a trusted extension: who may create in the database may create it.
async fn create_extension(connection: &mut PgConnection) -> Result<(), StoreError> {
    let attempted = "create the extension timescaledb";
    match execute(connection, attempted, "create extension timescaledb").await {
        Err(error) if error.sqlstate() == Some("42501") => Err(StoreError::own(
            StoreErrorKind::Setup,
            attempted,
            "this role may not: run `create extension timescaledb` in this database as superuser or as owner of the \
             database, then migrate again",
        )),
        done => done,
    }
}

async fn execute(connection: &mut PgConnection, attempted: &'static str, sql: &str) -> Result<(), StoreError> {
    connection.execute(sql).await.map_err(StoreError::during(attempted))?;
    Ok(())
}

fn name_of(migration: &sqlx::migrate::Migration) -> String {
    format!("{} {}", migration.version, migration.description)
}

//! Connections: one place for what every session of ours has in common.

use std::{str::FromStr, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    error::StoreError,
    limits::{STATEMENT_TIMEOUT, within},
};
use crate::config::{Database, SynchronousCommit};

/// Application names of all sessions of the service begin so.
pub(super) const OUR_NAME: &str = "log-writer";
/// Application names of committers begin so; housekeeping knows frozen ones by it.
pub(super) const COMMITTER_NAME: &str = "log-writer committer";

/// A pool for everything but commits. Connects when first used, so the service starts without its store.
///
/// # Errors
/// [`super::StoreErrorKind::Setup`] if the URL cannot be read.
pub async fn connect_pool(settings: &Database) -> Result<PgPool, StoreError> {
    let options = connect_options(settings, OUR_NAME)?.options([("statement_timeout", STATEMENT_TIMEOUT)]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.pool_connections_max.max(1))
        .acquire_timeout(settings.connect_timeout)
        // In place of sqlx's ping: a session that turned read-only (a failover, a setting) is not used any more.
        .test_before_acquire(false)
        .before_acquire(|connection, _| {
            Box::pin(async move {
                sqlx::query_scalar("select current_setting('transaction_read_only') = 'off'")
                    .fetch_one(connection)
                    .await
            })
        })
        .connect_lazy_with(options))
}

/// Options of a session: its name, UTC, keepalives, and our own `synchronous_commit` whatever the server's default is.
pub(super) fn connect_options(settings: &Database, application_name: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(settings.url.expose_secret())
        .map_err(StoreError::during("read the database URL"))?;
    let synchronous_commit = match settings.synchronous_commit {
        SynchronousCommit::On => "on",
        SynchronousCommit::RemoteApply => "remote_apply",
        SynchronousCommit::RemoteWrite => "remote_write",
        SynchronousCommit::Local => "local",
        SynchronousCommit::OffAndAcceptLoss => "off",
    };
    Ok(options.application_name(application_name).options([
        ("synchronous_commit", synchronous_commit),
        ("timezone", "UTC"),
        // The server's side of the connection: after a minute it ends the session of a host that has vanished, and
        // with it the locks.
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ]))
}

/// Opens one connection.
///
/// # Errors
/// [`super::StoreErrorKind::Unavailable`] if that takes longer than `timeout`.
pub(super) async fn connect(options: &PgConnectOptions, timeout: Duration) -> Result<PgConnection, StoreError> {
    let attempted = "connect to PostgreSQL";
    let connecting = async {
        PgConnection::connect_with(options)
            .await
            .map_err(StoreError::during(attempted))
    };
    within(timeout, attempted, connecting)
        .await
        .map_err(StoreError::into_unavailable)
}

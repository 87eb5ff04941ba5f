//! The end of every wait for the server: a host that vanishes sends nothing, not even that it has gone.
//!
//! sqlx gives no TCP keepalives to its sockets, so all limits are ours. What runs into one takes its connection with it:
//! nobody knows what would come out of that next.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};

use super::error::{StoreError, StoreErrorKind};

/// How long one statement on a connection of the pool may take. The server's own limit: what we no longer wait for must
/// not wait there for a lock, session after session.
pub(super) const STATEMENT_TIMEOUT: &str = "30s";
/// How long an answer may take where no setting says otherwise: longer than that limit, which tells more.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// Runs work for so long and no longer.
///
/// # Errors
/// Of the work; [`StoreErrorKind::Timeout`] if the time is over. A connection lent to the work must then be dropped.
pub(super) async fn within<T>(
    limit: Duration,
    attempted: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(StoreError::own(
            StoreErrorKind::Timeout,
            attempted,
            format!("not done within {}", humantime::format_duration(limit)),
        ))
    })
}

/// Runs work on a connection of the pool, for so long and no longer once there is one.
///
/// The connection goes back only if it is known to be clean: not after a limit, not if the future is dropped. The pool
/// would take it back, wait for its answer, and have one less meanwhile.
///
/// # Errors
/// As [`within`]; [`StoreErrorKind::Unavailable`] if the pool has none in time.
pub(super) fn on_pool<T>(
    pool: &PgPool,
    limit: Duration,
    attempted: &'static str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> impl Future<Output = Result<T, StoreError>> {
    on_pool_unless(|_| false, pool, limit, attempted, work)
}

/// The same; the connection does not go back either where the work left something on it.
///
/// # Errors
/// As [`on_pool`].
pub(super) async fn on_pool_unless<T>(
    is_left: impl FnOnce(&T) -> bool,
    pool: &PgPool,
    limit: Duration,
    attempted: &'static str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let connection = pool.acquire().await.map_err(StoreError::during(attempted))?;
    let mut lent = Lent(Some(connection));
    let Some(connection) = lent.0.as_deref_mut() else {
        return Err(StoreError::own(StoreErrorKind::Other, attempted, "no connection"));
    };
    let outcome = within(limit, attempted, work(connection)).await;
    let is_clean = match &outcome {
        Ok(done) => !is_left(done),
        Err(error) => error.kind().keeps_connection(),
    };
    if is_clean {
        lent.give_back();
    }
    outcome
}

/// A connection that is closed when dropped, unless it was given back.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

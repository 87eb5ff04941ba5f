//! The end of the process, in this order: readiness, the listener, what was begun, tasks, claims and connections.
//!
//! | from the signal on | what happens |
//! |---|---|
//! | at once | `/ready` answers 503; everything else is served as before |
//! | after `http.shutdown_delay` | the listener closes, idle connections too; a request that still comes in is answered 503 |
//! | [`LAST_CALL`] before the end of `http.drain_timeout` | whatever is not answered yet is answered 503 |
//! | once all are answered | tasks end, claims are released |
//!
//! A second signal goes to the last call at once. A request that was answered 503 may be committed all the same, if its
//! transaction was begun: its sender sends it again, and its digest tells.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum_server::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{config, delivery::Delivery, ingest::Readiness, shutdown::Signals};

/// Time for the last tasks after the requests are answered, and then for the release of claims.
pub(super) const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last answers to reach their senders.
const LAST_CALL: Duration = Duration::from_secs(1);

/// What is to end before the tasks.
pub(super) struct Leave<'a> {
    pub(super) settings: &'a config::Http,
    pub(super) readiness: &'a Readiness,
    pub(super) handle: &'a Handle<SocketAddr>,
    /// Cancelled when every request is to be answered at once.
    pub(super) last_call: &'a CancellationToken,
}

impl Leave<'_> {
    /// Waits for a signal, or for a task that ended too early, and then for the requests in flight.
    pub(super) async fn when_told(&self, signals: &mut Signals, stopping: &CancellationToken) {
        let is_asked = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "shutting down");
                true
            }
            () = stopping.cancelled() => false,
        };
        self.readiness.set_stopping();
        let in_order = async {
            // A fault of its own: nobody was told before.
            if is_asked {
                sleep(self.settings.shutdown_delay).await;
            }
            self.readiness.set_closing();
            let patience = self.settings.drain_timeout.saturating_sub(LAST_CALL);
            self.until_no_connections(patience).await;
        };
        tokio::select! {
            () = in_order => {}
            signal = signals.next() => {
                tracing::warn!(signal, "a second signal: what is not answered yet is answered 503 now");
                self.readiness.set_closing();
            }
        }
        self.last_call.cancel();
        self.until_no_connections(LAST_CALL).await;
        let cut = self.handle.connection_count();
        if cut > 0 {
            tracing::warn!(connection.count = cut, "connections that took no answer are closed");
            self.handle.shutdown();
        }
    }

    /// Closes the listener and idle connections, waits for the others.
    async fn until_no_connections(&self, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            // Told again and again: a connection that was just being accepted does not hear it the first time.
            let left = until.saturating_duration_since(Instant::now());
            self.handle.graceful_shutdown(Some(left + LAST_CALL));
            if self.handle.connection_count() == 0 || left.is_zero() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Releases claims and connections. A server that is gone must not keep the process: both end by themselves.
pub(super) async fn stores(delivery: Option<Arc<Delivery>>, pool: &sqlx::PgPool) {
    let farewell = async {
        if let Some(delivery) = delivery {
            delivery.release().await;
        }
        pool.close().await;
    };
    if tokio::time::timeout(FINISH_TIMEOUT, farewell).await.is_err() {
        tracing::warn!("PostgreSQL did not answer at the end; claims end with their lease");
    }
}

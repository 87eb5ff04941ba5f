//! The real binary between real stores: what it promises, seen from outside.
//!
//! In the order of an event's way: what is taken and stored (`recordings`, `odd_events`), how requests are answered (`answers`) and what they may hold (`memory`),
//! when documents can be found (`searchable`) and changed (`replaced`), what a crash or an absent store costs (`crashes`), and what the
//! service makes of the cluster's templates (`templates`), who gets in (`credentials`, `tls`), what the database's roles may do (`roles`), the other commands
//! (`commands`, `archive`), events in columns (`columns`), questions about what is stored (`questions`, on a week of logs in `demo`), also by the Model Context Protocol (`agents`), and what
//! Vector's own programs send (`vector_programs`). `fake_is_real` holds the fake of the system suite to what
//! the real server does.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a broken expectation is a failed test; tasks end with it"
)]

mod agents;
mod answers;
mod archive;
mod columns;
mod commands;
mod crashes;
mod credentials;
mod demo;
mod events;
mod fake_is_real;
mod least_rights;
mod memory;
mod odd_events;
mod postgres_tls;
mod questions;
mod recordings;
mod replaced;
mod roles;
mod searchable;
mod secrets;
mod signed_tokens;
mod strangers;
mod templates;
mod tenants;
mod tls;
mod vector_programs;

use log_writer_tests::{
    invariants::assert_delivered_exactly_once,
    rows::StoredRow,
    service::{Service, Settings},
    stack::{Database, Stream},
};

/// A service between a database and a data stream of its own.
///
/// The order of the members is the order in which they end: first who writes, then what was written.
#[derive(Debug)]
struct RealStores {
    service: Service,
    stream: Stream,
    database: Database,
}

impl RealStores {
    /// With the defaults of the tests.
    async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    /// With further settings.
    async fn start_with(set: impl FnOnce(Settings) -> Settings) -> Self {
        let (database, stream) = (Database::create().await, Stream::create().await);
        let settings = set(Settings::new(database.url(), stream.search.url(), &stream.tenant));
        let service = Service::start(settings).await;
        Self {
            service,
            stream,
            database,
        }
    }

    /// Waits until everything is delivered and compares both stores.
    async fn assert_delivered_exactly_once(&self, acknowledged: u64) -> Vec<StoredRow> {
        self.service.until_delivered().await;
        let documents = self.stream.search.documents(&self.stream.name()).await;
        assert_delivered_exactly_once(&self.service, &self.database, &documents, acknowledged).await
    }
}

//! Start, stop and upgrade: what a process does when it is told to end, when its stores are not there yet, not right or
//! newer than it, and while replicas are exchanged under load.
//!
//! `stop`: SIGTERM, whatever hangs. `start`: any order, wrong stores, many at once. `upgrade`: a rolling restart, another
//! version's schema. Other suites hold more of it: `crash_points/commands.rs` kills migrations and bootstraps,
//! `e2e/crashes.rs` has absent stores, `e2e/templates.rs` foreign objects, `system/replicas.rs` frozen replicas.

mod start;
mod stop;
mod upgrade;

use chrono::Utc;
use log_writer_tests::{
    invariants::assert_delivered_exactly_once,
    proxy::Proxy,
    service::{Service, Settings},
    stack::{Database, Stream},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Real stores behind proxies, and how a service between them is set.
#[derive(Debug)]
struct Stores {
    postgres: Proxy,
    elasticsearch: Proxy,
    stream: Stream,
    database: Database,
}

impl Stores {
    async fn create() -> Self {
        let (database, stream) = (Database::create().await, Stream::create().await);
        Self {
            postgres: Proxy::start(&database.address()).await,
            elasticsearch: Proxy::start(&stream.address()).await,
            stream,
            database,
        }
    }

    fn settings(&self) -> Settings {
        let elasticsearch = format!("http://{}", self.elasticsearch.address());
        Settings::new(
            &self.database.url_by(self.postgres.address()),
            &elasticsearch,
            &self.stream.tenant,
        )
        .set("http.drain_timeout", "3s")
    }

    /// Past the proxies.
    fn direct(&self) -> Settings {
        Settings::new(self.database.url(), self.stream.search.url(), &self.stream.tenant)
    }

    async fn assert_delivered_exactly_once(&self, service: &Service, acknowledged: u64) {
        service.until_delivered().await;
        let documents = self.stream.search.documents(&self.stream.name()).await;
        assert_delivered_exactly_once(service, &self.database, &documents, acknowledged).await;
    }
}

/// Events with ids and times of just now.
fn fresh(count: usize) -> Value {
    let events = (0..count).map(|number| {
        json!({ "event_id": Uuid::now_v7(), "timestamp": Utc::now().to_rfc3339(), "service": "lifecycle",
            "message": format!("event {number}") })
    });
    Value::Array(events.collect())
}

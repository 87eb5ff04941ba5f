//! What Elasticsearch being away costs: ingest meanwhile, memory, and how fast the backlog drains afterwards.
//!
//! A service of its own, between a database and a data stream of its own; a proxy before Elasticsearch refuses
//! connections for as long as it is "down". [`load`] sends events, [`plain`] is what draining is compared with.

pub mod load;
pub mod plain;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use self::load::Rate;
use crate::{
    process::{Process, Watch},
    proxy::{Mode, Proxy},
    service::{Service, Settings},
    stack::{Database, Stream},
};

/// Everything of a run.
#[derive(Debug)]
pub struct Arena {
    service: Service,
    proxy: Proxy,
    /// Where the documents go.
    pub stream: Stream,
    database: Database,
}

/// How a backlog drained.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// Documents indexed, those of live traffic too.
    pub documents: u64,
    /// From the first document that was indexed again.
    pub took: Duration,
    /// From the end of the outage to that.
    pub noticed: Duration,
}

impl Arena {
    /// Starts a service of this program with the default settings of delivery.
    pub async fn start(program: &Path, database_url: &str, elasticsearch_url: &str) -> Self {
        let (database, stream) = (Database::create_on(database_url).await, Stream::on(elasticsearch_url));
        let proxy = Proxy::start(&stream.address()).await;
        let settings = Settings::new(database.url(), &format!("http://{}", proxy.address()), &stream.tenant)
            .set("delivery.lease", "30s")
            .set("delivery.renew_every", "10s")
            .set("delivery.poll_every", "1s")
            .set("delivery.retry_min", "500ms")
            .set("delivery.retry_max", "30s")
            .set("log.filter", "info")
            .program(program);
        let service = Service::start(settings).await;
        Self {
            service,
            proxy,
            stream,
            database,
        }
    }

    /// Takes Elasticsearch away, or gives it back.
    pub fn set_down(&self, is_down: bool) {
        self.proxy.set(if is_down { Mode::Refuse } else { Mode::Forward });
    }

    /// Sends events at full rate; events a second.
    ///
    /// # Errors
    /// If an answer is another than 200, 429 and 503.
    pub async fn send(&self, events: u64, connections: usize) -> anyhow::Result<f64> {
        load::send(self.service.address(), events, connections, Rate::Full).await
    }

    /// Sends so many events a second for so long; events a second.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_slowly(&self, rate: u64, time: Duration) -> anyhow::Result<f64> {
        let events = rate * time.as_secs();
        load::send(self.service.address(), events, 1, Rate::PerSecond(rate)).await
    }

    /// Watches the service's memory until it is dropped.
    #[must_use]
    pub fn watch_memory(&self) -> Watch {
        Process::of(self.service.pid()).watch_memory()
    }

    /// Events that wait for Elasticsearch, and those that it has: by the books, which are a few rows. To ask the service would
    /// have it count the outbox, ten times a second, on the processors that are measured.
    ///
    /// # Panics
    /// If the books cannot be read.
    pub async fn outstanding_and_indexed(&self) -> (u64, u64) {
        let query = "select coalesce(sum(mirrored - indexed - index_dead_lettered - expired), 0)::bigint, \
            coalesce(sum(indexed), 0)::bigint from log_writer.books";
        let (outstanding, indexed): (i64, i64) = sqlx::query_as(query)
            .fetch_one(self.database.pool())
            .await
            .expect("the books can be read");
        let events = |sum: i64| u64::try_from(sum).expect("books are not negative");
        (events(outstanding), events(indexed))
    }

    /// Gives Elasticsearch back and waits until nothing is left to deliver, or no more than `left`.
    pub async fn drain(&self, left: u64) -> Drained {
        let (_, before) = self.outstanding_and_indexed().await;
        let start = Instant::now();
        self.set_down(false);
        let mut first = None;
        loop {
            let (outstanding, indexed) = self.outstanding_and_indexed().await;
            let (begun, at_first) = match first {
                None if indexed == before => (Instant::now(), indexed),
                None => *first.insert((Instant::now(), indexed)),
                Some(begun) => begun,
            };
            if outstanding <= left && (first.is_some() || outstanding == 0) {
                return Drained {
                    documents: indexed - at_first,
                    took: begun.elapsed(),
                    noticed: begun.duration_since(start),
                };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends `rate` events a second until dropped, and one a second of its own whose way is measured: from its answer
    /// until a search finds it.
    pub async fn watch_live_events(&self, rate: u64, lags: &std::sync::Mutex<Vec<Duration>>) {
        let live = load::send(self.service.address(), u64::MAX, 1, Rate::PerSecond(rate));
        let sampled = async {
            loop {
                let id = Uuid::now_v7();
                self.service
                    .ingest(&json!([{ "event_id": id, "service": "live", "message": "how long until it is found" }]))
                    .await;
                let answered = Instant::now();
                let query: Value = json!({ "term": { "event.id": id } });
                while self.stream.search.count(&self.stream.name(), &query).await == 0 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                lags.lock().expect("not poisoned").push(answered.elapsed());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            sent = live => panic!("live traffic ended: {sent:?}"),
            () = sampled => {}
        }
    }

    /// Events in the database.
    pub async fn stored(&self) -> i64 {
        self.database
            .number("select count(*) from public.application_logs")
            .await
    }
}

impl Drained {
    /// Documents a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
    pub fn rate(&self) -> f64 {
        self.documents as f64 / self.took.as_secs_f64()
    }
}

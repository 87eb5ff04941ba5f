//! `GET /api/v1/status`: the same facts as the metrics, in JSON, for people and scripts.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

use crate::{
    ingest::{Ingestor, Readiness},
    timescale::{Backlog, Books, LetterTotals, Monitor, StoreError, StoreStatus},
};

/// How long PostgreSQL is asked for the status: it is answered within a second, with what is known by then.
const STATUS_LIMIT: Duration = Duration::from_millis(500);
/// How long it is asked for metrics, which are scraped every ten seconds and more.
const METRICS_LIMIT: Duration = Duration::from_secs(5);

/// What is known of the mirror in Elasticsearch.
#[derive(Debug, Clone, Serialize)]
pub struct MirrorStatus {
    /// Whether events are mirrored at all.
    pub enabled: bool,
    /// Whether policy, templates and mapping are in place.
    pub bootstrapped: bool,
    /// What stands in the way now, if anything.
    pub problem: Option<String>,
    /// Version of the cluster; absent until it was reached.
    pub version: Option<String>,
}

/// Tells the mirror's state; made by `app`, so that nothing here knows delivery.
pub type MirrorProbe = Arc<dyn Fn() -> MirrorStatus + Send + Sync>;

/// How the archive of dropped events stands, in this process.
#[derive(Debug, Clone, Serialize)]
pub struct ArchiveStatus {
    /// Whether events are archived before they are dropped.
    pub enabled: bool,
    /// What stood in the way at the last look, if anything: nothing is dropped then.
    pub problem: Option<String>,
    /// When it was last looked for what is due.
    pub looked_at: Option<DateTime<Utc>>,
}

/// Tells the archive's state.
pub type ArchiveProbe = Arc<dyn Fn() -> ArchiveStatus + Send + Sync>;

/// Where status and metrics get their facts.
#[derive(Clone)]
pub struct Observatory {
    /// The requests in flight.
    pub ingestor: Ingestor,
    /// Whether batches can be committed.
    pub readiness: Readiness,
    /// The books and the backlog.
    pub monitor: Monitor,
    /// The mirror.
    pub mirror: MirrorProbe,
    /// The archive.
    pub archive: ArchiveProbe,
    /// What was counted.
    pub prometheus: PrometheusHandle,
    /// `database.dead_letters_rows_max`.
    pub letters_max: usize,
}

impl fmt::Debug for Observatory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Observatory").finish_non_exhaustive()
    }
}

/// The body of `/api/v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Version of the service.
    pub version: &'static str,
    /// Whether batches can be committed.
    pub ready: bool,
    /// Why not.
    pub problem: Option<String>,
    /// Requests in flight.
    pub inflight: Inflight,
    /// The books over all replicas and restarts; absent while PostgreSQL does not answer.
    pub books: Option<BooksStatus>,
    /// What waits for Elasticsearch; absent while PostgreSQL does not answer.
    pub backlog: Option<BacklogStatus>,
    /// Dead letters that wait for somebody, by stage; absent while PostgreSQL does not answer.
    pub dead_letters: Option<LetterTotals>,
    /// The mirror.
    pub elasticsearch: MirrorStatus,
    /// The archive.
    pub archive: ArchiveStatus,
    /// Versions and edition; absent while PostgreSQL does not answer.
    pub postgres: Option<StoreStatus>,
    /// What PostgreSQL did not tell in time, and why; empty if all is known.
    pub unknown: Vec<String>,
    /// What `/metrics` shows of this process, without the buckets of histograms: durations in seconds, requests by answer.
    pub metrics: BTreeMap<String, f64>,
}

/// Requests in flight.
#[derive(Debug, Serialize)]
pub struct Inflight {
    /// Bytes held.
    pub bytes: usize,
    /// `http.inflight_bytes_max`.
    pub bytes_max: usize,
    /// Requests that wait for a committer.
    pub waiting: usize,
    /// Requests that wait in the late lane.
    pub waiting_late: usize,
}

/// The books, and whether they balance.
#[derive(Debug, Serialize)]
pub struct BooksStatus {
    /// The accounts, in events.
    #[serde(flatten)]
    pub accounts: Books,
    /// Events that wait in the outbox.
    pub outstanding: i64,
    /// Whether both equations hold.
    pub balanced: bool,
}

/// What waits for Elasticsearch.
#[derive(Debug, Serialize)]
pub struct BacklogStatus {
    /// Outbox rows.
    pub rows: i64,
    /// Events.
    pub events: i64,
    /// Encoded bytes.
    pub bytes: i64,
    /// Age of the oldest row in seconds; 0 if none waits.
    pub oldest_seconds: f64,
}

impl Observatory {
    /// Looks at everything once. What PostgreSQL can't tell now is absent, and named.
    pub async fn status(&self) -> Status {
        self.refresh_process_metrics();
        let (store, letters, versions) = tokio::join!(
            self.monitor.snapshot(STATUS_LIMIT),
            self.monitor.letters(STATUS_LIMIT),
            self.monitor.status(STATUS_LIMIT),
        );
        let mut unknown = Vec::new();
        let store = known(store, &mut unknown);
        let (waiting, waiting_late) = self.ingestor.waiting();
        let admission = self.ingestor.admission();
        let problem = self.readiness.problem();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            ready: problem.is_none(),
            problem,
            inflight: Inflight {
                bytes: admission.held(),
                bytes_max: admission.limit(),
                waiting,
                waiting_late,
            },
            books: store.as_ref().map(|store| books(&store.books, &store.backlog)),
            backlog: store.as_ref().map(|store| backlog(&store.backlog)),
            dead_letters: known(letters, &mut unknown),
            elasticsearch: (self.mirror)(),
            archive: (self.archive)(),
            postgres: known(versions, &mut unknown),
            unknown,
            metrics: super::metric::series(&self.prometheus.render()),
        }
    }

    /// Brings the gauges up to date before they are rendered.
    pub async fn refresh_metrics(&self) {
        self.refresh_process_metrics();
        let (store, letters) = tokio::join!(
            self.monitor.snapshot(METRICS_LIMIT),
            self.monitor.letters(METRICS_LIMIT),
        );
        if let Ok(store) = store {
            super::metric::store(&store.books, &store.backlog);
        }
        if let Ok(letters) = letters {
            super::metric::letters(&letters, self.letters_max);
        }
    }

    fn refresh_process_metrics(&self) {
        let admission = self.ingestor.admission();
        let mirror = (self.mirror)();
        let mirror_ready = !mirror.enabled || mirror.bootstrapped && mirror.problem.is_none();
        super::metric::process(
            self.readiness.problem().is_none(),
            mirror_ready,
            admission.held(),
            admission.limit(),
            self.ingestor.waiting(),
        );
    }
}

fn known<T>(answer: Result<T, StoreError>, unknown: &mut Vec<String>) -> Option<T> {
    answer.map_err(|error| unknown.push(error.to_string())).ok()
}

fn books(books: &Books, backlog: &Backlog) -> BooksStatus {
    BooksStatus {
        balanced: books.balance(backlog.events),
        accounts: *books,
        outstanding: backlog.events,
    }
}

fn backlog(backlog: &Backlog) -> BacklogStatus {
    BacklogStatus {
        rows: backlog.rows,
        events: backlog.events,
        bytes: backlog.bytes,
        oldest_seconds: backlog.oldest.map_or(0.0, |age| age.as_secs_f64()),
    }
}

//! Composition root: builds every part, starts it in order, ends it in order.
//!
//! The listener comes first, so that health checks are answered while the stores are still away; PostgreSQL is waited for in the
//! background, Elasticsearch too. How it ends: `leave`.

mod archiving;
mod keys;
mod leave;
mod questions;
mod upkeep;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum_server::Handle;
use secrecy::ExposeSecret;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::questions::lone_asker;
use self::{
    keys::Keys,
    leave::{FINISH_TIMEOUT, Leave},
};
use crate::{
    config::{Config, url_without_secrets},
    delivery::{BulkLimits, Delivery, Mirror, MirrorState, Parts},
    elasticsearch::{Client, DocumentWriter, Targets},
    http::{self, AppState},
    ingest::{Ingestor, Patterns, Readiness, Redecoder},
    memory,
    shutdown::{Signals, Tasks},
    telemetry::{
        metric,
        status::{MirrorProbe, MirrorStatus, Observatory},
        summary,
    },
    timescale::{self, Monitor, Outbox, StoreError, StoreErrorKind},
    verify::Verifier,
};

/// Pauses between attempts to prepare the database: the first, doubled up to the last.
const PREPARE_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// If it can't listen, if a client for a store can't be made from the configuration, or if a task ended before it should.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    // From here on they no longer end the process by themselves.
    let mut signals = Signals::listen().context("listening for signals")?;
    let prometheus = metric::install().context("installing the metrics recorder")?;
    let keys = Keys::open(&config)?;
    // From here on the signal no longer ends the process.
    let hangups = keys.is_any().then(|| signal(SignalKind::hangup())).transpose();
    let hangups = hangups.context("listening for SIGHUP")?;
    let served = http::listen(&config.http, keys.tls.clone())
        .with_context(|| format!("listening on http.listen = {}", config.http.listen))?;
    tracing::info!(address = %served.address, version = env!("CARGO_PKG_VERSION"), "listening");
    summary::show_on_a_terminal(&config, served.address);

    let tasks = Tasks::default();
    let readiness = Readiness::default();
    let pool = timescale::connect_pool(&config.database).await?;
    let archive = archiving::ArchiveState::new(&config);
    let mirror = MirrorParts::new(&config)?;
    let targets = mirror.as_ref().map(|mirror| mirror.targets.clone());
    let ingestor = Ingestor::new(&config, targets, readiness.clone(), keep_patterns(&pool, &tasks))?;
    let searched = mirror.as_ref().map(MirrorParts::searched);
    let delivery = mirror.map(|mirror| mirror.delivery(&config, &pool, &tasks));
    let asker = questions::asker(&config, &pool, searched, mirror_probe(delivery.clone()))?;
    let (handle, last_call) = (Handle::new(), CancellationToken::new());
    let router = http::router(AppState {
        observatory: Observatory {
            ingestor: ingestor.clone(),
            readiness: readiness.clone(),
            monitor: Monitor::new(pool.clone()),
            mirror: mirror_probe(delivery.clone()),
            archive: archive.probe(),
            prometheus: prometheus.clone(),
            letters_max: config.database.dead_letters_rows_max,
        },
        settings: config.http.clone(),
        credentials: keys.credentials.clone(),
        needs_certificate: config.tls.enabled && config.tls.client_ca_file.is_some(),
        asker,
        last_call: last_call.clone(),
        allowed_hosts: config.api.allowed_hosts.clone(),
    });
    if let Some(hangups) = hangups {
        tasks.spawn("keys", keys.keep(hangups, tasks.stopping()));
    }
    spawn_server(&tasks, served, router, &handle);
    let admission = ingestor.admission().clone();
    tasks.spawn("memory", memory::keep_nothing_while_scarce(admission, tasks.stopping()));
    tasks.spawn("metrics upkeep", upkeep(prometheus, tasks.clone()));
    let store = Store {
        config: config.clone(),
        pool: pool.clone(),
        ingestor,
        delivery: delivery.clone(),
        readiness: readiness.clone(),
        tasks: tasks.clone(),
        archive,
    };
    tasks.spawn("store", store.run());

    let leave = Leave {
        settings: &config.http,
        readiness: &readiness,
        handle: &handle,
        last_call: &last_call,
    };
    leave.when_told(&mut signals, &tasks.stopping()).await;
    tasks.stop();
    let finished = tasks.finish(FINISH_TIMEOUT).await;
    leave::stores(delivery, &pool).await;
    finished.map_err(anyhow::Error::msg)?;
    tracing::info!("stopped");
    Ok(())
}

/// What mirroring to Elasticsearch needs; absent when it is off.
struct MirrorParts {
    client: Client,
    targets: Targets,
    documents: DocumentWriter,
}

impl MirrorParts {
    fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        if !config.elasticsearch.enabled {
            return Ok(None);
        }
        let settings = &config.elasticsearch;
        Ok(Some(Self {
            client: Client::new(settings).context("preparing the client for Elasticsearch")?,
            targets: targets_of(config)?,
            documents: DocumentWriter::new(settings)?,
        }))
    }

    /// What finds text in it.
    fn searched(&self) -> (Client, Targets) {
        (self.client.clone(), self.targets.clone())
    }

    fn delivery(self, config: &Config, pool: &sqlx::PgPool, tasks: &Tasks) -> Arc<Delivery> {
        let mirror = Mirror::new(&config.elasticsearch);
        let keeper =
            mirror
                .clone()
                .keep_bootstrapped(self.client.clone(), config.elasticsearch.clone(), tasks.stopping());
        tasks.spawn("bootstrap", keeper);
        Arc::new(Delivery::new(Parts {
            outbox: Outbox::new(pool.clone()),
            client: self.client,
            documents: self.documents,
            targets: self.targets,
            settings: config.delivery.clone(),
            limits: BulkLimits {
                documents: config.elasticsearch.bulk_documents_max,
                bytes: config.elasticsearch.bulk_bytes_max,
            },
            mirror,
            drain: FINISH_TIMEOUT / 2,
        }))
    }
}

/// Starts the task that notes kinds of messages.
fn keep_patterns(pool: &sqlx::PgPool, tasks: &Tasks) -> Patterns {
    let (patterns, new_patterns) = Patterns::new();
    tasks.spawn("patterns", new_patterns.keep(pool.clone(), tasks.stopping()));
    patterns
}

fn targets_of(config: &Config) -> anyhow::Result<Targets> {
    Ok(Targets::new(&config.elasticsearch, &config.events.default_tenant)?
        .with_tenants(config.events.body_tenants.iter().map(String::as_str))?)
}

/// What decodes dead letters as the service would decode a request now.
///
/// # Errors
/// If the configuration names no usable targets or aliases.
pub fn redecoder(config: &Config) -> anyhow::Result<Redecoder> {
    Ok(Redecoder::new(config, targets(config)?)?)
}

/// Where events go in Elasticsearch; `None` if nowhere.
///
/// # Errors
/// If the configuration names no usable targets.
pub fn targets(config: &Config) -> anyhow::Result<Option<Targets>> {
    config.elasticsearch.enabled.then(|| targets_of(config)).transpose()
}

/// What compares both stores, as the service names what it writes.
///
/// # Errors
/// If the configuration names no usable stores or targets.
pub fn verifier(config: &Config) -> anyhow::Result<Verifier> {
    Ok(Verifier::new(config, targets_of(config)?)?)
}

fn mirror_probe(delivery: Option<Arc<Delivery>>) -> MirrorProbe {
    Arc::new(move || match &delivery {
        None => MirrorStatus {
            enabled: false,
            bootstrapped: false,
            problem: None,
            version: None,
        },
        Some(delivery) => match delivery.mirror_state() {
            MirrorState::Waiting(problem) => MirrorStatus {
                enabled: true,
                bootstrapped: false,
                problem: Some(problem),
                version: delivery.cluster_version(),
            },
            MirrorState::Ready => {
                let problems = delivery.problems();
                let problem = (!problems.is_empty()).then(|| problems.join("; "));
                MirrorStatus {
                    enabled: true,
                    bootstrapped: true,
                    problem,
                    version: delivery.cluster_version(),
                }
            }
        },
    })
}

fn spawn_server(tasks: &Tasks, served: http::Served, router: axum::Router, handle: &Handle<SocketAddr>) {
    let (handle, stopping) = (handle.clone(), tasks.stopping());
    tasks.spawn("http", async move {
        if let Err(error) = served.run(router, handle).await {
            tracing::error!(%error, "the listener broke");
            return;
        }
        // Told to shut down: the process follows.
        stopping.cancelled().await;
    });
}

async fn upkeep(prometheus: metrics_exporter_prometheus::PrometheusHandle, tasks: Tasks) {
    let stopping = tasks.stopping();
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => prometheus.run_upkeep(),
            () = stopping.cancelled() => return,
        }
    }
}

/// What works on PostgreSQL: prepared first, then committers, delivery and housekeeping.
struct Store {
    config: Config,
    pool: sqlx::PgPool,
    ingestor: Ingestor,
    delivery: Option<Arc<Delivery>>,
    readiness: Readiness,
    tasks: Tasks,
    archive: archiving::ArchiveState,
}

impl Store {
    async fn run(self) {
        let stopping = self.tasks.stopping();
        let bare_tenant = tokio::select! {
            bare_tenant = self.prepare() => bare_tenant,
            () = stopping.cancelled() => return,
        };
        let instance = instance();
        let committed = Arc::new(Notify::new());
        self.ingestor
            .spawn_committers(&self.tasks, &self.config.database, &instance, &committed);
        if let Some(delivery) = &self.delivery {
            delivery.spawn(&self.tasks, &instance, &bare_tenant, &committed);
        }
        tokio::select! {
            () = self.keep_house() => {}
            () = archiving::archive(self.config.clone(), self.archive.clone()) => {}
            () = stopping.cancelled() => {}
        }
    }

    /// Migrates, or checks that somebody has, until it succeeds; the tenant that is not mixed into documents' ids.
    async fn prepare(&self) -> Arc<str> {
        let mut pause = PREPARE_PAUSE.0;
        loop {
            match self.prepare_once().await {
                Ok(Ok(bare_tenant)) => {
                    self.readiness.set_ready();
                    return bare_tenant;
                }
                Ok(Err(problem)) => self.readiness.set_problem(&problem),
                Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                    let server = url_without_secrets(self.config.database.url.expose_secret());
                    self.readiness.set_problem(&format!(
                        "{error}; PostgreSQL is expected at {server}: start it (`make up` starts one), or name yours in DATABASE_URL"
                    ));
                }
                Err(error) => self.readiness.set_problem(&error.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PREPARE_PAUSE.1);
        }
    }

    async fn prepare_once(&self) -> Result<Result<Arc<str>, String>, StoreError> {
        if let Some(problem) = self.prepare_schema().await? {
            return Ok(Err(problem));
        }
        if let Some(problem) = self.prepare_profile().await? {
            return Ok(Err(problem));
        }
        self.ingestor.clock().look(&self.pool).await?;
        timescale::bare_tenant(&self.pool, &self.config.events.default_tenant)
            .await
            .map(Ok)
    }

    /// Makes an empty database store events as configured; one that has some must do so already.
    async fn prepare_profile(&self) -> Result<Option<String>, StoreError> {
        let configured = self.config.storage.profile;
        let present = timescale::storage_profile(&self.pool).await?;
        if present != configured && self.config.database.migrate_on_start {
            timescale::set_storage_profile(&self.config.database, configured).await?;
        } else if present != configured {
            return Ok(Some(format!(
                "the storage profile of the database is {present}, storage.profile says {configured}, and \
                 database.migrate_on_start is off: run `log-writer-service migrate`, or set storage.profile = {present}"
            )));
        }
        tracing::info!(storage.profile = %configured, "events are stored");
        Ok(None)
    }

    async fn prepare_schema(&self) -> Result<Option<String>, StoreError> {
        if self.config.database.migrate_on_start {
            let report = timescale::migrate(&self.config.database).await?;
            tracing::info!(
                migrations.applied = report.applied.len(),
                migrations.already_there = report.already_there,
                timescaledb.version = report.timescaledb_version,
                timescaledb.edition = %report.edition,
                postgres.version = report.postgres_version,
                "the schema is up to date"
            );
            return Ok(None);
        }
        let pending = timescale::pending_migrations(&self.pool).await?;
        Ok((!pending.is_empty()).then(|| {
            format!(
                "migrations are missing and database.migrate_on_start is off: {}; run `log-writer-service migrate`",
                pending.join(", ")
            )
        }))
    }
}

/// Names this process in the books and in `pg_stat_activity`: host, process, and what tells two starts apart.
#[must_use]
pub fn instance() -> String {
    let host = gethostname::gethostname()
        .to_string_lossy()
        .chars()
        .take(20)
        .collect::<String>();
    // Hosts may be alike so far, and their processes: of the replicas of one deployment, say.
    let random = Uuid::new_v4().as_fields().0;
    format!("{host}/{}/{random:08x}", std::process::id())
}

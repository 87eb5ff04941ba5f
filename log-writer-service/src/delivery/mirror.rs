//! Whether Elasticsearch is prepared for us: templates and policy in place, nobody else's in the way.
//!
//! The bootstrap runs in the background until it succeeds; delivery waits for it, ingest never does. It runs again when a
//! stream cannot be made for want of its template. Then only that stream waits: what is written to now has all it needs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    elasticsearch::{BootstrapMode, Client, bootstrap},
};

/// Pauses between attempts to bootstrap: the first, doubled up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What is known of the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorState {
    /// Documents can be sent.
    Ready,
    /// They can't, because of this.
    Waiting(String),
}

/// Shared knowledge of the mirror's state.
#[derive(Debug, Clone)]
pub struct Mirror(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `elasticsearch.bootstrap`: whether templates are applied by the service.
    applies: bool,
    state: Mutex<MirrorState>,
    /// What stood in the way when they were applied again.
    trouble: Mutex<Option<String>>,
    version: Mutex<Option<String>>,
    changed: Notify,
    again: Notify,
}

impl Mirror {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: &config::Elasticsearch) -> Self {
        let state = Mutex::new(MirrorState::Waiting(
            "templates and policy are not applied yet".to_owned(),
        ));
        Self(Arc::new(Shared {
            applies: settings.bootstrap,
            state,
            trouble: Mutex::default(),
            version: Mutex::default(),
            changed: Notify::new(),
            again: Notify::new(),
        }))
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> MirrorState {
        lock(&self.0.state).clone()
    }

    /// Version of the cluster, once it was reached.
    pub(super) fn cluster_version(&self) -> Option<String> {
        lock(&self.0.version).clone()
    }

    /// A stream could not be made for want of its template: has ours applied again, and says what is wrong and to be done.
    ///
    /// `ours` is the pattern of the names that this configuration makes, where they have one.
    pub(super) fn template_missing(&self, target: &str, ours: Option<&str>) -> String {
        let missing = "no index template makes it";
        let other = ours.filter(|ours| !target.starts_with(ours.trim_end_matches('*')));
        if let Some(ours) = other {
            return format!(
                "{missing}, and ours makes `{ours}`: its events were committed with another elasticsearch.dataset or \
                 elasticsearch.naming; run the service with that one until they are delivered"
            );
        }
        if !self.0.applies {
            return format!("{missing}, and elasticsearch.bootstrap is off: run `log-writer-service bootstrap`");
        }
        self.0.again.notify_one();
        match &*lock(&self.0.trouble) {
            None => format!(
                "{missing}: policy and templates are applied again; if it stays so, see what `action.auto_create_index` forbids"
            ),
            Some(trouble) => format!("{missing}, and ours can't be applied again: {trouble}"),
        }
    }

    /// Waits until documents can be sent.
    pub(super) async fn wait_until_ready(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Registered before the state is read, so that a change in between is not missed.
            changed.as_mut().enable();
            if self.state() == MirrorState::Ready {
                return;
            }
            changed.await;
        }
    }

    /// Applies templates and policy until they are in place, and again when asked; ends with the process.
    pub async fn keep_bootstrapped(self, client: Client, settings: config::Elasticsearch, stopping: CancellationToken) {
        let mut pause = PAUSE.0;
        loop {
            let problem = tokio::select! {
                problem = self.attempt(&client, &settings) => problem,
                () = stopping.cancelled() => return,
            };
            let wait = match problem {
                Some(problem) if self.state() != MirrorState::Ready => {
                    self.set(MirrorState::Waiting(problem));
                    pause = (pause * 2).min(PAUSE.1);
                    Some(pause)
                }
                // The stream that is in want asks again when it is tried again.
                trouble => {
                    *lock(&self.0.trouble) = trouble;
                    self.set(MirrorState::Ready);
                    None
                }
            };
            tokio::select! {
                () = self.0.again.notified() => {}
                () = sleep_or_forever(wait) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// One bootstrap; what stands in the way, if anything does.
    async fn attempt(&self, client: &Client, settings: &config::Elasticsearch) -> Option<String> {
        if !settings.bootstrap {
            // The operator applies them; `require_data_stream` keeps a missing template from doing harm.
            return None;
        }
        match bootstrap(client, settings, BootstrapMode::Apply).await {
            Ok(report) => {
                *lock(&self.0.version) = Some(report.cluster.version.clone());
                let changes = report.changes();
                if !changes.is_empty() {
                    tracing::info!(objects = changes.join(", "), "applied what elasticsearch lacked");
                }
                (!report.is_ready()).then(|| {
                    report
                        .problem()
                        .unwrap_or_else(|| "templates are not as they should be".to_owned())
                })
            }
            Err(error) => Some(error.to_string()),
        }
    }

    fn set(&self, state: MirrorState) {
        let mut current = lock(&self.0.state);
        if *current != state {
            match &state {
                MirrorState::Ready if !self.0.applies => {
                    tracing::info!("elasticsearch.bootstrap is off: policy and templates are taken to be in place");
                }
                MirrorState::Ready => {
                    tracing::info!("elasticsearch is prepared: policy, templates and mapping are as they should be");
                }
                MirrorState::Waiting(problem) => tracing::warn!(
                    problem,
                    "elasticsearch is not prepared; events are stored and wait in the outbox"
                ),
            }
        }
        *current = state;
        drop(current);
        self.0.changed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sleep_or_forever(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

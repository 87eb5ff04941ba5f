//! Whether Elasticsearch is prepared for us: templates and policy in place, nobody else's in the way.
//!
//! The bootstrap runs in the background until it succeeds; delivery waits for it, ingest never does.

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
    state: Mutex<MirrorState>,
    version: Mutex<Option<String>>,
    changed: Notify,
    again: Notify,
}

impl Default for Mirror {
    fn default() -> Self {
        let state = Mutex::new(MirrorState::Waiting(
            "templates and policy are not applied yet".to_owned(),
        ));
        Self(Arc::new(Shared {
            state,
            version: Mutex::default(),
            changed: Notify::new(),
            again: Notify::new(),
        }))
    }
}

impl Mirror {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> MirrorState {
        self.lock().clone()
    }

    /// Version of the cluster, once it was reached.
    pub(super) fn cluster_version(&self) -> Option<String> {
        self.0.version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for another bootstrap: a stream could not be made for want of its template.
    pub(super) fn ask_again(&self) {
        self.set(MirrorState::Waiting(
            "a template is missing; applying the templates again".to_owned(),
        ));
        self.0.again.notify_one();
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
                None => {
                    self.set(MirrorState::Ready);
                    pause = PAUSE.0;
                    None
                }
                Some(problem) => {
                    self.set(MirrorState::Waiting(problem));
                    pause = (pause * 2).min(PAUSE.1);
                    Some(pause)
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
                let version = Some(report.cluster.version.clone());
                *self.0.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
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
        let mut current = self.lock();
        if *current != state {
            match &state {
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

    fn lock(&self) -> MutexGuard<'_, MirrorState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_or_forever(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

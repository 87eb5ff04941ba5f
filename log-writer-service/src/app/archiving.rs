//! The task that archives what retention is about to drop: beside housekeeping, which must not wait for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::time::sleep;

use crate::{
    archive::{ArchiveError, Keeper, Round},
    config::Config,
    telemetry::{
        metric,
        status::{ArchiveProbe, ArchiveStatus},
    },
};

/// Pause after a round; doubled after each failure, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));

/// How the archive stands; clones share it.
#[derive(Debug, Clone)]
pub(super) struct ArchiveState(Arc<Mutex<ArchiveStatus>>);

impl ArchiveState {
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(Mutex::new(ArchiveStatus {
            enabled: Keeper::new(config).is_some(),
            problem: None,
            looked_at: None,
        })))
    }

    pub(super) fn probe(&self) -> ArchiveProbe {
        let state = self.clone();
        Arc::new(move || state.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn note(&self, problem: Option<String>) {
        metric::archive_failing(problem.is_some());
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        status.problem = problem;
        status.looked_at = Some(Utc::now());
    }
}

/// Archives until it is dropped; nothing, for ever, if nothing is to be archived.
pub(super) async fn archive(config: Config, state: ArchiveState) {
    let Some(keeper) = Keeper::new(&config) else {
        return std::future::pending().await;
    };
    let mut pause = PAUSE.0;
    loop {
        // Sooner after the start: who has just switched it on wants to know.
        let first = state.probe()().looked_at.is_none();
        sleep(if first { Duration::from_secs(5) } else { pause }).await;
        match Box::pin(keeper.round()).await {
            Ok(round) => {
                pause = PAUSE.0;
                state.note(None);
                tell(round);
            }
            Err(error) => {
                pause = (pause * 2).min(PAUSE.1);
                state.note(Some(error.to_string()));
                tell_failure(&error, pause);
            }
        }
    }
}

fn tell(round: Round) {
    metric::archived(round.events, round.bytes);
    if round.events > 0 {
        tracing::info!(
            event.count = round.events,
            bytes = round.bytes,
            seconds = round.took.as_secs_f64(),
            "archived events older than retention.events"
        );
    }
    if round.chunks > 0 {
        tracing::info!(
            chunk.count = round.chunks,
            "dropped chunks of archived events older than retention.events"
        );
    }
    if round.left > 0 {
        tracing::info!(
            chunk.count = round.left,
            "left archived chunks to the next round: events were added or changed meanwhile, or somebody reads them"
        );
    }
}

fn tell_failure(error: &ArchiveError, pause: Duration) {
    tracing::error!(
        %error,
        pause.seconds = pause.as_secs(),
        "archiving failed: nothing is dropped until it succeeds; see docs/OPERATIONS.md, \"Archive\""
    );
}

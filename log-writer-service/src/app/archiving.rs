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

/// Pause before the first round: who has just switched it on wants to know. Also after one that was another replica's, left
/// something to do or failed: what was in its way may have gone.
const PAUSE_SHORT: Duration = Duration::from_secs(5);
/// Pause after a round that left nothing; short ones double up to it while something is left.
const PAUSE: Duration = Duration::from_secs(60);
/// Short pauses double up to this while rounds fail.
const PAUSE_FAILING: Duration = Duration::from_secs(15 * 60);

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
    let mut short = PAUSE_SHORT;
    let mut pause = short;
    loop {
        sleep(pause).await;
        match Box::pin(keeper.round()).await {
            Ok(round) => {
                state.note(None);
                if let Some(round) = round {
                    tell(round);
                    if round.left == 0 {
                        (pause, short) = (PAUSE, PAUSE_SHORT);
                        continue;
                    }
                }
                pause = short.min(PAUSE);
            }
            Err(error) => {
                pause = short.min(PAUSE_FAILING);
                state.note(Some(error.to_string()));
                tell_failure(&error, pause);
            }
        }
        short = (short * 2).min(PAUSE_FAILING);
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

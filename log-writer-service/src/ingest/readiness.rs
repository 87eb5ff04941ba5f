//! Whether batches can be committed: what `/ready` tells, and what decides between waiting and an instant 503.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Whether batches can be committed now. Clones share the state.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    since: Instant,
    /// Why not; `None` is ready.
    problem: Option<String>,
    stopping: bool,
    closing: bool,
}

impl Default for Readiness {
    fn default() -> Self {
        let state = State {
            since: Instant::now(),
            problem: Some("starting".to_owned()),
            stopping: false,
            closing: false,
        };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Readiness {
    /// A batch was committed, or PostgreSQL answered and its schema is ours.
    pub fn set_ready(&self) {
        let mut state = self.lock();
        if state.problem.take().is_some() {
            state.since = Instant::now();
            tracing::info!("ready: batches can be committed");
        }
    }

    /// Nothing can be committed, because of `problem`.
    pub fn set_problem(&self, problem: &str) {
        let mut state = self.lock();
        if state.problem.is_none() {
            state.since = Instant::now();
            tracing::error!(
                problem,
                "not ready: nothing can be committed, requests are answered 503"
            );
        } else if state.problem.as_deref() != Some(problem) {
            tracing::error!(problem, "still not ready");
        }
        state.problem = Some(problem.to_owned());
    }

    /// The process is about to end: not ready from now on. Requests are still taken.
    pub fn set_stopping(&self) {
        self.lock().stopping = true;
    }

    /// No request is taken any more.
    pub fn set_closing(&self) {
        self.lock().closing = true;
    }

    /// Why nothing can be committed; `None` when ready.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let state = self.lock();
        if state.stopping {
            Some("shutting down".to_owned())
        } else {
            state.problem.clone()
        }
    }

    /// Whether requests are refused because the process is about to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// How long it has been ready without interruption; `None` when it is not.
    #[must_use]
    pub fn ready_for(&self) -> Option<Duration> {
        let state = self.lock();
        state.problem.is_none().then(|| state.since.elapsed())
    }

    /// How long it has not been ready; `None` when it is.
    #[must_use]
    pub fn unready_for(&self) -> Option<Duration> {
        let state = self.lock();
        state.problem.is_some().then(|| state.since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

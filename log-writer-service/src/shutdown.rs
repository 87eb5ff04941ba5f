//! Named tasks and an orderly end.
//!
//! Every background task of the process is spawned here, so that each has a name, none ends unseen, and a shutdown
//! waits for all of them up to one deadline and says which did not finish.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns named tasks and tells them when to end. Clones share the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    running: Arc<Mutex<BTreeMap<String, usize>>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    /// Spawns a task that runs until the process stops.
    ///
    /// If it ends before, by return or panic, that is an error and stops the process.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let guard = Running::enter(self, name);
        self.tracker.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Cancelled when the process is to stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Begins the end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits for all tasks, at most `deadline`; afterwards names the ones still running.
    ///
    /// # Errors
    /// The names of the tasks that did not end in time, or of the one that ended before it should.
    pub async fn finish(&self, deadline: Duration) -> Result<(), String> {
        self.tracker.close();
        let late = tokio::time::timeout(deadline, self.tracker.wait()).await.is_err();
        if let Some(name) = lock(&self.failed).clone() {
            return Err(format!("task `{name}` ended before the shutdown"));
        }
        if late {
            let names: Vec<String> = lock(&self.running).keys().cloned().collect();
            return Err(format!(
                "still running {} s after the shutdown began: {}",
                deadline.as_secs(),
                names.join(", ")
            ));
        }
        Ok(())
    }
}

/// SIGTERM and SIGINT, which end the process by themselves only until this listens.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the process can't.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Counts a task as running; notices when it ends too early, a panic included.
struct Running {
    tasks: Tasks,
    name: String,
}

impl Running {
    fn enter(tasks: &Tasks, name: &str) -> Self {
        *lock(&tasks.running).entry(name.to_owned()).or_default() += 1;
        Self {
            tasks: tasks.clone(),
            name: name.to_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.tasks.running);
        if let Some(count) = running.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.name);
            }
        }
        if !self.tasks.stopping.is_cancelled() {
            tracing::error!(task.name = %self.name, "a task ended although the process was not stopping; stopping it");
            lock(&self.tasks.failed).get_or_insert_with(|| self.name.clone());
            self.tasks.stopping.cancel();
        }
    }
}

/// The data behind these locks stays whole if a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_stops_the_process() {
        let tasks = Tasks::default();
        tasks.spawn("doomed", async { panic!("on purpose") });
        tasks.stopping().cancelled().await;
        let error = tasks.finish(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error, "task `doomed` ended before the shutdown");
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named() {
        let tasks = Tasks::default();
        tasks.spawn("stubborn", std::future::pending());
        tasks.stop();
        let error = tasks.finish(Duration::from_millis(10)).await.unwrap_err();
        assert!(error.ends_with(": stubborn"), "{error}");
    }

    #[tokio::test]
    async fn tasks_that_end_when_told_are_no_error() {
        let tasks = Tasks::default();
        let stopping = tasks.stopping();
        tasks.spawn("obedient", async move { stopping.cancelled().await });
        tasks.stop();
        tasks.finish(Duration::from_secs(5)).await.unwrap();
    }
}

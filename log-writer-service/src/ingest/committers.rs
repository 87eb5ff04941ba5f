//! Committers: take what waits, commit it in one transaction, answer every request of the batch.
//!
//! Few tasks with a connection each. A failure is judged by its kind alone (`timescale`'s table): what passes is tried again
//! with the same requests, which their noted digests make exact even when a COMMIT's answer was lost; what is one request's fault
//! costs only that request. A request leaves this module committed, kept as a dead letter, withdrawn by its own task, or with the process.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    Readiness,
    failures::Alike,
    queue::{BatchLimits, Lane, Lanes, Queued},
};
use crate::{
    config,
    telemetry::metric,
    timescale::{CommitMode, Committer, Receipt, StoreError, StoreErrorKind, WriteRequest},
};

/// How long a lock is waited for where somebody is known to hold one, and others wait meanwhile.
pub(super) const LOCK_TIMEOUT_SHORT: Duration = Duration::from_millis(10);
/// Times that a batch is tried again whole after a conflict.
const CONFLICTS_MAX: u32 = 3;
/// Pauses between attempts while PostgreSQL can't be reached: the first, doubled up to the last.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Which requests a committer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneKind {
    /// All that is fresh.
    Normal,
    /// Requests with late events, or with a row that PostgreSQL refused: one at a time, bisecting.
    Late,
}

/// One committer's task.
pub(super) struct CommitterTask {
    pub(super) name: String,
    pub(super) kind: LaneKind,
    pub(super) lanes: Arc<Lanes>,
    pub(super) settings: config::Database,
    pub(super) readiness: Readiness,
    /// Wakes delivery.
    pub(super) committed: Arc<tokio::sync::Notify>,
    pub(super) stopping: CancellationToken,
}

impl CommitterTask {
    /// Commits what waits until told to stop and nothing waits any more.
    pub(super) async fn run(self) {
        let mut slot = None;
        let mut pause = PAUSE.0;
        let mut alike = Alike::default();
        loop {
            // Before anything is taken: others, who have a connection, take it meanwhile.
            let Some(committer) = slot.as_mut() else {
                tokio::select! {
                    connected = Committer::connect(&self.settings, &self.name) => match connected {
                        Ok(committer) => {
                            slot = Some(committer);
                            self.count_connected(1);
                            continue;
                        }
                        Err(error) => self.note_problem(&error, pause == PAUSE.0),
                    },
                    () = self.stopping.cancelled() => return self.leave(false),
                }
                if self.is_stopped_in(&mut pause).await {
                    return self.leave(false);
                }
                continue;
            };
            let attempt = tokio::select! {
                biased;
                batch = self.take() => self.attempt(committer, batch, &mut alike).await,
                () = self.stopping.cancelled() => return self.leave(true),
                // Nobody is sent here while it is not ready: it must find out by itself that it is again.
                () = self.until_unready(), if self.kind == LaneKind::Normal => {
                    match committer.rehearse().await {
                        Ok(()) => {
                            self.readiness.set_ready();
                            continue;
                        }
                        Err(error) => Attempt::Unavailable(error),
                    }
                }
            };
            match attempt {
                Attempt::Done => {
                    pause = PAUSE.0;
                    continue;
                }
                Attempt::Pause => {}
                Attempt::Unavailable(error) => {
                    slot = None;
                    self.count_connected(-1);
                    self.note_problem(&error, true);
                }
            }
            if self.is_stopped_in(&mut pause).await {
                return self.leave(slot.is_some());
            }
        }
    }

    /// Ends when nothing can be committed, whoever found that out, and a moment has passed.
    async fn until_unready(&self) {
        loop {
            tokio::time::sleep(PAUSE.1).await;
            if self.readiness.unready_for().is_some() {
                return;
            }
        }
    }

    /// Pauses, longer the next time; whether it was told to stop meanwhile.
    async fn is_stopped_in(&self, pause: &mut Duration) -> bool {
        let this = *pause;
        *pause = (this * 2).min(PAUSE.1);
        tokio::time::timeout(this, self.stopping.cancelled()).await.is_ok()
    }

    /// Gives up what waits if nobody is left to serve it: it is answered 503 and sent again.
    fn leave(&self, is_connected: bool) {
        if is_connected {
            self.count_connected(-1);
        }
        if self.kind == LaneKind::Late || self.lanes.connected.load(Ordering::Relaxed) == 0 {
            self.lane().abandon();
        }
    }

    fn count_connected(&self, change: isize) {
        if self.kind == LaneKind::Normal {
            self.lanes
                .connected
                .fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Tells why this committer can't commit; nobody can unless another has a connection, as far as it knows.
    fn note_problem(&self, error: &StoreError, is_news: bool) {
        if error.kind() == StoreErrorKind::Setup || self.lanes.connected.load(Ordering::Relaxed) == 0 {
            self.readiness.set_problem(&error.to_string());
        } else if is_news {
            tracing::warn!(%error, committer = self.name, "a committer lost PostgreSQL; it connects again, others go on");
        }
    }

    pub(super) fn lane(&self) -> &Lane {
        match self.kind {
            LaneKind::Normal => &self.lanes.normal,
            LaneKind::Late => &self.lanes.late,
        }
    }

    async fn take(&self) -> Vec<Queued> {
        match self.kind {
            LaneKind::Normal => {
                let limits = BatchLimits {
                    requests: self.settings.batch_rows_max,
                    rows: self.settings.batch_rows_max,
                    bytes: self.settings.batch_bytes_max,
                };
                self.lanes.normal.take(limits).await
            }
            LaneKind::Late => vec![self.lanes.late.take_one().await],
        }
    }

    /// Tries to commit a batch; whatever is not answered afterwards stands in a lane again.
    async fn attempt(&self, committer: &mut Committer, mut batch: Vec<Queued>, alike: &mut Alike) -> Attempt {
        let mut conflicts = 0;
        loop {
            let error = match self.commit(committer, &mut batch, self.lock_timeout()).await {
                Ok(receipts) => {
                    self.answer(batch, receipts);
                    return Attempt::Done;
                }
                Err(error) => error,
            };
            match error.kind() {
                StoreErrorKind::Unavailable | StoreErrorKind::Unanswered | StoreErrorKind::Setup => {
                    return self.unavailable(batch, error);
                }
                StoreErrorKind::Conflict if conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    tracing::debug!(%error, "the batch met a conflict; trying it again");
                }
                StoreErrorKind::Data if self.kind == LaneKind::Normal && self.cull(&mut batch, &error) => {
                    if batch.is_empty() {
                        return Attempt::Done;
                    }
                }
                StoreErrorKind::LockTimeout if self.kind == LaneKind::Late => {
                    batch.into_iter().for_each(|queued| self.wait_for_lock(queued, &error));
                    return Attempt::Done;
                }
                StoreErrorKind::Conflict
                | StoreErrorKind::LockTimeout
                | StoreErrorKind::Timeout
                | StoreErrorKind::Data
                | StoreErrorKind::Other => {
                    if error.kind() == StoreErrorKind::LockTimeout {
                        self.lanes.note_lock();
                    }
                    return self.in_parts(committer, batch, error.kind(), alike).await;
                }
            }
        }
    }

    /// How long a batch waits for a lock: half the time in the normal lane, where others may arrive while it waits and
    /// then share its next attempt, and briefly where one was met a moment ago.
    pub(super) fn lock_timeout(&self) -> Duration {
        let longest = self.settings.lock_timeout;
        match self.kind {
            LaneKind::Normal if !self.lanes.met_a_lock() => longest / 2,
            LaneKind::Late if self.lanes.late.is_empty() => longest,
            LaneKind::Normal | LaneKind::Late => longest.min(LOCK_TIMEOUT_SHORT),
        }
    }

    pub(super) fn unavailable(&self, batch: Vec<Queued>, error: StoreError) -> Attempt {
        self.lane().put_back(batch);
        Attempt::Unavailable(error)
    }

    pub(super) async fn commit(
        &self,
        committer: &mut Committer,
        batch: &mut [Queued],
        lock_timeout: Duration,
    ) -> Result<Vec<Receipt>, StoreError> {
        let rows: usize = batch.iter().map(|queued| queued.request.rows_to_write()).sum();
        let extra = if batch.len() == 1 {
            u64::try_from(rows / 5_000).unwrap_or(u64::MAX)
        } else {
            0
        };
        let mode = CommitMode {
            lock_timeout,
            transaction_timeout: self.settings.transaction_timeout + Duration::from_secs(extra),
            bisect: self.kind == LaneKind::Late,
        };
        let mut requests: Vec<&mut WriteRequest> = batch.iter_mut().map(|queued| &mut queued.request).collect();
        let commits = self.lanes.commits.load(Ordering::Relaxed);
        let begun = Instant::now();
        let result = AssertUnwindSafe(committer.commit(&mut requests, &mode))
            .catch_unwind()
            .await;
        metric::commit_finished(begun.elapsed(), rows);
        metric::met(&committer.take_met());
        let result = result.unwrap_or_else(|_| {
            tracing::error!(event.count = rows, "the commit panicked");
            Err(StoreError::panicked())
        });
        result.inspect_err(|error| {
            metric::commit_failed(error.kind());
            // It connects again as if nothing were wrong; only a COMMIT that is answered shows otherwise.
            if error.kind() == StoreErrorKind::Unanswered && self.lanes.commits.load(Ordering::Relaxed) == commits {
                self.readiness.set_problem(&error.to_string());
            }
        })
    }

    pub(super) fn answer(&self, batch: Vec<Queued>, receipts: Vec<Receipt>) {
        // Without events PostgreSQL was not asked.
        if receipts.iter().any(|receipt| receipt.received > 0) {
            self.readiness.set_ready();
        }
        self.committed.notify_one();
        if receipts.iter().any(|receipt| receipt.committed > 0) {
            self.lanes.commits.fetch_add(1, Ordering::Relaxed);
        }
        let sum = |count: fn(&Receipt) -> u32| receipts.iter().map(|receipt| u64::from(count(receipt))).sum::<u64>();
        tracing::debug!(
            batch.id = receipts.iter().map(|receipt| receipt.batch_id).max(),
            request.count = receipts.len(),
            event.count = sum(|receipt| receipt.received),
            event.committed = sum(|receipt| receipt.committed),
            event.duplicates = sum(|receipt| receipt.duplicates),
            event.dead_lettered = sum(|receipt| receipt.dead_lettered),
            "committed"
        );
        for (queued, receipt) in batch.into_iter().zip(receipts) {
            drop(queued.reservation);
            // A client that has gone gets no answer; its events are committed all the same.
            queued.answer.send(Ok(receipt)).ok();
        }
    }
}

/// How an attempt ended for the committer.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Every request was answered or stands in a lane where it will be tried again.
    Done,
    /// The same, but what failed may pass in a moment: not at once again.
    Pause,
    /// The connection can't be used; the requests stand at the front of the lane again.
    Unavailable(StoreError),
}

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
        let mut committer = None;
        let mut pause = PAUSE.0;
        let mut alike = Alike::default();
        loop {
            let batch = tokio::select! {
                biased;
                batch = self.take() => batch,
                () = self.stopping.cancelled() => return,
                // Nobody is sent here while it is not ready: it must find out by itself that it is again.
                () = tokio::time::sleep(PAUSE.1), if self.kind == LaneKind::Normal && self.readiness.problem().is_some() => {
                    self.probe(&mut committer).await;
                    continue;
                }
            };
            match self.attempt(&mut committer, batch, &mut alike).await {
                Attempt::Done => pause = PAUSE.0,
                Attempt::Unavailable => {
                    committer = None;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        // Nobody can be served any more: the waiting requests are answered 503 and sent again.
                        () = self.stopping.cancelled() => return self.lane().abandon(),
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// Does what a commit does, with an event of our own, and takes it back.
    pub(super) async fn rehearse(&self, slot: &mut Option<Committer>) -> Result<(), StoreError> {
        self.connected(slot).await?.rehearse().await
    }

    /// Finds out, without a batch, whether one could be committed.
    async fn probe(&self, slot: &mut Option<Committer>) {
        match self.rehearse(slot).await {
            Ok(()) => self.readiness.set_ready(),
            Err(error) => {
                *slot = None;
                self.readiness.set_problem(&error.to_string());
            }
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
    async fn attempt(&self, slot: &mut Option<Committer>, mut batch: Vec<Queued>, alike: &mut Alike) -> Attempt {
        let mut conflicts = 0;
        loop {
            let committer = match self.connected(slot).await {
                Ok(committer) => committer,
                Err(error) => return self.unavailable(batch, &error),
            };
            let error = match self.commit(committer, &mut batch, self.lock_timeout()).await {
                Ok(receipts) => {
                    self.answer(batch, receipts);
                    return Attempt::Done;
                }
                Err(error) => error,
            };
            match error.kind() {
                StoreErrorKind::Unavailable | StoreErrorKind::Setup => return self.unavailable(batch, &error),
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
                    return self.in_parts(slot, batch, error.kind(), alike).await;
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

    pub(super) fn unavailable(&self, batch: Vec<Queued>, error: &StoreError) -> Attempt {
        self.readiness.set_problem(&error.to_string());
        self.lane().put_back(batch);
        Attempt::Unavailable
    }

    pub(super) async fn connected<'a>(&self, slot: &'a mut Option<Committer>) -> Result<&'a mut Committer, StoreError> {
        let committer = match slot.take() {
            Some(committer) => committer,
            None => Committer::connect(&self.settings, &self.name).await?,
        };
        Ok(slot.insert(committer))
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
        result.inspect_err(|error| metric::commit_failed(error.kind()))
    }

    pub(super) fn answer(&self, batch: Vec<Queued>, receipts: Vec<Receipt>) {
        self.readiness.set_ready();
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
            queued.answer.send(receipt).ok();
        }
    }
}

/// How an attempt ended for the committer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Every request was answered or stands in a lane where it will be tried again.
    Done,
    /// PostgreSQL can't be used now; the requests stand at the front of the lane again.
    Unavailable,
}

//! Committers: take what waits, commit it in one transaction, answer every request of the batch.
//!
//! Few tasks with a connection each. A failure is judged by its kind alone (`timescale`'s table): what passes is tried again
//! with the same requests, which their noted digests make exact even when a COMMIT's answer was lost; what is one request's fault
//! costs only that request. A request leaves this module committed, kept as a dead letter, withdrawn by its own task, or with the process.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    Readiness,
    queue::{BatchLimits, Lane, Lanes, Queued},
};
use crate::{
    config,
    telemetry::metric,
    timescale::{CommitMode, Committer, Receipt, StoreError, StoreErrorKind, WriteRequest},
};

/// How long a request alone waits for a lock in the normal lane before it goes to the late one.
const LOCK_TIMEOUT_ALONE: Duration = Duration::from_millis(20);
/// Times that a batch is tried again whole after a conflict.
const CONFLICTS_MAX: u32 = 3;
/// Times that a request may fail alone before it is kept as a dead letter.
const FAILURES_ALONE_MAX: u32 = 3;
/// Bodies in a row that fail alike before the fault is taken to be ours.
const FAILURES_ALIKE_MAX: u32 = 3;
/// Pauses between attempts while PostgreSQL can't be reached: the first, doubled up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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

/// What the last failures of single requests had in common.
#[derive(Debug, Default)]
struct Alike {
    code: String,
    bodies: u32,
}

impl CommitterTask {
    /// Commits what waits until told to stop and nothing waits any more.
    pub(super) async fn run(self) {
        let mut committer = None;
        let mut pause = PAUSE.0;
        let mut alike = Alike::default();
        loop {
            let lane = self.lane();
            let batch = tokio::select! {
                biased;
                batch = lane.take(self.limits()) => batch,
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

    /// Does what a commit does, without a batch.
    async fn try_empty(&self, slot: &mut Option<Committer>) -> Result<(), StoreError> {
        self.connected(slot).await?.probe().await
    }

    /// Finds out, without a batch, whether one could be committed.
    async fn probe(&self, slot: &mut Option<Committer>) {
        match self.try_empty(slot).await {
            Ok(()) => self.readiness.set_ready(),
            Err(error) => {
                *slot = None;
                self.readiness.set_problem(&error.to_string());
            }
        }
    }

    fn lane(&self) -> &Lane {
        match self.kind {
            LaneKind::Normal => &self.lanes.normal,
            LaneKind::Late => &self.lanes.late,
        }
    }

    fn limits(&self) -> BatchLimits {
        match self.kind {
            LaneKind::Normal => BatchLimits {
                requests: self.settings.batch_rows_max,
                rows: self.settings.batch_rows_max,
                bytes: self.settings.batch_bytes_max,
            },
            LaneKind::Late => BatchLimits {
                requests: 1,
                rows: 0,
                bytes: 0,
            },
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
            let error = match self.commit(committer, &mut batch, self.settings.lock_timeout).await {
                Ok(receipts) => {
                    self.answer(batch, receipts);
                    *alike = Alike::default();
                    return Attempt::Done;
                }
                Err(error) => error,
            };
            metric::commit_failed(error.kind());
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
                StoreErrorKind::LockTimeout if self.kind == LaneKind::Late => return self.wait_again(batch).await,
                StoreErrorKind::Conflict
                | StoreErrorKind::LockTimeout
                | StoreErrorKind::Timeout
                | StoreErrorKind::Data
                | StoreErrorKind::Other => {
                    return self.one_by_one(slot, batch, alike).await;
                }
            }
        }
    }

    /// Tries each request of a failed batch alone.
    async fn one_by_one(&self, slot: &mut Option<Committer>, batch: Vec<Queued>, alike: &mut Alike) -> Attempt {
        let mut waiting = batch.into_iter();
        while let Some(queued) = waiting.next() {
            if queued.is_abandoned() {
                continue;
            }
            if let Attempt::Unavailable = self.alone(slot, queued, alike).await {
                self.lane().put_back(waiting.collect());
                return Attempt::Unavailable;
            }
        }
        Attempt::Done
    }

    /// Tries one request alone: it is answered, or stands in a lane again.
    async fn alone(&self, slot: &mut Option<Committer>, queued: Queued, alike: &mut Alike) -> Attempt {
        let mut one = vec![queued];
        let committer = match self.connected(slot).await {
            Ok(committer) => committer,
            Err(error) => return self.unavailable(one, &error),
        };
        let lock_timeout = match self.kind {
            LaneKind::Normal => LOCK_TIMEOUT_ALONE,
            LaneKind::Late => self.settings.lock_timeout,
        };
        let error = match self.commit(committer, &mut one, lock_timeout).await {
            Ok(receipts) => {
                self.answer(one, receipts);
                *alike = Alike::default();
                return Attempt::Done;
            }
            Err(error) => error,
        };
        let Some(mut queued) = one.pop() else {
            return Attempt::Done;
        };
        match error.kind() {
            StoreErrorKind::Unavailable | StoreErrorKind::Setup => return self.unavailable(vec![queued], &error),
            StoreErrorKind::LockTimeout => self.put_late(queued, &error),
            // A slow PostgreSQL is no fault of the body: it has until its deadline, and those behind it can be withdrawn.
            StoreErrorKind::Timeout => {
                self.put_late(queued, &error);
                return Attempt::Unavailable;
            }
            StoreErrorKind::Data if self.kind == LaneKind::Normal => self.put_late(queued, &error),
            StoreErrorKind::Conflict => {
                self.put_late(queued, &error);
                tokio::time::sleep(PAUSE.0).await;
            }
            StoreErrorKind::Data | StoreErrorKind::Other => {
                if queued.failures_alone == 0 {
                    queued.commits_at_first_failure = self.lanes.commits.load(Ordering::Relaxed);
                }
                queued.failures_alone += 1;
                if queued.failures_alone < FAILURES_ALONE_MAX {
                    // With a pause: what fails now may pass in a moment.
                    self.put_late(queued, &error);
                    return Attempt::Unavailable;
                }
                return self.give_up(slot, queued, &error, alike).await;
            }
        }
        Attempt::Done
    }

    /// Keeps a request that failed alone too often as a dead letter, whole, unless it may well be that every body fails now:
    /// several in a row failed alike, or nothing was committed since it failed first and an empty commit fails too.
    async fn give_up(
        &self,
        slot: &mut Option<Committer>,
        queued: Queued,
        error: &StoreError,
        alike: &mut Alike,
    ) -> Attempt {
        let code = error.sqlstate().unwrap_or("none").to_owned();
        if alike.code == code {
            alike.bodies += 1;
        } else {
            *alike = Alike { code, bodies: 1 };
        }
        let others_succeed = self.lanes.commits.load(Ordering::Relaxed) > queued.commits_at_first_failure;
        let is_bodys_fault =
            alike.bodies < FAILURES_ALIKE_MAX && (others_succeed || self.try_empty(slot).await.is_ok());
        if !is_bodys_fault {
            if !others_succeed {
                self.readiness.set_problem(&error.to_string());
            }
            // Not the bodies' fault: they are answered 503 at their deadline. Others have their turn meanwhile.
            tracing::error!(%error, request.count = alike.bodies, "requests fail alike, one after another; none is kept as a dead letter");
            self.lanes.late.put_last(queued);
            return Attempt::Unavailable;
        }
        let committer = match self.connected(slot).await {
            Ok(committer) => committer,
            Err(error) => return self.unavailable(vec![queued], &error),
        };
        let detail = error.to_string();
        match committer
            .commit_as_dead_letter(&queued.request, "request_failed_alone", &detail)
            .await
        {
            Ok(receipt) => {
                tracing::error!(%error, batch.id = receipt.batch_id, event.count = receipt.received,
                    "a request failed {FAILURES_ALONE_MAX} times alone and is kept as a dead letter");
                self.answer(vec![queued], vec![receipt]);
                Attempt::Done
            }
            Err(error) => self.unavailable(vec![queued], &error),
        }
    }

    /// Moves the request whose row PostgreSQL refused to the late lane; false if the error does not tell which it is.
    fn cull(&self, batch: &mut Vec<Queued>, error: &StoreError) -> bool {
        let Some(row) = error.row() else { return false };
        let mut end = 0;
        let culprit = batch.iter().position(|queued| {
            end += queued.request.rows.len();
            row < end
        });
        let Some(culprit) = culprit else { return false };
        tracing::debug!(%error, "a row was refused; its request goes to the late lane");
        self.put_late(batch.remove(culprit), error);
        true
    }

    /// Puts a request that can't be committed now at the end of the late lane.
    fn put_late(&self, queued: Queued, error: &StoreError) {
        if self.kind == LaneKind::Normal {
            metric::late(error.kind().as_str());
        }
        self.lanes.late.put_last(queued);
    }

    /// The late lane met a lock: its request goes to the end, the others have their turn.
    async fn wait_again(&self, batch: Vec<Queued>) -> Attempt {
        for queued in batch {
            self.lanes.late.put_last(queued);
        }
        // The lock timeout was the pause; with nobody else waiting, it is the same request again.
        tokio::task::yield_now().await;
        Attempt::Done
    }

    fn unavailable(&self, batch: Vec<Queued>, error: &StoreError) -> Attempt {
        self.readiness.set_problem(&error.to_string());
        self.lane().put_back(batch);
        Attempt::Unavailable
    }

    async fn connected<'a>(&self, slot: &'a mut Option<Committer>) -> Result<&'a mut Committer, StoreError> {
        let committer = match slot.take() {
            Some(committer) => committer,
            None => Committer::connect(&self.settings, &self.name).await?,
        };
        Ok(slot.insert(committer))
    }

    async fn commit(
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
        let begun = std::time::Instant::now();
        let result = AssertUnwindSafe(committer.commit(&mut requests, &mode))
            .catch_unwind()
            .await;
        metric::commit_finished(begun.elapsed(), rows);
        metric::met(&committer.take_met());
        result.unwrap_or_else(|_| {
            tracing::error!(event.count = rows, "the commit panicked");
            Err(StoreError::panicked())
        })
    }

    fn answer(&self, batch: Vec<Queued>, receipts: Vec<Receipt>) {
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
enum Attempt {
    /// Every request was answered or stands in a lane where it will be tried again.
    Done,
    /// PostgreSQL can't be used now; the requests stand at the front of the lane again.
    Unavailable,
}

//! What a committer does with a batch that failed: whoever is at fault is found, and costs nobody else their place.
//!
//! The batch is tried in smaller and smaller parts. A request that fails alone goes to the late lane; one that fails there
//! again and again is kept as a dead letter, unless it may well be that every body fails now.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    Refusal,
    committers::{Attempt, CommitterTask, LOCK_TIMEOUT_SHORT, LaneKind, PAUSE},
    queue::Queued,
};
use crate::{
    event::Digest,
    telemetry::metric,
    timescale::{Committer, StoreError, StoreErrorKind},
};

/// Into how many parts a failed batch is cut, and a part that fails again.
const PARTS: usize = 8;
/// Parts of a batch that meet a lock before hardly any time is given to locks.
const LOCKS_MET_MAX: usize = 3;
/// How long a lock is waited for then; PostgreSQL takes no limit below it.
const LOCK_TIMEOUT_SHORTEST: Duration = Duration::from_millis(1);
/// Times that a request may fail alone before it is kept as a dead letter.
const FAILURES_ALONE_MAX: u32 = 3;
/// Bodies in a row that fail alike before the fault is taken to be ours.
const FAILURES_ALIKE_MAX: usize = 3;

/// What the last failures of single requests had in common, with nothing committed between them.
#[derive(Debug, Default)]
pub(super) struct Alike {
    code: String,
    commits: u64,
    bodies: Vec<Digest>,
}

impl Alike {
    /// Notes a body that failed with this code; how many different ones did in a row, counted up to the limit.
    fn note(&mut self, body: Digest, code: &str, commits: u64) -> usize {
        if self.code != code || self.commits != commits {
            *self = Self {
                code: code.to_owned(),
                commits,
                bodies: Vec::new(),
            };
        }
        if self.bodies.len() < FAILURES_ALIKE_MAX && !self.bodies.contains(&body) {
            self.bodies.push(body);
        }
        self.bodies.len()
    }
}

impl CommitterTask {
    /// Tries a failed batch in parts, and a part that fails in smaller ones, down to single requests: whatever is not at
    /// fault is committed in few transactions.
    ///
    /// Locks are waited for briefly, and hardly at all once some were met: hundreds of requests may need what another
    /// transaction holds, and those that need nothing of it wait behind them.
    pub(super) async fn in_parts(
        &self,
        committer: &mut Committer,
        batch: Vec<Queued>,
        failed: StoreErrorKind,
        alike: &mut Alike,
    ) -> Attempt {
        let mut left = parts_of(batch, failed);
        let mut locks_met = 0;
        while let Some(mut part) = left.pop() {
            part.retain(|queued| !queued.is_abandoned());
            let lock_timeout = self.lock_timeout_of_part(locks_met);
            let attempt = if part.len() > 1 {
                match self.part(committer, part, lock_timeout).await {
                    Ok(attempt) => attempt,
                    Err((part, failed)) => {
                        locks_met += usize::from(failed == StoreErrorKind::LockTimeout);
                        left.extend(parts_of(part, failed));
                        continue;
                    }
                }
            } else if let Some(queued) = part.pop() {
                self.alone(committer, queued, lock_timeout, alike).await
            } else {
                continue;
            };
            if !matches!(attempt, Attempt::Done) {
                self.lane().put_back(left.into_iter().rev().flatten().collect());
                return attempt;
            }
        }
        Attempt::Done
    }

    /// Tries several requests of a failed batch; they come back if smaller parts are to be tried.
    async fn part(
        &self,
        committer: &mut Committer,
        mut part: Vec<Queued>,
        lock_timeout: Duration,
    ) -> Result<Attempt, (Vec<Queued>, StoreErrorKind)> {
        match self.commit(committer, &mut part, lock_timeout).await {
            Ok(receipts) => {
                self.answer(part, receipts);
                Ok(Attempt::Done)
            }
            Err(error) => match error.kind() {
                StoreErrorKind::Unavailable | StoreErrorKind::Unanswered | StoreErrorKind::Setup => {
                    Ok(self.unavailable(part, error))
                }
                failed @ (StoreErrorKind::Conflict
                | StoreErrorKind::LockTimeout
                | StoreErrorKind::Timeout
                | StoreErrorKind::Data
                | StoreErrorKind::Other) => Err((part, failed)),
            },
        }
    }

    /// Tries one request alone: it is answered, or stands in a lane again.
    async fn alone(
        &self,
        committer: &mut Committer,
        queued: Queued,
        lock_timeout: Duration,
        alike: &mut Alike,
    ) -> Attempt {
        let mut one = vec![queued];
        let error = match self.commit(committer, &mut one, lock_timeout).await {
            Ok(receipts) => {
                self.answer(one, receipts);
                return Attempt::Done;
            }
            Err(error) => error,
        };
        let Some(mut queued) = one.pop() else {
            return Attempt::Done;
        };
        match error.kind() {
            StoreErrorKind::Unavailable | StoreErrorKind::Unanswered | StoreErrorKind::Setup => {
                return self.unavailable(vec![queued], error);
            }
            StoreErrorKind::LockTimeout => self.wait_for_lock(queued, &error),
            // A slow PostgreSQL is no fault of the body: it has until its deadline, and those behind it can be withdrawn.
            StoreErrorKind::Timeout => {
                self.put_late(queued, &error);
                return Attempt::Pause;
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
                    return Attempt::Pause;
                }
                return self.give_up(committer, queued, &error, alike).await;
            }
        }
        Attempt::Done
    }

    /// Keeps a request that failed alone too often as a dead letter, whole, unless it may well be that every body fails now:
    /// nothing was committed since it failed first, and several in a row failed alike or a rehearsal fails too.
    async fn give_up(
        &self,
        committer: &mut Committer,
        mut queued: Queued,
        error: &StoreError,
        alike: &mut Alike,
    ) -> Attempt {
        let commits = self.lanes.commits.load(Ordering::Relaxed);
        let bodies = alike.note(queued.request.digest, error.sqlstate().unwrap_or("none"), commits);
        // Each committer may have had one in flight that was committed before, and counted after.
        let in_flight = u64::try_from(self.settings.committers).unwrap_or(u64::MAX);
        let others_succeed = commits.saturating_sub(queued.commits_at_first_failure) > in_flight;
        let is_bodys_fault = others_succeed || bodies < FAILURES_ALIKE_MAX && committer.rehearse().await.is_ok();
        if !is_bodys_fault {
            self.readiness.set_problem(&error.to_string());
            // Not the bodies' fault: they are answered 503 at their deadline. Others have their turn meanwhile.
            tracing::error!(%error, request.count = bodies, "nothing can be committed; the requests that fail are not kept as dead letters");
            self.put_late(queued, error);
            return Attempt::Pause;
        }
        if !queued.become_letter("request_failed_alone", &error.to_string()) {
            tracing::warn!(%error, "a request fails alone, and there is no memory for its dead letter; it is tried again");
            self.put_late(queued, error);
            return Attempt::Pause;
        }
        let mut one = vec![queued];
        match self.commit(committer, &mut one, self.settings.lock_timeout).await {
            Ok(receipts) => {
                tracing::error!(%error, batch.id = receipts.first().map(|receipt| receipt.batch_id),
                    event.count = receipts.first().map(|receipt| receipt.received),
                    "a request failed {FAILURES_ALONE_MAX} times alone and is kept as a dead letter");
                self.answer(one, receipts);
                Attempt::Done
            }
            Err(error)
                if matches!(
                    error.kind(),
                    StoreErrorKind::Unavailable | StoreErrorKind::Unanswered | StoreErrorKind::Setup
                ) =>
            {
                self.unavailable(one, error)
            }
            Err(error) => {
                one.into_iter().for_each(|queued| self.put_late(queued, &error));
                Attempt::Pause
            }
        }
    }

    /// Moves the request whose row PostgreSQL refused to the late lane; false if the error does not tell which it is.
    pub(super) fn cull(&self, batch: &mut Vec<Queued>, error: &StoreError) -> bool {
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

    /// Puts a request that can't be committed now at the end of the late lane; it is refused if that is full.
    fn put_late(&self, mut queued: Queued, error: &StoreError) {
        if !queued.reservation.enter_late() {
            metric::late("refused");
            queued.answer.send(Err(Refusal::LateBusy)).ok();
            return;
        }
        if self.kind == LaneKind::Normal {
            metric::late(error.kind().as_str());
        }
        self.lanes.late.put_last(queued);
    }

    fn lock_timeout_of_part(&self, locks_met: usize) -> Duration {
        match self.kind {
            LaneKind::Normal if locks_met < LOCKS_MET_MAX => self.settings.lock_timeout.min(LOCK_TIMEOUT_SHORT),
            LaneKind::Normal => self.settings.lock_timeout.min(LOCK_TIMEOUT_SHORTEST),
            LaneKind::Late => self.lock_timeout(),
        }
    }

    /// Puts a request that met a lock into the late lane: at once again if nobody else waits there, else after a while.
    pub(super) fn wait_for_lock(&self, mut queued: Queued, error: &StoreError) {
        let pause = if self.kind == LaneKind::Normal || self.lanes.late.is_empty() {
            Duration::ZERO
        } else {
            self.settings.lock_timeout
        };
        queued.retry_at = Some(Instant::now() + pause);
        self.put_late(queued, error);
    }
}

/// Cuts a batch that failed, the first part last; one that took too long into single requests.
fn parts_of(mut batch: Vec<Queued>, failed: StoreErrorKind) -> Vec<Vec<Queued>> {
    let size = match failed {
        StoreErrorKind::Timeout => 1,
        StoreErrorKind::Unavailable
        | StoreErrorKind::Unanswered
        | StoreErrorKind::Conflict
        | StoreErrorKind::LockTimeout
        | StoreErrorKind::Data
        | StoreErrorKind::Setup
        | StoreErrorKind::Other => batch.len().div_ceil(PARTS).max(1),
    };
    let mut parts = Vec::new();
    while !batch.is_empty() {
        parts.push(batch.split_off(batch.len().saturating_sub(size)));
    }
    parts
}

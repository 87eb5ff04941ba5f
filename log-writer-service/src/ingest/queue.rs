//! The lane between request tasks and committers: whatever waits is taken together.
//!
//! A request waits here until a committer takes it; its deadline, or a client that went away, withdraws it as long as nobody has.
//! What a committer could not commit goes back to the front, in its old order.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use super::{Refusal, admission::Reservation, kept::letter_memory};
use crate::timescale::{Receipt, WriteRequest};

/// A lock that the normal lane met is taken to be held for this long.
const LOCK_REMEMBERED: Duration = Duration::from_secs(5);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Where a request stands: waiting, taken by a committer, or withdrawn. Shared by the request's task and the lane.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place(Arc<AtomicU8>);

impl Place {
    /// Withdraws a request that still waits; false if a committer has it.
    pub(crate) fn withdraw(&self) -> bool {
        self.0
            .compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn take(&self) -> bool {
        self.0
            .compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn put_back(&self) {
        self.0.store(WAITING, Ordering::Release);
    }
}

/// One request on its way to a commit.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) request: WriteRequest,
    pub(crate) place: Place,
    pub(crate) answer: oneshot::Sender<Result<Receipt, Refusal>>,
    /// Times that this request failed when it was alone in its transaction.
    pub(crate) failures_alone: u32,
    /// Batches that all committers had committed when it failed alone for the first time.
    pub(crate) commits_at_first_failure: u64,
    /// Set once it met a lock that was not free in time: the late lane tries it again, not before this.
    pub(crate) retry_at: Option<Instant>,
    /// Held until the request is answered.
    pub(crate) reservation: Reservation,
}

impl Queued {
    /// Makes it one dead letter; false, and nothing changed, if the memory for that is not free.
    pub(super) fn become_letter(&mut self, reason: &str, detail: &str) -> bool {
        let body = self.request.body.len();
        let bytes = body + letter_memory(body);
        let has_room = self.reservation.grow_to(bytes);
        if has_room {
            self.request.become_letter(reason, detail);
            self.reservation.shrink_to(bytes);
        }
        has_room
    }

    /// Whether nobody waits for its answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// One lane of waiting requests.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    waiting: Mutex<VecDeque<Queued>>,
    arrived: Notify,
    /// Of [`Lane::take_one`]: whose turn it is.
    turn_of_held: AtomicBool,
}

/// The two lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub(crate) normal: Lane,
    pub(crate) late: Lane,
    /// Batches with new events committed so far: what tells a bad body from a bad time.
    pub(crate) commits: AtomicU64,
    /// Committers of the normal lane whose connection is not known to be broken.
    pub(crate) connected: AtomicUsize,
    /// When the normal lane last met a lock that was not free in time.
    lock_met: Mutex<Option<Instant>>,
}

impl Lanes {
    /// The normal lane met a lock that was not free in time.
    pub(crate) fn note_lock(&self) {
        *self.lock_met.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the normal lane met one a moment ago: whoever holds it may hold it still.
    pub(crate) fn met_a_lock(&self) -> bool {
        let met = *self.lock_met.lock().unwrap_or_else(PoisonError::into_inner);
        met.is_some_and(|met| met.elapsed() < LOCK_REMEMBERED)
    }
}

/// How much one batch takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) requests: usize,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Lane {
    /// Puts a request at the end.
    pub(crate) fn push(&self, queued: Queued) {
        self.lock().push_back(queued);
        self.arrived.notify_one();
    }

    /// Drops the requests that nobody waits for any more: while no committer takes them, nobody else would free their memory.
    pub(crate) fn sweep(&self) {
        self.lock().retain(|queued| !queued.is_abandoned());
    }

    /// Puts requests that were taken back where they were, at the front in their order.
    pub(crate) fn put_back(&self, requests: Vec<Queued>) {
        let mut waiting = self.lock();
        for queued in requests.into_iter().rev() {
            queued.place.put_back();
            waiting.push_front(queued);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Puts a request that was taken at the end.
    pub(crate) fn put_last(&self, queued: Queued) {
        queued.place.put_back();
        self.push(queued);
    }

    /// Waits for requests and takes as many as fit one batch, at least one.
    ///
    /// # Cancel safety
    /// Nothing is taken if the future is dropped.
    pub(crate) async fn take(&self, limits: BatchLimits) -> Vec<Queued> {
        loop {
            let taken = self.take_now(limits);
            if !taken.is_empty() {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    /// Waits for a request and takes it: in turn one that never met a lock, and one that did and is due.
    ///
    /// # Cancel safety
    /// Nothing is taken if the future is dropped.
    pub(crate) async fn take_one(&self) -> Queued {
        loop {
            let due = match self.take_one_now() {
                Ok(taken) => return taken,
                Err(due) => due,
            };
            let arrived = self.arrived.notified();
            match due {
                Some(due) => drop(tokio::time::timeout_at(due.into(), arrived).await),
                None => arrived.await,
            }
        }
    }

    /// Drops what waits; the requests' tasks see it at once.
    pub(crate) fn abandon(&self) {
        self.lock().clear();
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Else: when the next one is due, if any waits.
    fn take_one_now(&self) -> Result<Queued, Option<Instant>> {
        let mut waiting = self.lock();
        let now = Instant::now();
        loop {
            let free = waiting.iter().position(|queued| queued.retry_at.is_none());
            let held = waiting
                .iter()
                .position(|queued| queued.retry_at.is_some_and(|due| due <= now));
            let next = if self.turn_of_held.load(Ordering::Relaxed) {
                held.or(free)
            } else {
                free.or(held)
            };
            let Some(queued) = next.and_then(|next| waiting.remove(next)) else {
                return Err(waiting.iter().filter_map(|queued| queued.retry_at).min());
            };
            if !queued.is_abandoned() && queued.place.take() {
                self.turn_of_held.store(queued.retry_at.is_none(), Ordering::Relaxed);
                return Ok(queued);
            }
        }
    }

    fn take_now(&self, limits: BatchLimits) -> Vec<Queued> {
        let mut waiting = self.lock();
        let (mut taken, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = waiting.front() {
            let (more_rows, more_bytes) = (
                rows + next.request.rows_to_write(),
                bytes + next.request.bytes_to_write(),
            );
            let full = taken.len() >= limits.requests || more_rows > limits.rows || more_bytes > limits.bytes;
            if full && !taken.is_empty() {
                break;
            }
            let Some(next) = waiting.pop_front() else { break };
            // Withdrawn at its deadline, or its client has gone: nothing was begun for it.
            if next.is_abandoned() || !next.place.take() {
                continue;
            }
            (rows, bytes) = (more_rows, more_bytes);
            taken.push(next);
        }
        if !waiting.is_empty() {
            // One wake-up may stand for several arrivals: pass it on.
            self.arrived.notify_one();
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Accepts requests: decodes them, groups them into batches, answers when their transaction is committed.
//!
//! A receipt means: committed and flushed, in this request or an earlier one with the same bytes. Anything else is a [`Refusal`],
//! after which the sender may send again. How bytes are read is `wire`'s and `event`'s, the transaction is `timescale`'s,
//! the HTTP answer is `http`'s.

mod admission;
mod committers;
mod decode;
mod encode;
mod failures;
mod identity;
mod kept;
mod patterns;
mod queue;
mod readiness;
mod redecode;

use std::{
    net::IpAddr,
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

pub use self::{
    admission::{Admission, Reservation},
    kept::Undecodable,
    patterns::{NewPatterns, Patterns},
    readiness::Readiness,
    redecode::Redecoder,
};
use self::{
    committers::{CommitterTask, LaneKind},
    decode::{Decoded, Decoder},
    queue::{Lanes, Place, Queued},
};
#[cfg(any(test, feature = "targets"))]
use crate::timescale::WriteRequest;
use crate::{
    config::{self, Config},
    elasticsearch::Targets,
    event::{Digest, InvalidAliases, Timestamp},
    shutdown::Tasks,
    telemetry::metric,
    timescale::{Clock, Receipt},
    wire::may_expand,
};

/// Bodies above this are decoded on the blocking pool: about half a millisecond of work.
const INLINE_BYTES_MAX: usize = 128 * 1024;
/// After so long without PostgreSQL requests are refused at once instead of waiting for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request as it came in.
#[derive(Debug)]
pub struct Incoming {
    /// The body as received.
    pub body: Bytes,
    /// Length of the body as sent; more than `body` holds if it was over the limit and discarded.
    pub body_bytes: u64,
    /// Path of the URL.
    pub path: String,
    /// Header `content-type`.
    pub content_type: Option<String>,
    /// Header `content-encoding`.
    pub content_encoding: Option<String>,
    /// Header `idempotency-key`.
    pub idempotency_key: Option<Vec<u8>>,
    /// The tenant of the credential, if there is one.
    pub tenant: Option<Arc<str>>,
    /// Who sent it.
    pub address: Option<IpAddr>,
}

/// How a request ended that was not refused.
#[derive(Debug)]
pub enum Accepted {
    /// All its events are committed or dead letters.
    Committed(Receipt),
    /// Nothing of it could be read; it is kept as a dead letter, found by this digest.
    Undecodable(Undecodable, Digest),
}

/// Why a request was not taken; the sender may send it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Memory for requests is used up.
    #[error("too much in flight: the bytes in http.inflight_bytes_max are in use")]
    Busy,
    /// Memory for requests that commit apart from the others is used up.
    #[error("too many late events in flight: half of the bytes in http.inflight_bytes_max are in use by them")]
    LateBusy,
    /// It needs more memory than all requests together may use.
    #[error("needs {bytes} bytes of memory, more than http.inflight_bytes_max")]
    NeverFits {
        /// What it needs, at least.
        bytes: usize,
    },
    /// Nothing can be committed now.
    #[error("not committed: {0}")]
    Unavailable(String),
}

/// Takes requests. Clones share the lanes.
#[derive(Debug, Clone)]
pub struct Ingestor {
    decoder: Arc<Decoder>,
    lanes: Arc<Lanes>,
    readiness: Readiness,
    admission: Admission,
    clock: Clock,
    /// One for each processor: more bodies at once would only hold more memory.
    decoding: Arc<Semaphore>,
    answer_timeout: Duration,
    late_after: Duration,
}

impl Ingestor {
    /// Prepares to take requests; nothing is committed until [`Ingestor::spawn_committers`].
    ///
    /// # Errors
    /// If an alias list can't be used.
    pub fn new(
        config: &Config,
        targets: Option<Targets>,
        readiness: Readiness,
        patterns: Patterns,
    ) -> Result<Self, InvalidAliases> {
        Ok(Self {
            decoder: Arc::new(Decoder::new(config, targets, Some(patterns))?),
            lanes: Arc::default(),
            readiness,
            admission: Admission::new(config.http.inflight_bytes_max),
            clock: Clock::default(),
            decoding: Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZero::get))),
            answer_timeout: config.http.answer_timeout,
            late_after: config.database.late_after,
        })
    }

    /// Starts the committers: the configured number, and one for the late lane. They end when `stopping` is set and nothing waits.
    pub fn spawn_committers(
        &self,
        tasks: &Tasks,
        settings: &config::Database,
        instance: &str,
        committed: &Arc<Notify>,
    ) {
        let normal = (1..=settings.committers).map(|number| (LaneKind::Normal, number.to_string()));
        for (kind, role) in normal.chain([(LaneKind::Late, "late".to_owned())]) {
            let task = CommitterTask {
                name: format!("{instance} {role}"),
                kind,
                lanes: Arc::clone(&self.lanes),
                settings: settings.clone(),
                readiness: self.readiness.clone(),
                committed: Arc::clone(committed),
                stopping: tasks.stopping(),
            };
            tasks.spawn(&format!("committer {role}"), task.run());
        }
    }

    /// The clock by which events are judged; requests wait until it was set.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The bytes that requests hold and may hold.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Requests that wait for a committer: normal lane, late lane.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.lanes.normal.len(), self.lanes.late.len())
    }

    /// Takes one request whose body is complete, and returns when its fate is known.
    ///
    /// # Errors
    /// [`Refusal`] if nothing of it was, or is known to be, committed.
    ///
    /// # Cancel safety
    /// Dropped while it waits for a committer, the request is withdrawn; dropped later, the commit goes on.
    pub async fn accept(&self, incoming: Incoming, reservation: Reservation) -> Result<Accepted, Refusal> {
        let deadline = Instant::now() + self.answer_timeout;
        if let Some(problem) = self.hopeless() {
            return Err(Refusal::Unavailable(problem));
        }
        let Ok(now) = timeout_at(deadline, self.clock.now()).await else {
            return Err(Refusal::Unavailable(self.problem()));
        };
        let (decoded, reservation) = self.decode(incoming, reservation, now, deadline).await?;
        let span = decoded.request.rows.span();
        let is_late = span.is_some_and(|(oldest, _)| oldest < earlier(now, self.late_after));
        self.commit(decoded, reservation, is_late, deadline).await
    }

    /// Keeps what is known of a body that is over the limit; `body` is the hash of what was read of it.
    ///
    /// # Errors
    /// As [`Ingestor::accept`].
    pub async fn accept_too_large(
        &self,
        mut incoming: Incoming,
        body: Digest,
        limit: usize,
    ) -> Result<Accepted, Refusal> {
        let deadline = Instant::now() + self.answer_timeout;
        if let Some(problem) = self.hopeless() {
            return Err(Refusal::Unavailable(problem));
        }
        let detail = format!(
            "the body has {} bytes, more than http.body_bytes_max = {limit}",
            incoming.body_bytes
        );
        let undecodable = Undecodable {
            reason: "body_too_large".to_owned(),
            detail,
            too_large: true,
        };
        // With tenant and path in it: two tenants may send the same body.
        incoming.body = Bytes::copy_from_slice(&body.0);
        let digest = self.decoder.digest(&incoming);
        incoming.body = Bytes::new();
        let decoded = self.decoder.keep_body(&incoming, digest, undecodable);
        self.commit(decoded, self.admission.open(), false, deadline).await
    }

    async fn decode(
        &self,
        incoming: Incoming,
        mut reservation: Reservation,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(Decoded, Reservation), Refusal> {
        let decoder = Arc::clone(&self.decoder);
        let encoding = incoming.content_encoding.as_deref();
        let is_small = incoming.body.len() <= INLINE_BYTES_MAX && !may_expand(&incoming.body, encoding);
        let work = move || {
            // The same bytes would panic again, for ever: they are kept, and answered.
            let decoded = panic::catch_unwind(AssertUnwindSafe(|| decoder.decode(&incoming, &mut reservation, now)))
                .unwrap_or_else(|_| Ok(decoder.keep_panicked(&incoming)))?;
            Ok((decoded, reservation))
        };
        if is_small {
            return work();
        }
        let busy = || Refusal::Unavailable("no processor was free to decode the request in time".to_owned());
        let permit = timeout_at(deadline, Arc::clone(&self.decoding).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(busy)?;
        let work = move || {
            // Given back when the work ends, also if nobody waits for it any more.
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(Refusal::Unavailable(format!("decoding the request failed: {error}"))))
    }

    /// What one request brings to its commit, without admission of its body and without a queue: for [`crate::targets`].
    ///
    /// # Errors
    /// As [`Ingestor::accept`], for want of memory.
    #[cfg(any(test, feature = "targets"))]
    pub(crate) fn decode_now(&self, incoming: &Incoming, now: Timestamp) -> Result<WriteRequest, Refusal> {
        let decoded = self.decoder.decode(incoming, &mut self.admission.open(), now)?;
        Ok(decoded.request)
    }

    async fn commit(
        &self,
        decoded: Decoded,
        mut reservation: Reservation,
        is_late: bool,
        deadline: Instant,
    ) -> Result<Accepted, Refusal> {
        let Decoded { request, undecodable } = decoded;
        let digest = request.digest;
        if is_late && !reservation.enter_late() {
            metric::late("refused");
            return Err(Refusal::LateBusy);
        }
        let place = Place::default();
        let (answer, answered) = oneshot::channel();
        let queued = Queued {
            request,
            place: place.clone(),
            answer,
            failures_alone: 0,
            commits_at_first_failure: 0,
            retry_at: None,
            reservation,
        };
        if is_late {
            metric::late("old");
            self.lanes.late.push(queued);
        } else {
            self.lanes.normal.push(queued);
        }
        let answered = Answered {
            lanes: &self.lanes,
            receipt: Some(answered),
        };
        let receipt = self.wait(&place, answered, deadline).await?;
        Ok(match undecodable {
            None => Accepted::Committed(receipt),
            Some(undecodable) => Accepted::Undecodable(undecodable, digest),
        })
    }

    /// Waits for the receipt until the deadline.
    ///
    /// A transaction that was begun by then goes on without the sender and keeps its bytes reserved until it has ended;
    /// the digest makes the sender's next attempt exact, whatever became of this one.
    async fn wait(&self, place: &Place, mut answered: Answered<'_>, deadline: Instant) -> Result<Receipt, Refusal> {
        match timeout_at(deadline, answered.receipt()).await {
            Ok(receipt) => receipt,
            Err(_) if place.withdraw() => Err(Refusal::Unavailable(self.problem())),
            Err(_) => Err(Refusal::Unavailable(
                "the transaction did not end in time; whether it committed is known when the request is sent again"
                    .to_owned(),
            )),
        }
    }

    fn problem(&self) -> String {
        self.readiness
            .problem()
            .unwrap_or_else(|| "no committer was free in time".to_owned())
    }

    /// Why waiting makes no sense: shutting down, or no PostgreSQL for a while.
    fn hopeless(&self) -> Option<String> {
        let problem = self.readiness.problem()?;
        let hopeless = self.readiness.is_closing() || self.readiness.unready_for().is_some_and(|time| time > PATIENCE);
        hopeless.then_some(problem)
    }
}

/// The answer that a request waits for. Dropped before it came, the lanes are swept: what waited there for nobody holds memory.
struct Answered<'a> {
    lanes: &'a Lanes,
    receipt: Option<oneshot::Receiver<Result<Receipt, Refusal>>>,
}

impl Answered<'_> {
    async fn receipt(&mut self) -> Result<Receipt, Refusal> {
        let gone = || Refusal::Unavailable("shutting down".to_owned());
        let receipt = self.receipt.as_mut().ok_or_else(gone)?.await;
        self.receipt = None;
        receipt.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            drop(receipt);
            self.lanes.normal.sweep();
            self.lanes.late.sweep();
        }
    }
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

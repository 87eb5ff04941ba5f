//! Pauses: when nothing, or nothing of one stream, is claimed for a while.
//!
//! After a failure one worker at a time probes; a success opens the gate for all. A stream whose documents are (nearly) all refused alike,
//! bulk after bulk, pauses too: a broken mapping must not pour it into the dead letters. A stream that had little to claim
//! rests for `delivery.linger`: many small claims and bulks cost all three processes several times what a larger one does.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::config;

/// Refused documents that bulks in a row must add up to before their stream pauses: below, they are single bad events.
const BREAKER_DOCUMENTS_MIN: usize = 50;
/// Share of a bulk, in percent, that must be refused alike.
const BREAKER_PERCENT: usize = 90;

/// The gate of all workers of this process.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    retry: (Duration, Duration),
    linger: Duration,
    breaker_bulks: u32,
    documents: AtomicUsize,
    documents_max: usize,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    cluster: Option<Pause>,
    /// Whether somebody probes the cluster now.
    is_probed: bool,
    streams: HashMap<String, Pause>,
    refusals: HashMap<String, Refusals>,
    /// Streams that rest, and until when.
    resting: HashMap<Arc<str>, Instant>,
}

/// One pause.
#[derive(Debug, Clone)]
struct Pause {
    until: Instant,
    failures: u32,
    reason: String,
}

/// Refusals of one stream that are alike, in bulks in a row.
#[derive(Debug, Default)]
struct Refusals {
    alike: String,
    bulks: u32,
    documents: usize,
}

impl Gate {
    pub(super) fn new(settings: &config::Delivery, documents_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            retry: (settings.retry_min, settings.retry_max),
            linger: settings.linger,
            breaker_bulks: settings.breaker_bulks,
            documents: AtomicUsize::new(documents_max),
            documents_max,
            opened: Notify::new(),
        }
    }

    /// Ends when a pause ends by a success: who waits for another's probe need not wait longer.
    pub(super) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// The pause before attempt number `failures + 1`: doubled each time, between half and all of it by chance.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let (least, most) = self.retry;
        let full = least
            .saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(most);
        let chance = uuid::Uuid::new_v4().as_bytes().first().copied().unwrap_or_default();
        full / 2 + full / 2 * u32::from(chance) / u32::from(u8::MAX)
    }

    /// Whether anything may be claimed; if the cluster failed before, the caller is its probe and others wait meanwhile.
    pub(super) fn may_claim(&self, now: Instant) -> bool {
        let retry_max = self.retry.1;
        let state = &mut *self.lock();
        match &mut state.cluster {
            None => true,
            Some(pause) if pause.until > now => false,
            Some(pause) => {
                pause.until = now + retry_max;
                state.is_probed = true;
                true
            }
        }
    }

    /// A claim found nothing to send: if it was a probe, the next one need not wait for it.
    pub(super) fn nothing_to_probe(&self) {
        let state = &mut *self.lock();
        if let Some(pause) = &mut state.cluster
            && std::mem::take(&mut state.is_probed)
        {
            pause.until = Instant::now();
        }
    }

    /// A claim at this time took all that the stream had, and it was little: what comes next is gathered for a while.
    pub(super) fn let_rest(&self, stream: &Arc<str>, now: Instant) {
        if !self.linger.is_zero() {
            self.lock().resting.insert(Arc::clone(stream), now + self.linger);
        }
    }

    /// When the first stream of those that rest has rested.
    pub(super) fn rest_ends(&self, now: Instant) -> Option<Instant> {
        let state = self.lock();
        state.resting.values().filter(|until| **until > now).min().copied()
    }

    /// Streams to leave alone now: those that pause, and those that rest.
    pub(super) fn left_alone(&self, now: Instant) -> Vec<String> {
        let mut state = self.lock();
        state.resting.retain(|_, until| *until > now);
        // It is tried again once its pause is over: if nobody did for long, nothing of it waits. Another replica had it.
        let long = self.retry.1 * 4;
        state.streams.retain(|_, pause| now < pause.until + long);
        let paused = state.streams.iter().filter(|(_, pause)| pause.until > now);
        let paused = paused.map(|(stream, _)| stream.clone());
        paused
            .chain(state.resting.keys().map(|stream| stream.to_string()))
            .collect()
    }

    /// A stream was claimed: if it failed before, the caller is its probe and others wait meanwhile.
    pub(super) fn probe_stream(&self, stream: &str, now: Instant) {
        let retry_max = self.retry.1;
        if let Some(pause) = self.lock().streams.get_mut(stream) {
            pause.until = now + retry_max;
        }
    }

    /// The cluster does not answer, or not usefully.
    pub(super) fn pause_cluster(&self, reason: &str) -> Duration {
        let mut state = self.lock();
        let failures = state.cluster.as_ref().map_or(0, |pause| pause.failures) + 1;
        let pause = self.pause(failures);
        if failures == 1 {
            tracing::warn!(
                reason,
                "elasticsearch does not take documents; delivery pauses, events wait in the outbox"
            );
        }
        state.is_probed = false;
        state.cluster = Some(Pause {
            until: Instant::now() + pause,
            failures,
            reason: reason.to_owned(),
        });
        pause
    }

    /// One stream does not take documents.
    pub(super) fn pause_stream(&self, stream: &str, reason: &str) -> Duration {
        let mut state = self.lock();
        let before = state.streams.get(stream);
        let failures = before.map_or(0, |pause| pause.failures) + 1;
        let pause = self.pause(failures);
        if before.is_none_or(|before| before.reason != reason) {
            tracing::error!(
                stream,
                reason,
                "the stream does not take documents; it pauses, its events wait in the outbox"
            );
        }
        state.streams.insert(
            stream.to_owned(),
            Pause {
                until: Instant::now() + pause,
                failures,
                reason: reason.to_owned(),
            },
        );
        pause
    }

    /// The cluster answered a request as it should.
    pub(super) fn open_cluster(&self) {
        if let Some(pause) = self.lock().cluster.take() {
            tracing::info!(
                failures = pause.failures,
                "elasticsearch answers again; delivery goes on"
            );
            self.opened.notify_waiters();
        }
        // Grows back by a tenth with each success.
        let documents = self.documents.load(Ordering::Relaxed);
        self.documents.store(
            (documents + documents / 10 + 1).min(self.documents_max),
            Ordering::Relaxed,
        );
    }

    /// A bulk without refusals: those before it were single bad events.
    pub(super) fn forget_refusals(&self, stream: &str) {
        self.lock().refusals.remove(stream);
    }

    /// The stream gave verdicts that settle documents.
    pub(super) fn open_stream(&self, stream: &str) {
        if self.lock().streams.remove(stream).is_some() {
            tracing::info!(stream, "the stream takes documents again");
            self.opened.notify_waiters();
        }
    }

    /// Whether refusals of a bulk may become dead letters; false if the stream pauses instead.
    ///
    /// `sent` documents were sent, `refused` of them with the same status and type `alike`.
    pub(super) fn may_bury(&self, stream: &str, alike: &str, refused: usize, sent: usize) -> bool {
        let mut state = self.lock();
        if refused * 100 < sent * BREAKER_PERCENT {
            state.refusals.remove(stream);
            return true;
        }
        let refusals = state.refusals.entry(stream.to_owned()).or_default();
        if refusals.alike != alike {
            *refusals = Refusals {
                alike: alike.to_owned(),
                ..Refusals::default()
            };
        }
        refusals.bulks = refusals.bulks.saturating_add(1);
        refusals.documents = refusals.documents.saturating_add(refused);
        refusals.bulks < self.breaker_bulks || refusals.documents < BREAKER_DOCUMENTS_MIN
    }

    /// Documents in one bulk at most, as back-pressure allows now.
    pub(super) fn documents(&self) -> usize {
        self.documents.load(Ordering::Relaxed)
    }

    /// The cluster refused a whole bulk for want of room: halves are tried next.
    pub(super) fn halve_documents(&self) {
        let half = (self.documents() / 2).clamp(1, self.documents_max.max(1));
        self.documents.store(half, Ordering::Relaxed);
    }

    /// Why nothing, or nothing of some stream, is sent now; for status.
    pub(super) fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let cluster = state.cluster.iter().map(|pause| pause.reason.clone());
        let streams = state
            .streams
            .iter()
            .map(|(stream, pause)| format!("{stream}: {}", pause.reason));
        cluster.chain(streams).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let settings = config::Delivery {
            workers: 2,
            lease: Duration::from_secs(30),
            renew_every: Duration::from_secs(10),
            poll_every: Duration::from_secs(1),
            linger: Duration::from_millis(200),
            claim_events_max: 5_000,
            claim_bytes_max: 8_000_000,
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            breaker_bulks: 3,
        };
        Gate::new(&settings, 2_000)
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let gate = gate();
        for (failures, full) in [
            (1, 500),
            (2, 1_000),
            (6, 16_000),
            (7, 30_000),
            (40, 30_000),
            (u32::MAX, 30_000),
        ] {
            let pause = gate.pause(failures);
            let full = Duration::from_millis(full);
            assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn one_worker_probes_a_cluster_that_failed() {
        let gate = gate();
        let now = Instant::now();
        assert!(gate.may_claim(now) && gate.may_claim(now));
        let pause = gate.pause_cluster("down");
        assert!(!gate.may_claim(now));
        // By one who began before the pause.
        gate.nothing_to_probe();
        assert!(!gate.may_claim(now));
        // Past all that a slow machine does meanwhile.
        let later = Instant::now() + pause + Duration::from_secs(3_600);
        assert!(gate.may_claim(later));
        assert!(!gate.may_claim(later), "a second probe");
        gate.nothing_to_probe();
        assert!(gate.may_claim(later), "the next one");
        gate.open_cluster();
        assert!(gate.may_claim(later) && gate.may_claim(later));
    }

    #[test]
    fn a_stream_with_little_rests_and_no_other() {
        let gate = gate();
        let now = Instant::now();
        assert_eq!(gate.rest_ends(now), None);
        gate.let_rest(&Arc::from("s"), now);
        let rested = now + Duration::from_millis(200);
        assert_eq!(gate.rest_ends(now), Some(rested));
        assert_eq!(gate.left_alone(now), ["s"]);
        assert_eq!(gate.rest_ends(rested), None);
        assert!(gate.left_alone(rested).is_empty());
    }

    #[tokio::test]
    async fn a_success_wakes_all_who_wait_for_the_probe() {
        let gate = gate();
        gate.pause_cluster("down");
        gate.pause_stream("s", "refused");
        for open in [Gate::open_cluster as fn(&Gate), |gate| gate.open_stream("s")] {
            let waiting = [gate.opened.notified(), gate.opened.notified()];
            open(&gate);
            for one in waiting {
                assert!(futures::poll!(std::pin::pin!(one)).is_ready());
            }
        }
    }

    #[test]
    fn a_stream_that_nobody_tries_again_is_no_problem_any_more() {
        let gate = gate();
        let now = Instant::now();
        gate.pause_stream("s", "refused");
        assert_eq!(gate.left_alone(now), ["s"]);
        assert!(gate.left_alone(now + Duration::from_secs(60)).is_empty());
        assert_eq!(gate.problems(), ["s: refused"], "it is to be tried");
        gate.probe_stream("s", now + Duration::from_secs(60));
        assert!(gate.left_alone(now + Duration::from_secs(200)).is_empty());
        assert_eq!(gate.problems(), ["s: refused"], "it was tried");
        gate.left_alone(now + Duration::from_secs(300));
        assert!(gate.problems().is_empty());
    }

    #[test]
    fn refusals_that_are_all_alike_are_not_buried_for_long() {
        let gate = gate();
        let buried: Vec<bool> = (0..4).map(|_| gate.may_bury("s", "400 t", 100, 100)).collect();
        assert_eq!(buried, [true, true, false, false]);
        assert!(gate.may_bury("s", "400 other", 100, 100), "another reason begins anew");
    }

    #[test]
    fn single_bad_events_never_pause_a_stream() {
        let gate = gate();
        assert!((0..BREAKER_DOCUMENTS_MIN - 1).all(|_| gate.may_bury("s", "400 t", 1, 1)));
        gate.forget_refusals("s");
        assert!((0..10).all(|_| gate.may_bury("s", "400 t", 50, 100)));
    }

    #[test]
    fn bulks_shrink_under_back_pressure_and_grow_back() {
        let gate = gate();
        (0..20).for_each(|_| gate.halve_documents());
        assert_eq!(gate.documents(), 1);
        (0..100).for_each(|_| gate.open_cluster());
        assert_eq!(gate.documents(), 2_000);
    }
}

//! Delivery: committed events get to Elasticsearch, once, whatever dies when.
//!
//! One path, which takes no input but the database; a commit only wakes it. What runs after a crash, after an outage and on another
//! replica is what runs always:
//!
//! 1. claim outbox rows (a lease, committed before anything is sent; `attempts + 1`),
//! 2. read their events back,
//! 3. on a second or later attempt: ask all backing indices which of them are there (Elasticsearch knows ids only within one index),
//!    and delete all copies but the oldest,
//! 4. `_bulk` `create` the rest under their ids; a 409 means it is there already,
//! 5. settle: rows done or kept with what is still open, dead letters and books in one transaction, conditional on the claim.
//!
//! A crash after 1-3 sent nothing: the lease ends and the row is claimed again. After a crash after 4 the look-up finds the documents,
//! and a copy too many, if a rollover let one in. A claim lost while sending settles nothing; copies that went to another index are
//! removed: `lost`. What a `_bulk` brings that is applied after its documents were settled is looked for: `late`.

mod copies;
mod documents;
mod gate;
mod late;
mod lost;
mod mirror;
mod put_off;
mod send;
mod suspects;
mod tally;
mod turns;
mod worker;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::mirror::{Mirror, MirrorState};
use self::{gate::Gate, put_off::PutOff, suspects::Suspects, turns::Turns, worker::Worker};
use crate::{
    config,
    elasticsearch::{Client, DocumentWriter, Targets},
    shutdown::Tasks,
    timescale::{Outbox, OutboxId, OutboxRow, requeue_annotated},
};

/// What delivery works with.
#[derive(Debug)]
pub struct Delivery {
    outbox: Outbox,
    client: Client,
    documents: DocumentWriter,
    targets: Targets,
    settings: config::Delivery,
    limits: BulkLimits,
    gate: Gate,
    suspects: Suspects,
    put_off: PutOff,
    mirror: Mirror,
    /// This process in the outbox: claims carry it.
    owner: Uuid,
    /// Claims that are worked on, to be renewed: a row and its attempts, and until when it is certainly held.
    claims: Mutex<HashMap<(OutboxId, i32), Instant>>,
    /// Whose turn it is; taken while rows are claimed. Workers that come at once would share out what was gathered, and hide
    /// rows from one another, so that a stream with much looks like one with little.
    turns: tokio::sync::Mutex<Turns>,
    /// Taken while a claim above `delivery.claim_bytes_max` is worked on: one event that large, and one at a time.
    oversized: tokio::sync::Mutex<()>,
    /// How long a shutdown waits for bulks that were sent and for lost claims.
    drain: Duration,
}

/// How large one `_bulk` may be.
#[derive(Debug, Clone, Copy)]
pub struct BulkLimits {
    /// Documents.
    pub documents: usize,
    /// Bytes before compression.
    pub bytes: usize,
}

/// Everything [`Delivery::new`] needs.
#[derive(Debug)]
pub struct Parts {
    /// The outbox.
    pub outbox: Outbox,
    /// The cluster.
    pub client: Client,
    /// Makes documents.
    pub documents: DocumentWriter,
    /// Names streams or indices.
    pub targets: Targets,
    /// Section `[delivery]`.
    pub settings: config::Delivery,
    /// Limits of one bulk.
    pub limits: BulkLimits,
    /// Whether the templates are in place.
    pub mirror: Mirror,
    /// How long a shutdown waits for bulks that were sent and for lost claims.
    pub drain: Duration,
}

/// Claims that are renewed.
#[must_use]
struct KeptClaims<'d> {
    delivery: &'d Delivery,
    claims: Vec<(OutboxId, i32)>,
}

impl Drop for KeptClaims<'_> {
    fn drop(&mut self) {
        self.delivery.claims().retain(|claim, _| !self.claims.contains(claim));
    }
}

impl Delivery {
    /// Prepares delivery; nothing is claimed until [`Delivery::spawn`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            gate: Gate::new(&parts.settings, parts.limits.documents),
            suspects: Suspects::default(),
            put_off: PutOff::default(),
            outbox: parts.outbox,
            client: parts.client,
            documents: parts.documents,
            targets: parts.targets,
            settings: parts.settings,
            limits: parts.limits,
            mirror: parts.mirror,
            owner: Uuid::new_v4(),
            claims: Mutex::default(),
            turns: tokio::sync::Mutex::new(Turns::beginning_at(Instant::now())),
            oversized: tokio::sync::Mutex::default(),
            drain: parts.drain,
        }
    }

    /// Whether Elasticsearch is prepared.
    #[must_use]
    pub fn mirror_state(&self) -> MirrorState {
        self.mirror.state()
    }

    /// Version of the cluster, once it was reached.
    #[must_use]
    pub fn cluster_version(&self) -> Option<String> {
        self.mirror.cluster_version()
    }

    /// Why nothing, or nothing of some stream, is sent now; empty if all goes well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.gate.problems()
    }

    /// Gives back what this process claimed and did not settle, so that another replica need not wait for the lease's end.
    pub async fn release(&self) {
        match self.outbox.release(self.owner).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "released claims"),
            Err(error) => tracing::warn!(%error, "could not release claims; they end with their lease"),
        }
    }

    /// Starts the workers and the renewal of their claims. `bare_tenant` is not mixed into documents' ids.
    pub fn spawn(self: &Arc<Self>, tasks: &Tasks, instance: &str, bare_tenant: &Arc<str>, committed: &Arc<Notify>) {
        let (lost_claims, handed_over) = lost::lost_claims_channel();
        for number in 1..=self.settings.workers {
            let name = format!("delivery {number}");
            let worker = Worker {
                name: format!("{instance} {name}"),
                delivery: Arc::clone(self),
                bare_tenant: Arc::clone(bare_tenant),
                committed: Arc::clone(committed),
                lost_claims: lost_claims.clone(),
                stopping: tasks.stopping(),
            };
            tasks.spawn(&name, worker.run());
        }
        let (delivery, stopping) = (Arc::clone(self), tasks.stopping());
        tasks.spawn("lost claims", async move {
            delivery.work_on_lost_claims(handed_over, &stopping).await;
        });
        let (delivery, stopping) = (Arc::clone(self), tasks.stopping());
        tasks.spawn("claim renewal", async move { delivery.renew_claims(stopping).await });
        let (delivery, stopping, worker) = (Arc::clone(self), tasks.stopping(), format!("{instance} annotations"));
        let again = Arc::clone(committed);
        tasks.spawn("annotations", async move {
            stopping
                .run_until_cancelled(delivery.requeue_annotated(&worker, &again))
                .await;
        });
        let (worker, bare_tenant) = (format!("{instance} dead letters"), Arc::clone(bare_tenant));
        let late = Arc::clone(self).look_for_late_bulks(worker, bare_tenant, Arc::clone(committed));
        let stopping = tasks.stopping();
        tasks.spawn("late bulks", async move {
            stopping.run_until_cancelled(late).await;
        });
    }

    /// Waits for a shutdown, and then as long as that gives to bulks that were sent and to lost claims.
    async fn wait_until_cut_off(&self, stopping: &CancellationToken) {
        stopping.cancelled().await;
        tokio::time::sleep(self.drain).await;
    }

    /// Looks for annotated events and puts them into the outbox, where every worker finds them.
    async fn requeue_annotated(&self, worker: &str, committed: &Notify) {
        loop {
            tokio::time::sleep(self.settings.poll_every).await;
            let target_of = |tenant: &str, time| self.targets.target(tenant, time);
            match requeue_annotated(self.outbox.pool(), worker, target_of).await {
                Ok(0) => {}
                Ok(_) => committed.notify_one(),
                Err(error) => tracing::warn!(%error, "annotated events are not in the outbox yet; it is tried again"),
            }
        }
    }

    /// Renews the claims that are worked on. A claim that can't be renewed is noticed when it is settled.
    async fn renew_claims(&self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.settings.renew_every) => {}
                () = stopping.cancelled() => return,
            }
            let claims: Vec<(OutboxId, i32)> = self.claims().keys().copied().collect();
            if claims.is_empty() {
                continue;
            }
            let asked = Instant::now();
            let renewed = tokio::select! {
                renewed = self.outbox.renew(self.owner, &claims, self.settings.lease) => renewed,
                () = stopping.cancelled() => return,
            };
            match renewed {
                Ok(renewed) => {
                    for (_, until) in self.claims().iter_mut().filter(|((row, _), _)| renewed.contains(row)) {
                        *until = asked + self.settings.lease;
                    }
                }
                Err(error) => tracing::warn!(%error, claim.count = claims.len(), "could not renew claims"),
            }
        }
    }

    /// Has claims that were asked for at this time renewed until the answer is dropped, by a panic too.
    fn keep_claims(&self, claims: Vec<(OutboxId, i32)>, asked: Instant) -> KeptClaims<'_> {
        let until = asked + self.settings.lease;
        self.claims().extend(claims.iter().map(|claim| (*claim, until)));
        KeptClaims { delivery: self, claims }
    }

    /// Whether all of these are certainly still held: by the monotonic clock, which goes on while the process is frozen.
    fn holds(&self, rows: &[OutboxRow]) -> bool {
        let (claims, now) = (self.claims(), Instant::now());
        let until = |row: &OutboxRow| claims.get(&(row.id, row.attempts));
        rows.iter().all(|row| until(row).is_some_and(|until| *until > now))
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashMap<(OutboxId, i32), Instant>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

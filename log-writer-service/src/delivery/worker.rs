//! One delivery worker: claim, read back, send, settle, again.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Delivery,
    documents::{Claim, Document, Progress},
    send::Halt,
};
use crate::{
    failpoint::failpoint,
    telemetry::metric,
    timescale::{ClaimOrder, ClaimRequest, OutboxId, OutboxRow, Settlement, StoreError},
};

/// One worker's task.
pub(super) struct Worker {
    /// Names its row in the books.
    pub(super) name: String,
    pub(super) order: ClaimOrder,
    pub(super) delivery: Arc<Delivery>,
    pub(super) committed: Arc<Notify>,
    pub(super) stopping: CancellationToken,
}

impl Worker {
    /// Delivers until the process stops. What was claimed and not settled by then is released.
    pub(super) async fn run(self) {
        let mut failures = 0_u32;
        let mut order = self.order;
        loop {
            if self.delivery.settings.workers == 1 {
                // The only worker serves both ends in turn.
                order = order.other();
            }
            tokio::select! {
                () = self.delivery.mirror.wait_until_ready() => {}
                () = self.stopping.cancelled() => return,
            }
            if self.stopping.is_cancelled() {
                return;
            }
            // A panic must stop neither the other workers nor ingest; the claim ends with its lease.
            let step = tokio::select! {
                step = AssertUnwindSafe(self.step(order)).catch_unwind() => step,
                () = self.cut_off() => return,
            };
            let Ok(step) = step else {
                tracing::error!("a delivery step panicked; its rows are tried again when their lease ends");
                self.pause(self.delivery.settings.retry_max).await;
                continue;
            };
            let pause = match step {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => self.delivery.settings.poll_every,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, "delivery can't use the outbox; trying again");
                    }
                    self.delivery.gate.pause(failures)
                }
            };
            tokio::select! {
                () = self.committed.notified(), if failures == 0 => {}
                () = tokio::time::sleep(pause) => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// The end of the time that a shutdown gives to a bulk that was sent.
    async fn cut_off(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(self.delivery.drain).await;
    }

    /// One claim from beginning to end; false if there was nothing to claim.
    async fn step(&self, order: ClaimOrder) -> Result<bool, StoreError> {
        let delivery = &self.delivery;
        let now = Instant::now();
        if !delivery.gate.may_claim(now) {
            return Ok(false);
        }
        let paused = delivery.gate.paused_streams(now);
        let request = ClaimRequest {
            owner: delivery.owner,
            lease: delivery.settings.lease,
            events_max: delivery.settings.claim_events_max,
            bytes_max: i64::try_from(delivery.settings.claim_bytes_max).unwrap_or(i64::MAX),
            order,
            paused: &paused,
        };
        let rows = delivery.outbox.claim(&request).await?;
        if rows.is_empty() {
            delivery.gate.nothing_to_probe();
            return Ok(false);
        }
        let later = rows.iter().filter(|row| row.attempts > 1).count();
        let taken_over = rows.iter().filter(|row| row.taken_over).count();
        metric::claimed(later, taken_over, rows.len());
        if let Some(row) = rows.first() {
            delivery.gate.probe_stream(&row.target, now);
        }
        let claims: Vec<(OutboxId, i32)> = rows.iter().map(|row| (row.id, row.attempts)).collect();
        delivery.note_claims(&claims);
        let result = self.deliver(rows).await;
        delivery.forget_claims(&claims);
        result.map(|()| true)
    }

    async fn deliver(&self, rows: Vec<OutboxRow>) -> Result<(), StoreError> {
        let delivery = &self.delivery;
        let events = delivery.outbox.read_back(&rows).await?;
        failpoint!("delivery::after_read_back");
        let Some(mut claim) = Claim::new(rows, events, &delivery.default_tenant) else {
            return Ok(());
        };
        let begun = Instant::now();
        if let Err(halt) = delivery.send(&mut claim).await {
            self.halt(&claim, halt);
        }
        failpoint!("delivery::before_settling");
        let settlements = claim.settlements(|attempts| delivery.gate.pause(attempts));
        self.report(&claim, &settlements, begun);
        let lost = delivery.outbox.settle(delivery.owner, &self.name, &settlements).await?;
        self.after_lost_claims(&claim, &lost).await;
        Ok(())
    }

    fn halt(&self, claim: &Claim, halt: Halt) {
        let delivery = &self.delivery;
        match halt {
            Halt::Cluster(reason) => {
                delivery.gate.pause_cluster(&reason);
            }
            Halt::Stream(reason) => {
                delivery.gate.pause_stream(&claim.target, &reason);
            }
            Halt::Outbox(error) => {
                tracing::warn!(%error, "could not read events again that are to go over their copies; trying again");
            }
            Halt::Template => {
                delivery
                    .gate
                    .pause_stream(&claim.target, "its index template is missing");
                delivery.mirror.ask_again();
            }
        }
    }

    /// What a claim that ended meanwhile created may stand in two indices: somebody else has sent it too.
    async fn after_lost_claims(&self, claim: &Claim, lost: &[OutboxId]) {
        if lost.is_empty() {
            return;
        }
        metric::claims_lost(lost.len());
        tracing::warn!(
            claim.count = lost.len(),
            "claims were lost while their documents were sent; the new owner settles them"
        );
        failpoint!("delivery::after_lost_claim");
        let is_lost = |document: &Document| claim.rows.get(document.row).is_some_and(|row| lost.contains(&row.id));
        let created =
            claim.positions(|document| is_lost(document) && matches!(document.progress, Progress::Created(_)));
        if let Err(error) = self.delivery.remove_doubles(claim, &created).await {
            tracing::error!(%error, document.count = created.len(),
                "could not check documents of lost claims for second copies; one may stay in a newer index");
        }
    }

    fn report(&self, claim: &Claim, settlements: &[Settlement], begun: Instant) {
        let indexed: i64 = settlements.iter().map(|settlement| settlement.indexed).sum();
        let dead: usize = settlements.iter().map(|settlement| settlement.dead.len()).sum();
        let expired: i64 = settlements.iter().map(|settlement| settlement.expired).sum();
        tracing::debug!(target.name = %claim.target, batch.count = claim.rows.len(), document.count = claim.documents.len(),
            document.indexed = indexed, document.dead_lettered = dead, elapsed_ms = begun.elapsed().as_secs_f64() * 1e3, "delivered");
        if dead > 0 {
            tracing::warn!(target.name = %claim.target, document.count = dead,
                "elasticsearch refused documents for good; they stand in log_writer.dead_letters with the reason");
        }
        if expired > 0 {
            tracing::error!(target.name = %claim.target, event.count = expired,
                "events were gone from application_logs before they reached elasticsearch; counted as expired");
        }
    }
}

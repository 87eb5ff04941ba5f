//! One delivery worker: claim, read back, send, settle, again.

use std::{
    mem,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
};
use tokio_util::sync::CancellationToken;

use super::{
    Delivery,
    documents::{Claim, Documents, Spare},
    lost::LostClaim,
    send::Halt,
};
use crate::{
    config,
    failpoint::failpoint,
    telemetry::metric,
    timescale::{CLAIM_ROWS_MAX, ClaimRequest, OutboxId, OutboxRow, Settlement, StoreError},
};

/// Since when there was no claim if, nothing being there to claim, the memory of the last one is given back.
const SPARE_KEPT: Duration = Duration::from_secs(1);

/// One worker's task.
pub(super) struct Worker {
    /// Names its row in the books.
    pub(super) name: String,
    pub(super) delivery: Arc<Delivery>,
    /// The tenant that is not mixed into documents' ids.
    pub(super) bare_tenant: Arc<str>,
    pub(super) committed: Arc<Notify>,
    /// Takes claims over that were lost and are not put right yet.
    pub(super) lost_claims: mpsc::Sender<LostClaim>,
    pub(super) stopping: CancellationToken,
}

impl Worker {
    /// Delivers until the process stops. What was claimed and not settled by then is released.
    pub(super) async fn run(self) {
        let mut failures = 0_u32;
        let (mut spare, mut claimed) = (Spare::default(), Instant::now());
        loop {
            tokio::select! {
                () = self.delivery.mirror.wait_until_ready() => {}
                () = self.stopping.cancelled() => return,
            }
            if self.stopping.is_cancelled() {
                return;
            }
            let asked = Instant::now();
            // A panic must stop neither the other workers nor ingest; the claim ends with its lease.
            let step = tokio::select! {
                step = AssertUnwindSafe(self.step(&mut spare)).catch_unwind() => step,
                () = self.delivery.wait_until_cut_off(&self.stopping) => return,
            };
            let Ok(step) = step else {
                tracing::error!("a delivery step panicked; its rows are tried again when their lease ends");
                self.pause(self.delivery.settings.retry_max).await;
                continue;
            };
            let (pause, rest) = match step {
                Ok(true) => {
                    failures = 0;
                    claimed = Instant::now();
                    continue;
                }
                // One that has ended since has kept nothing from being found but what came before its end.
                Ok(false) => (self.delivery.settings.poll_every, self.delivery.gate.rest_ends(asked)),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, "delivery can't use the outbox; trying again");
                    }
                    (self.delivery.gate.pause(failures), None)
                }
            };
            if claimed.elapsed() > SPARE_KEPT {
                spare = Spare::default();
            }
            let pause = rest.map_or(pause, |until| {
                pause.min(until.saturating_duration_since(Instant::now()))
            });
            tokio::select! {
                // A commit says of no stream: most go to one that rests, and to look after each would be in vain.
                () = self.committed.notified(), if failures == 0 && rest.is_none() => {}
                () = self.delivery.gate.opened() => {}
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

    /// One claim from beginning to end; false if there was nothing to claim.
    async fn step(&self, spare: &mut Spare) -> Result<bool, StoreError> {
        let delivery = &self.delivery;
        let mut turns = delivery.turns.lock().await;
        let now = Instant::now();
        if !delivery.gate.may_claim(now) {
            return Ok(false);
        }
        let left_alone = delivery.gate.left_alone(now);
        let turn = turns.next(now);
        let request = ClaimRequest {
            owner: delivery.owner,
            lease: delivery.settings.lease,
            events_max: delivery.settings.claim_events_max,
            bytes_max: i64::try_from(delivery.settings.claim_bytes_max).unwrap_or(i64::MAX),
            order: turns.order(turn),
            left_alone: &left_alone,
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
            let is_little = took_all_of_little(&rows, &delivery.settings);
            turns.had(turn, &row.target, !is_little, now);
            delivery.gate.probe_stream(&row.target, now);
            if is_little {
                delivery.gate.let_rest(&row.target, now);
            }
        }
        drop(turns);
        let claims: Vec<(OutboxId, i32)> = rows.iter().map(|row| (row.id, row.attempts)).collect();
        let _renewed = delivery.keep_claims(claims, now);
        self.deliver(rows, spare).await?;
        Ok(true)
    }

    async fn deliver(&self, rows: Vec<OutboxRow>, spare: &mut Spare) -> Result<(), StoreError> {
        let delivery = &self.delivery;
        let _alone = if OutboxRow::bytes_of(&rows) > delivery.settings.claim_bytes_max {
            Some(delivery.oversized.lock().await)
        } else {
            None
        };
        let documents_max = usize::try_from(delivery.settings.claim_events_max).unwrap_or_default();
        let mut documents = Documents::new(&rows, &self.bare_tenant, spare, documents_max);
        let place = |row, event| documents.push(row, event);
        delivery.outbox.read_each(&rows, place).await?;
        failpoint!("delivery::after_read_back");
        let documents = documents.finish();
        let Some(mut claim) = Claim::new(rows, documents, mem::take(spare)) else {
            return Ok(());
        };
        let begun = Instant::now();
        if let Err(halt) = delivery.send(&mut claim).await {
            self.halt(&claim, halt);
        }
        failpoint!("delivery::before_settling");
        let settlements = claim.settlements(|attempts| delivery.gate.pause(attempts));
        self.report(&claim, &settlements, begun);
        match delivery.outbox.settle(delivery.owner, &self.name, &settlements).await {
            Ok(lost) => {
                self.note_lost_claims(&lost);
                self.keep_one_copy_of(&claim, &lost).await;
                *spare = claim.into_spare(documents_max);
                Ok(())
            }
            Err(error) => {
                // Nobody knows whether they were lost.
                let all: Vec<OutboxId> = claim.rows.iter().map(|row| row.id).collect();
                self.keep_one_copy_of(&claim, &all).await;
                Err(error)
            }
        }
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
            Halt::Lease => {
                tracing::warn!(target.name = %claim.target, batch.count = claim.rows.len(),
                    "the lease of a claim ended before all of it was sent; whoever has it now sends the rest");
            }
            Halt::Outbox(error) => {
                tracing::warn!(%error, "could not read events again that are to go over their copies; trying again");
            }
            Halt::Template => {
                let ours = delivery.targets.searched(None);
                let reason = delivery.mirror.template_missing(&claim.target, ours.as_deref());
                delivery.gate.pause_stream(&claim.target, &reason);
            }
        }
    }

    fn note_lost_claims(&self, lost: &[OutboxId]) {
        if lost.is_empty() {
            return;
        }
        metric::claims_lost(lost.len());
        tracing::warn!(
            claim.count = lost.len(),
            "claims were lost while their documents were sent; the new owner settles them"
        );
        failpoint!("delivery::after_lost_claim");
    }

    /// Leaves one copy of what was sent for claims that ended meanwhile. If that is not done at once it goes on beside the
    /// worker, as long as not too many do.
    async fn keep_one_copy_of(&self, claim: &Claim, rows: &[OutboxId]) {
        let Some(mut lost) = LostClaim::of(claim, rows, &self.name) else {
            return;
        };
        if self.delivery.try_lost_claim(&mut lost).await {
            return;
        }
        if let Err(TrySendError::Full(lost) | TrySendError::Closed(lost)) = self.lost_claims.try_send(lost) {
            self.delivery.retry_lost_claim(lost).await;
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

/// Whether a claim took all that its stream had, and that was less than half of what a claim may be.
fn took_all_of_little(rows: &[OutboxRow], settings: &config::Delivery) -> bool {
    let claimable = rows.first().map_or(0, |row| row.claimable);
    let events: i64 = rows.iter().map(|row| row.events).sum();
    usize::try_from(claimable).is_ok_and(|claimable| claimable <= rows.len())
        && claimable < CLAIM_ROWS_MAX
        && events < settings.claim_events_max / 2
        && OutboxRow::bytes_of(rows) < settings.claim_bytes_max / 2
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{event::Timestamp, timescale::WorkKind};

    /// Fresh outbox rows of so many events each.
    pub(in super::super) fn rows(events: &[i64], claimable: i64) -> Vec<OutboxRow> {
        let row = |events: &i64| OutboxRow {
            id: OutboxId(1),
            batch_id: 1,
            target: Arc::from("s"),
            tenants: Vec::new(),
            first: Timestamp(0),
            last: Timestamp(0),
            events: *events,
            bytes: events * 1_000,
            kind: WorkKind::Fresh,
            open: None,
            attempts: 1,
            taken_over: false,
            awaits_bulk: false,
            claimable,
        };
        events.iter().map(row).collect()
    }

    #[test]
    fn little_is_less_than_half_and_nothing_left() {
        let file: toml::Table = toml::from_str(config::DEFAULT_FILE).unwrap();
        let mut settings: config::Delivery = file["delivery"].clone().try_into().unwrap();
        (settings.claim_events_max, settings.claim_bytes_max) = (100, 100_000);
        for (events, claimable, expected) in [
            (&[20, 20][..], 2, true),
            (&[20, 20], 3, false),
            (&[20, 30], 2, false),
            (&[1; 256], 256, false),
        ] {
            let rows = rows(events, claimable);
            assert_eq!(
                took_all_of_little(&rows, &settings),
                expected,
                "{events:?} of {claimable}"
            );
        }
        settings.claim_bytes_max = 70_000;
        assert!(!took_all_of_little(&rows(&[20, 20], 2), &settings), "by bytes");
    }
}

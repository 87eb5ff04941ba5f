//! Documents of claims that ended while they were sent: one copy of each stays, and no dead letter beside it.
//!
//! Somebody else has sent them too, so they may stand in two indices, and if that one has settled them, nobody looks again.
//! Or they were refused to that one, and have a letter though they are there. So it is tried for long: once by the worker
//! that lost the claim, then beside it, since the worker has other documents to send. It ends early with the process.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Delivery,
    documents::{Claim, Progress},
};
use crate::{
    elasticsearch::{DocumentId, SearchError},
    event::Timestamp,
    telemetry::metric,
    timescale::{OutboxId, Requeued, StoreError},
};

/// Times that it is tried: most of an hour with the pauses of `delivery.retry_max`.
const ATTEMPTS_MAX: u32 = 100;
/// Lost claims that are worked on beside the workers, at once; one more waits. Each is as many ids as a claim has documents.
const BESIDE_MAX: usize = 4;

/// What was sent for a lost claim.
#[derive(Debug)]
pub(super) struct LostClaim {
    target: Arc<str>,
    /// Its rows and their attempts.
    held: Vec<(OutboxId, i32)>,
    documents: Vec<Sent>,
    /// Whether second copies are deleted, but for those that had to stay; `documents` are then those that have a copy.
    has_one_copy_each: bool,
    failures: u32,
    /// Whether nothing is left to be tried: it is done, or given up.
    is_over: bool,
    /// Names the worker's row in the books.
    worker: String,
}

/// With the process, most often, wherever it was worked on or waited.
impl Drop for LostClaim {
    fn drop(&mut self) {
        let count = self.documents.len();
        if self.is_over {
            return;
        }
        if self.has_one_copy_each {
            tracing::warn!(
                document.count = count,
                "documents of lost claims were not checked for dead letters; an indexed event may have one: redrive it"
            );
        } else {
            tracing::warn!(
                document.count = count,
                "documents of lost claims were not checked for second copies; `verify` finds them"
            );
        }
    }
}

#[derive(Debug)]
struct Sent {
    id: DocumentId,
    event: (Uuid, Timestamp, Arc<str>),
}

#[derive(Debug, thiserror::Error)]
enum LostClaimError {
    #[error(transparent)]
    Copies(#[from] SearchError),
    #[error(transparent)]
    Letters(#[from] StoreError),
    #[error("somebody else still sends them")]
    StillSent,
}

impl LostClaim {
    /// What was sent for these rows of a claim; `None` if that is nothing.
    ///
    /// Documents that are open too: their bulk may have been applied without an answer.
    pub(super) fn of(claim: &Claim, rows: &[OutboxId], worker: &str) -> Option<Self> {
        if rows.is_empty() {
            return None;
        }
        let is_of_them = |row: usize| claim.rows.get(row).is_some_and(|row| rows.contains(&row.id));
        let sent = claim
            .documents
            .iter()
            .filter(|document| is_of_them(document.row) && !matches!(document.progress, Progress::Refused(_)));
        let documents: Vec<Sent> = sent
            .map(|document| Sent {
                id: document.id.clone(),
                event: (
                    document.event.id,
                    document.event.timestamp,
                    Arc::clone(&document.event.tenant),
                ),
            })
            .collect();
        (!documents.is_empty()).then(|| Self {
            target: Arc::clone(&claim.target),
            held: claim.rows.iter().map(|row| (row.id, row.attempts)).collect(),
            documents,
            has_one_copy_each: false,
            failures: 0,
            is_over: false,
            worker: worker.to_owned(),
        })
    }
}

/// Where workers hand lost claims over.
pub(super) fn lost_claims_channel() -> (mpsc::Sender<LostClaim>, mpsc::Receiver<LostClaim>) {
    mpsc::channel(1)
}

impl Delivery {
    /// Works on what the workers hand over, until they have ended or a shutdown waits no longer.
    pub(super) async fn work_on_lost_claims(
        &self,
        mut handed_over: mpsc::Receiver<LostClaim>,
        stopping: &CancellationToken,
    ) {
        let all = stream::poll_fn(move |context| handed_over.poll_recv(context))
            .for_each_concurrent(BESIDE_MAX, |lost| self.retry_lost_claim(lost));
        tokio::select! {
            () = all => {}
            () = self.wait_until_cut_off(stopping) => {}
        }
        // A task that ends before it is told to would stop the process.
        stopping.cancelled().await;
    }

    /// Tries again and again.
    pub(super) async fn retry_lost_claim(&self, mut lost: LostClaim) {
        loop {
            tokio::time::sleep(self.gate.pause(lost.failures)).await;
            if self.try_lost_claim(&mut lost).await {
                return;
            }
        }
    }

    /// Tries once; whether it is done, or given up.
    pub(super) async fn try_lost_claim(&self, lost: &mut LostClaim) -> bool {
        let Err(error) = self.try_to_keep_one_copy(lost).await else {
            lost.is_over = true;
            return true;
        };
        lost.failures += 1;
        let is_last = lost.failures == ATTEMPTS_MAX;
        lost.is_over = is_last;
        let (failures, count) = (lost.failures, lost.documents.len());
        match error {
            LostClaimError::Copies(error) if is_last => {
                tracing::error!(%error, document.count = count,
                    "could not check documents of lost claims for second copies; one may stay in a newer index");
            }
            error if is_last => {
                tracing::error!(
                    %error,
                    document.count = count,
                    "could not check documents of lost claims for dead letters; an indexed event may have one: redrive it"
                );
            }
            LostClaimError::Copies(error) => {
                tracing::warn!(%error, document.count = count, failures,
                    "documents of lost claims can't be checked for second copies now; trying again");
            }
            LostClaimError::Letters(error) => {
                tracing::warn!(%error, document.count = count, failures,
                    "documents of lost claims can't be checked for dead letters now; trying again");
            }
            LostClaimError::StillSent => {
                tracing::debug!(
                    document.count = count,
                    failures,
                    "documents of lost claims are still sent by somebody else"
                );
            }
        }
        is_last
    }

    async fn try_to_keep_one_copy(&self, lost: &mut LostClaim) -> Result<(), LostClaimError> {
        if !lost.has_one_copy_each {
            let indices = self.client.backing_indices(&lost.target).await?;
            let ids: Vec<DocumentId> = lost.documents.iter().map(|sent| sent.id.clone()).collect();
            let mut copies = self.keep_one_copy(&ids, &indices).await?.copies.into_iter();
            lost.documents.retain(|_| copies.next().flatten().is_some());
            lost.has_one_copy_each = true;
        }
        self.take_back_letters_of(lost).await
    }

    /// Puts documents that are there into the outbox again where somebody else was refused the same: they are found then,
    /// and counted as indexed. An error while somebody still works on them, whose verdict is yet to come.
    async fn take_back_letters_of(&self, lost: &LostClaim) -> Result<(), LostClaimError> {
        if lost.documents.is_empty() {
            return Ok(());
        }
        if self.outbox.claimed_otherwise(&lost.held).await? > 0 {
            return Err(LostClaimError::StillSent);
        }
        let events = lost.documents.iter().map(|sent| &sent.event);
        let events: Vec<_> = events.map(|(id, time, tenant)| (*id, *time, &**tenant)).collect();
        let (events_max, bytes_max) = self.row_limits();
        let pool = self.outbox.pool();
        match Requeued::requeue_indexed(pool, &lost.worker, None, &events, events_max, bytes_max).await? {
            0 => {}
            count => {
                metric::letters_taken_back(count);
                tracing::info!(target.name = %lost.target, document.count = count,
                    "documents that had been refused to another replica are there; their dead letters are taken back");
            }
        }
        Ok(())
    }
}

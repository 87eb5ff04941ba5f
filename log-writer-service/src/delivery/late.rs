//! Bulks that come late: nobody heard their answer, they are applied after their documents were settled, and nobody knows it.
//!
//! - A document that was refused to a later bulk is there then, buried under a dead letter. So the documents of young letters
//!   are looked for; what is there goes into the outbox again, where any worker finds it, leaves one copy of it and counts it
//!   as indexed.
//! - A document that a later bulk brought is there twice then, if the stream has rolled over meanwhile. So what was settled
//!   while such a bulk was awaited is looked for, and the copy in the newer index is deleted.
//!
//! If there is nothing of either kind this costs a look at two empty indices of PostgreSQL's.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Notify;

use super::Delivery;
use crate::{
    elasticsearch::{DocumentId, SearchError, document_id},
    failpoint::failpoint,
    telemetry::metric,
    timescale::{
        LateBulk, RefusedDocument, Requeued, StoreError, claim_late_bulk, claim_looks, note_late_bulk, note_looks,
        read_late_bulk,
    },
};

/// Letters of one round.
const ROUND_LETTERS: i64 = 1_000;

/// Why documents could not be looked for.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Search(#[from] SearchError),
}

impl Delivery {
    /// Looks for them once in a lease, until it is dropped. `bare_tenant` is not mixed into documents' ids.
    pub(super) async fn look_for_late_bulks(
        self: Arc<Self>,
        worker: String,
        bare_tenant: Arc<str>,
        committed: Arc<Notify>,
    ) {
        let mut was_able = true;
        loop {
            tokio::time::sleep(self.settings.lease).await;
            self.mirror.wait_until_ready().await;
            let taken_back = self.take_back_buried(&worker, &bare_tenant).await;
            let removed = self.remove_late_copies().await;
            if let Some(error) = taken_back.as_ref().err().or(removed.as_ref().err())
                && was_able
            {
                tracing::warn!(%error, "could not look for documents that may have come late; trying again");
            }
            was_able = taken_back.is_ok() && removed.is_ok();
            if taken_back.is_ok_and(|count| count > 0) {
                committed.notify_one();
            }
        }
    }

    /// One round; how many letters are taken back.
    async fn take_back_buried(&self, worker: &str, bare_tenant: &str) -> Result<i64, LookError> {
        let (pool, lease) = (self.outbox.pool(), self.settings.lease);
        let claimed = claim_looks(pool, lease, ROUND_LETTERS).await?;
        // In no order: one target that cannot be asked must not keep the others waiting each time.
        let mut by_target: HashMap<&str, Vec<&RefusedDocument>> = HashMap::new();
        for refused in &claimed {
            by_target.entry(&refused.target).or_default().push(refused);
        }
        let mut count = 0;
        for (target, refused) in by_target {
            let ids: Vec<DocumentId> = refused.iter().map(|refused| id_of(refused, bare_tenant)).collect();
            let holders = self.client.holders(target, &ids).await?;
            let there = refused.iter().zip(holders).filter(|(_, indices)| !indices.is_empty());
            let there: Vec<i64> = there.map(|(refused, _)| refused.letter).collect();
            if !there.is_empty() {
                count += self.take_back(worker, target, &there).await?;
            }
            let looked_at: Vec<i64> = refused.iter().map(|refused| refused.letter).collect();
            note_looks(pool, &looked_at, lease).await?;
        }
        Ok(count)
    }

    async fn take_back(&self, worker: &str, target: &str, letters: &[i64]) -> Result<i64, StoreError> {
        let (pool, (events_max, bytes_max)) = (self.outbox.pool(), self.row_limits());
        let done = Requeued::requeue(pool, worker, None, letters, events_max, bytes_max).await?;
        if done.requeued > 0 {
            metric::letters_taken_back(done.requeued);
            tracing::info!(
                target.name = target,
                document.count = done.requeued,
                "documents that were refused are there after all; their dead letters are taken back"
            );
        }
        Ok(done.requeued)
    }

    /// One round: leaves one copy of each document. What fails is tried again in the next one, and keeps no other waiting.
    async fn remove_late_copies(&self) -> Result<(), LookError> {
        let (pool, lease) = (self.outbox.pool(), self.settings.lease);
        let mut failed = Ok(());
        while let Some(bulk) = claim_late_bulk(pool, lease).await? {
            let looked = self.remove_copies_of(&bulk).await;
            metric::late_bulk_looked_for();
            failpoint!("delivery::before_noting_a_look");
            match looked {
                Ok(()) => note_late_bulk(pool, bulk.id, lease).await?,
                error @ Err(_) => failed = error,
            }
        }
        failed
    }

    async fn remove_copies_of(&self, bulk: &LateBulk) -> Result<(), LookError> {
        let indices = self.client.backing_indices(&bulk.target).await?;
        if indices.len() < 2 {
            // There is no place for a second copy.
            return Ok(());
        }
        let ids = read_late_bulk(self.outbox.pool(), bulk.id).await?;
        let ids: Vec<DocumentId> = ids.into_iter().map(DocumentId::known).collect();
        self.keep_one_copy(&ids, &indices).await?;
        Ok(())
    }

    /// Events and bytes of an outbox row that is put in again.
    pub(super) fn row_limits(&self) -> (usize, usize) {
        let events_max = usize::try_from(self.settings.claim_events_max).unwrap_or(usize::MAX);
        (events_max, self.settings.claim_bytes_max)
    }
}

fn id_of(refused: &RefusedDocument, bare_tenant: &str) -> DocumentId {
    let (id, time) = (refused.event_id, refused.event_time.into());
    document_id(id, time, &refused.tenant, bare_tenant)
}

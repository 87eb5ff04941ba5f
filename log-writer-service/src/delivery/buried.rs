//! Buried documents: Elasticsearch has them, and a dead letter says that it refused them.
//!
//! A `_bulk` that nobody answered is applied after its documents were refused to a later one, and nobody knows that it was.
//! So the documents of young letters are looked for; what is there goes into the outbox again, where any worker finds it,
//! leaves one copy of it and counts it as indexed. If there are no such letters this costs one look at an empty index.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Notify;

use super::Delivery;
use crate::{
    elasticsearch::{DocumentId, SearchError, document_id},
    telemetry::metric,
    timescale::{RefusedDocument, Requeued, StoreError, claim_looks, note_looks},
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
    pub(super) async fn look_for_buried(
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
            if let Err(error) = &taken_back
                && was_able
            {
                tracing::warn!(%error, "could not look whether documents of dead letters are there after all; trying again");
            }
            was_able = taken_back.is_ok();
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

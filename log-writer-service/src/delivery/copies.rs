//! Copies that are there already: found before a second attempt, reduced to one, written over where that is asked for.
//!
//! Elasticsearch knows an id only within one index of a stream, so all of them are asked. Any doubt is an error and never
//! "absent". Of several copies the one in the oldest index stays, whoever wrote the others: every process decides alike.

use std::{collections::HashMap, sync::Arc};

use super::{
    Delivery,
    documents::{Claim, Progress},
    send::{Halt, set, set_all},
};
use crate::{
    elasticsearch::{DocumentId, SearchError, SearchErrorKind, StoredCopy},
    failpoint::failpoint,
    telemetry::metric,
    timescale::{OutboxRow, StoreError, WorkKind},
};

/// One copy of each document, where it has any.
pub(super) struct Kept {
    pub(super) copies: Vec<Option<StoredCopy>>,
    /// Whether there are no others any more.
    all_deleted: bool,
}

impl Delivery {
    /// Settles the documents that are there, and notes the write index. Those that are to go over their copy get to know it.
    ///
    /// Only documents of rows that may have been sent are asked for.
    pub(super) async fn look_up(&self, claim: &mut Claim) -> Result<(), SearchError> {
        let indices = self.client.backing_indices(&claim.target).await?;
        metric::lookup();
        let rows = &claim.rows;
        let asked = claim
            .positions(|document| document.is_open() && rows.get(document.row).is_some_and(Claim::may_have_been_sent));
        let copies = self.keep_copies_of(claim, &asked, &indices).await?;
        claim.write_index = Some(indices.into_iter().next_back().unwrap_or_default());
        let (in_older, in_newest): (Vec<_>, Vec<_>) = copies
            .iter()
            .flatten()
            .partition(|copy| Some(&*copy.index) != claim.write_index.as_deref());
        metric::looked_up(in_older.len(), in_newest.len(), copies.len());
        for (position, copy) in asked.into_iter().zip(copies) {
            let Some(copy) = copy else { continue };
            let progress = if claim.replaces(position) {
                Progress::Stale(copy)
            } else {
                Progress::Present
            };
            set(claim, position, progress);
        }
        Ok(())
    }

    /// Reads again what is to go over copies, now that they are located: what is written can't be older than the copy.
    pub(super) async fn read_replacements(&self, claim: &mut Claim) -> Result<(), StoreError> {
        let is_replace = |row: &&OutboxRow| row.kind == WorkKind::Replace;
        let rows: Vec<OutboxRow> = claim.rows.iter().filter(is_replace).cloned().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let events = self.outbox.read_back(&rows).await?.into_iter().flatten();
        let mut events: HashMap<_, _> = events
            .map(|event| ((event.id, event.timestamp, Arc::clone(&event.tenant)), event))
            .collect();
        let rows = &claim.rows;
        for document in &mut claim.documents {
            let old = &document.event;
            if rows.get(document.row).as_ref().is_some_and(is_replace)
                && let Some(event) = events.remove(&(old.id, old.timestamp, Arc::clone(&old.tenant)))
            {
                document.event = event;
            }
        }
        Ok(())
    }

    /// A document that went to another index than the one that was the write index at look-up may stand in an older one
    /// too. What can't be compared now stays open: the next claim looks again.
    pub(super) async fn check_unexpected_copies(&self, claim: &mut Claim) -> Result<(), Halt> {
        let Some(expected) = &claim.write_index else {
            return Ok(());
        };
        let unexpected =
            claim.positions(|document| matches!(&document.progress, Progress::Created(index) if **index != **expected));
        if unexpected.is_empty() {
            return Ok(());
        }
        failpoint!("delivery::before_repair");
        if let Err(error) = self.remove_doubles(claim, &unexpected).await {
            set_all(claim, &unexpected, &Progress::Open);
            return Err(self.look_up_failed("looking for second copies after a rollover", &error));
        }
        Ok(())
    }

    /// A refusal is no verdict on a document that is there: an earlier claim that was frozen while it sent may have
    /// brought it since the look-up. What can't be asked for now stays open.
    pub(super) async fn check_refusals(&self, claim: &mut Claim) -> Result<(), Halt> {
        let rows = &claim.rows;
        let refused = claim.positions(|document| {
            matches!(document.progress, Progress::Refused(_))
                && rows
                    .get(document.row)
                    .is_some_and(|row| Claim::may_have_been_sent(row) && row.kind != WorkKind::Replace)
        });
        match self.remove_doubles(claim, &refused).await {
            Ok(there) => {
                set_all(claim, &there, &Progress::Present);
                Ok(())
            }
            Err(error) => {
                set_all(claim, &refused, &Progress::Open);
                Err(self.look_up_failed("looking for refused documents", &error))
            }
        }
    }

    /// What a failed look-up stops: a no of Elasticsearch's is about the indices that were asked, and others go on.
    pub(super) fn look_up_failed(&self, attempted: &str, error: &SearchError) -> Halt {
        let reason = format!("{attempted}: {error}");
        match error.kind() {
            SearchErrorKind::Forbidden
            | SearchErrorKind::Missing
            | SearchErrorKind::Refused
            | SearchErrorKind::Withheld => {
                self.gate.open_cluster();
                Halt::Stream(reason)
            }
            SearchErrorKind::Settings | SearchErrorKind::Unavailable | SearchErrorKind::Unreadable => {
                Halt::Cluster(reason)
            }
        }
    }

    /// Deletes every copy of these documents but the one in the oldest index; returns those of them that are there.
    pub(super) async fn remove_doubles(
        &self,
        claim: &mut Claim,
        positions: &[usize],
    ) -> Result<Vec<usize>, SearchError> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let indices = self.client.backing_indices(&claim.target).await?;
        let copies = self.keep_copies_of(claim, positions, &indices).await?;
        let there = positions.iter().zip(copies).filter(|(_, copy)| copy.is_some());
        Ok(there.map(|(position, _)| *position).collect())
    }

    /// The one copy of each of these documents of a claim. If others had to stay the claim awaits a bulk: whoever may delete
    /// them later finds them as if one had come.
    async fn keep_copies_of(
        &self,
        claim: &mut Claim,
        positions: &[usize],
        indices: &[String],
    ) -> Result<Vec<Option<StoredCopy>>, SearchError> {
        let Kept { copies, all_deleted } = self.keep_one_copy(&claim.ids_of(positions), indices).await?;
        claim.awaits_bulk |= !all_deleted;
        Ok(copies)
    }

    /// The copy of each document in the oldest of these indices that has one; those in newer ones are deleted.
    pub(super) async fn keep_one_copy(&self, ids: &[DocumentId], indices: &[String]) -> Result<Kept, SearchError> {
        let mut all_deleted = true;
        let mut copies: Vec<Option<StoredCopy>> = vec![None; ids.len()];
        let group = self.limits.documents.max(1);
        for index in indices {
            let name: Arc<str> = Arc::from(index.as_str());
            for (ids, kept) in ids.chunks(group).zip(copies.chunks_mut(group)) {
                let located = match self.client.locate(index, ids).await {
                    // By monthly naming nobody has listed it: the month's first document will make it.
                    Err(error) if error.kind() == SearchErrorKind::Missing && !self.targets.is_stream() => continue,
                    located => located?,
                };
                let mut doubles = Vec::new();
                for ((id, kept), version) in ids.iter().zip(kept).zip(located) {
                    let Some(version) = version else { continue };
                    if kept.is_some() {
                        doubles.push(id.clone());
                    } else {
                        let index = Arc::clone(&name);
                        *kept = Some(StoredCopy { index, version });
                    }
                }
                all_deleted &= self.delete_doubles(index, &doubles).await?;
            }
        }
        Ok(Kept { copies, all_deleted })
    }

    /// Whether it may: without the right the copies stay.
    async fn delete_doubles(&self, index: &str, doubles: &[DocumentId]) -> Result<bool, SearchError> {
        if doubles.is_empty() {
            return Ok(true);
        }
        failpoint!("delivery::before_delete");
        match self.client.delete(index, doubles).await {
            Ok(()) => {
                metric::doubles_removed(doubles.len());
                tracing::info!(
                    index,
                    document.count = doubles.len(),
                    "removed second copies that a rollover had let in"
                );
                Ok(true)
            }
            // Must not stop the stream.
            Err(error) if error.kind() == SearchErrorKind::Forbidden => {
                tracing::error!(index, %error, document.count = doubles.len(),
                    "second copies stay, since the credentials may not delete them; grant `delete` on the service's indices");
                Ok(false)
            }
            Err(error) if error.kind() == SearchErrorKind::Withheld => {
                tracing::warn!(index, %error, document.count = doubles.len(),
                    "second copies stay for now, since their index can't be written to");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

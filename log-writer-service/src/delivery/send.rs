//! Sending a claim's documents: look-ups before, bulks with a verdict for every document, repairs after.

use std::{collections::HashMap, time::Instant};

use super::{
    Delivery,
    documents::{Claim, Document, Progress, Refusal},
};
use crate::{
    elasticsearch::{BulkBody, BulkFailure, DocumentId, SearchError, Verdict},
    telemetry::metric,
};

/// A document that alone is refused for want of room, and is larger than this, is taken to be the culprit itself after
/// [`NO_ROOM_ATTEMPTS`]: a node refuses for ever what exceeds its limit for indexing in flight (a tenth of its heap).
const NO_ROOM_BYTES: usize = 1024 * 1024;
/// Attempts that such a document gets, in pauses of up to `delivery.retry_max`.
const NO_ROOM_ATTEMPTS: i32 = 8;

/// Times that the removal of second copies is tried; the lease is renewed meanwhile.
const REMOVAL_ATTEMPTS: u32 = 5;

/// Why a claim's documents are left open for now.
#[derive(Debug)]
pub(super) enum Halt {
    /// The cluster does not answer, or has no room.
    Cluster(String),
    /// This stream does not take documents.
    Stream(String),
    /// The stream's template is missing.
    Template,
}

impl Delivery {
    /// Sends what is open; afterwards each document is settled or still open. `Halt` says why sending ended early.
    pub(super) async fn send(&self, claim: &mut Claim) -> Result<(), Halt> {
        let sent = self.send_open(claim).await;
        // Whatever ended it: what was created by then may stand in an older index too.
        self.remove_unexpected_copies(claim).await;
        sent
    }

    async fn send_open(&self, claim: &mut Claim) -> Result<(), Halt> {
        if self.targets.is_stream() && claim.rows.iter().any(Claim::may_have_been_sent) {
            self.look_up(claim)
                .await
                .map_err(|error| Halt::Cluster(format!("looking documents up: {error}")))?;
            self.gate.open_cluster();
        }
        let mut waiting = claim.open();
        waiting.reverse();
        // A whole-request refusal halves the next bulk until the culprit stands alone.
        let mut documents_max = usize::MAX;
        while !waiting.is_empty() {
            let (body, positions) = self.next_bulk(claim, &mut waiting, documents_max);
            let begun = Instant::now();
            let result = self.client.bulk(&body).await;
            metric::bulk_finished(begun.elapsed(), positions.len());
            match result {
                Ok(verdicts) => {
                    self.gate.open_cluster();
                    documents_max = usize::MAX;
                    self.judge(claim, &positions, verdicts)?;
                }
                Err(failure) => match whole_failure(failure, positions.len()) {
                    WholeFailure::Halve => {
                        documents_max = positions.len() / 2;
                        waiting.extend(positions.into_iter().rev());
                    }
                    WholeFailure::Refuse(refusal) => {
                        self.gate.open_cluster();
                        documents_max = usize::MAX;
                        let refused = positions.iter().map(|position| (*position, refusal.clone())).collect();
                        let target = claim.target.to_string();
                        self.bury(claim, &target, refused, positions.len())?;
                    }
                    WholeFailure::NoRoom(reason) if is_oversized(claim, &positions, &body) => {
                        let refusal = Refusal {
                            status: 429,
                            error_type: "document_exceeds_indexing_limit".to_owned(),
                            reason,
                        };
                        set_all(claim, &positions, &Progress::Refused(refusal));
                    }
                    WholeFailure::NoRoom(reason) => {
                        self.gate.halve_documents();
                        return Err(Halt::Cluster(reason));
                    }
                    WholeFailure::Halt(halt) => {
                        if matches!(halt, Halt::Stream(_)) {
                            // It answered: what is wrong is wrong with this stream.
                            self.gate.open_cluster();
                        }
                        return Err(halt);
                    }
                },
            }
        }
        Ok(())
    }

    /// Marks the documents that stand in an older backing index, and notes the write index.
    ///
    /// Only documents of rows that may have been sent are asked for. An error means ask again, never "absent".
    async fn look_up(&self, claim: &mut Claim) -> Result<(), SearchError> {
        let mut indices = self.client.backing_indices(&claim.target).await?;
        metric::lookup();
        claim.write_index = indices.pop();
        let rows = &claim.rows;
        let asked: Vec<usize> = claim
            .documents
            .iter()
            .enumerate()
            .filter(|(_, document)| document.is_open() && rows.get(document.row).is_some_and(Claim::may_have_been_sent))
            .map(|(position, _)| position)
            .collect();
        for index in indices {
            let positions: Vec<usize> = asked
                .iter()
                .copied()
                .filter(|position| is_open_at(&claim.documents, *position))
                .collect();
            for positions in positions.chunks(self.limits.documents.max(1)) {
                let ids: Vec<DocumentId> = ids_at(&claim.documents, positions);
                let found = self.client.find(&index, &ids).await?;
                for (position, _) in positions.iter().zip(found).filter(|(_, found)| *found) {
                    set(claim, *position, Progress::Present);
                }
            }
        }
        Ok(())
    }

    /// Takes documents off the end of `waiting` for one bulk, at least one.
    fn next_bulk(&self, claim: &Claim, waiting: &mut Vec<usize>, documents_max: usize) -> (BulkBody, Vec<usize>) {
        let documents_max = documents_max.min(self.gate.documents()).max(1);
        let mut body = BulkBody::new(self.targets.naming());
        let mut positions = Vec::new();
        while let Some(position) = waiting.pop() {
            let Some(document) = claim.documents.get(position) else {
                continue;
            };
            body.push(&claim.target, &document.id, &document.event, &self.documents);
            if body.bytes() > self.limits.bytes && !positions.is_empty() {
                waiting.push(position);
                return (body.part(0..positions.len()), positions);
            }
            positions.push(position);
            if positions.len() >= documents_max {
                break;
            }
        }
        (body, positions)
    }

    /// Records the verdict on every document of a bulk that was answered.
    fn judge(&self, claim: &mut Claim, positions: &[usize], verdicts: Vec<Verdict>) -> Result<(), Halt> {
        let target = claim.target.to_string();
        let sent = positions.len();
        let (mut accepted, mut retried, mut halt) = (0_usize, HashMap::<String, usize>::new(), None);
        let mut refused: Vec<(usize, Refusal)> = Vec::new();
        for (position, verdict) in positions.iter().copied().zip(verdicts) {
            metric::verdict(&verdict);
            match verdict {
                Verdict::Indexed { index } => {
                    accepted += 1;
                    set(claim, position, Progress::Created(index));
                }
                Verdict::Duplicate { .. } => {
                    accepted += 1;
                    set(claim, position, Progress::Present);
                }
                Verdict::Retry { status, error_type } => {
                    *retried.entry(format!("{status} {error_type}")).or_default() += 1;
                }
                Verdict::Reject {
                    status,
                    error_type,
                    reason,
                } => refused.push((
                    position,
                    Refusal {
                        status,
                        error_type,
                        reason,
                    },
                )),
                Verdict::MissingTemplate { .. } => halt = Some(Halt::Template),
                Verdict::Forbidden { status, error_type } => {
                    halt = Some(Halt::Stream(format!("{status} {error_type}")));
                }
            }
        }
        if accepted > 0 && refused.is_empty() {
            self.gate.forget_refusals(&target);
        }
        let settled = accepted + refused.len();
        self.bury(claim, &target, refused, sent)?;
        if settled > 0 {
            self.gate.open_stream(&target);
        }
        if let Some(halt) = halt {
            return Err(halt);
        }
        // All items back: the stream is blocked or the node has no room; part of them: only those wait.
        match retried.into_iter().max_by_key(|(_, count)| *count) {
            Some((reason, count)) if count == sent => Err(Halt::Stream(reason)),
            Some(_) | None => Ok(()),
        }
    }

    /// Refused documents become dead letters, unless the whole stream is refused alike.
    fn bury(&self, claim: &mut Claim, target: &str, refused: Vec<(usize, Refusal)>, sent: usize) -> Result<(), Halt> {
        let mut alike: HashMap<String, usize> = HashMap::new();
        for (_, refusal) in &refused {
            *alike
                .entry(format!("{} {}", refusal.status, refusal.error_type))
                .or_default() += 1;
        }
        let Some((reason, count)) = alike.into_iter().max_by_key(|(_, count)| *count) else {
            return Ok(());
        };
        if !self.gate.may_bury(target, &reason, count, sent) {
            return Err(Halt::Stream(format!(
                "{count} of {sent} documents were refused alike: {reason}; check the stream's mapping"
            )));
        }
        for (position, refusal) in refused {
            set(claim, position, Progress::Refused(refusal));
        }
        Ok(())
    }

    /// A document that went to another index than the one that was the write index at look-up may stand in an older one too.
    async fn remove_unexpected_copies(&self, claim: &Claim) {
        let Some(expected) = &claim.write_index else {
            return;
        };
        let unexpected =
            claim.positions(|document| matches!(&document.progress, Progress::Created(index) if index != expected));
        for attempt in 1..=REMOVAL_ATTEMPTS {
            let Err(error) = self.remove_doubles(claim, &unexpected).await else {
                return;
            };
            if attempt == REMOVAL_ATTEMPTS {
                tracing::error!(%error, document.count = unexpected.len(),
                    "could not look for second copies after a rollover; one may stay in a newer index");
            } else {
                tokio::time::sleep(self.gate.pause(attempt)).await;
            }
        }
    }

    /// Deletes every copy of these documents but the one in the oldest index, whoever wrote it.
    pub(super) async fn remove_doubles(&self, claim: &Claim, positions: &[usize]) -> Result<(), SearchError> {
        if positions.is_empty() || !self.targets.is_stream() {
            return Ok(());
        }
        let mut once = vec![false; positions.len()];
        for index in self.client.backing_indices(&claim.target).await? {
            let found = self.client.find(&index, &ids_at(&claim.documents, positions)).await?;
            let mut doubles = Vec::new();
            for ((position, seen), found) in positions.iter().zip(&mut once).zip(found) {
                if found && std::mem::replace(seen, true) {
                    doubles.extend(claim.documents.get(*position).map(|document| document.id.clone()));
                }
            }
            if !doubles.is_empty() {
                self.client.delete(&index, &doubles).await?;
                metric::doubles_removed(doubles.len());
                tracing::info!(
                    index,
                    document.count = doubles.len(),
                    "removed second copies that a rollover had let in"
                );
            }
        }
        Ok(())
    }
}

/// What the failure of a whole bulk means.
enum WholeFailure {
    /// Try its halves.
    Halve,
    /// The one document in it is the culprit.
    Refuse(Refusal),
    /// The cluster has no room for it now.
    NoRoom(String),
    /// Nothing more can be sent for now.
    Halt(Halt),
}

fn whole_failure(failure: BulkFailure, documents: usize) -> WholeFailure {
    let text = failure.to_string();
    match failure {
        BulkFailure::TooLarge | BulkFailure::WholeRequest { .. } if documents > 1 => WholeFailure::Halve,
        BulkFailure::TooLarge => WholeFailure::Refuse(Refusal {
            status: 413,
            error_type: "content_too_large".to_owned(),
            reason: text,
        }),
        BulkFailure::WholeRequest { status, error_type } => WholeFailure::Refuse(Refusal {
            status,
            error_type,
            reason: text,
        }),
        BulkFailure::Busy { status: 429 } => WholeFailure::NoRoom(text),
        // Unanswered and miscounted bulks may have been applied: the next claim looks up.
        BulkFailure::Busy { .. } | BulkFailure::Unanswered(_) | BulkFailure::Miscounted { .. } => {
            WholeFailure::Halt(Halt::Cluster(text))
        }
        BulkFailure::Forbidden { .. } | BulkFailure::Blocked => WholeFailure::Halt(Halt::Stream(text)),
    }
}

fn is_oversized(claim: &Claim, positions: &[usize], body: &BulkBody) -> bool {
    let &[position] = positions else { return false };
    let row = claim
        .documents
        .get(position)
        .and_then(|document| claim.rows.get(document.row));
    body.bytes() > NO_ROOM_BYTES && row.is_some_and(|row| row.attempts >= NO_ROOM_ATTEMPTS)
}

fn set(claim: &mut Claim, position: usize, progress: Progress) {
    if let Some(document) = claim.documents.get_mut(position) {
        document.progress = progress;
    }
}

fn set_all(claim: &mut Claim, positions: &[usize], progress: &Progress) {
    for position in positions {
        set(claim, *position, progress.clone());
    }
}

fn is_open_at(documents: &[Document], position: usize) -> bool {
    documents.get(position).is_some_and(Document::is_open)
}

fn ids_at(documents: &[Document], positions: &[usize]) -> Vec<DocumentId> {
    positions
        .iter()
        .filter_map(|position| documents.get(*position))
        .map(|document| document.id.clone())
        .collect()
}

//! Sending a claim's documents: look-ups before, bulks with a verdict for every document, repairs after.

use std::time::Instant;

use super::{
    Delivery,
    documents::{Claim, Document, Progress, Refusal},
    tally::{Tally, most_alike},
};
use crate::{
    elasticsearch::{BulkBody, BulkFailure, Verdict},
    failpoint::failpoint,
    telemetry::metric,
    timescale::StoreError,
};

/// A document that alone is refused for want of room, and is larger than this, is taken to be the culprit itself, after
/// [`NO_ROOM_ATTEMPTS`] where a whole bulk is, by `put_off` where an item is: a node refuses for ever what exceeds its limit
/// for indexing in flight (a tenth of its heap).
pub(super) const NO_ROOM_BYTES: usize = 1024 * 1024;
/// Attempts that such a document gets, in pauses of up to `delivery.retry_max`.
const NO_ROOM_ATTEMPTS: i32 = 8;

/// Why a claim's documents are left open for now.
#[derive(Debug)]
pub(super) enum Halt {
    /// The cluster does not answer, or has no room.
    Cluster(String),
    /// This stream does not take documents.
    Stream(String),
    /// The stream's template is missing.
    Template,
    /// The database does not answer.
    Outbox(StoreError),
    /// The claim may be somebody else's by now.
    Lease,
}

impl Delivery {
    /// Sends what is open; afterwards each document is settled or still open. `Halt` says why sending ended early.
    pub(super) async fn send(&self, claim: &mut Claim) -> Result<(), Halt> {
        let sent = self.send_open(claim).await;
        // Whatever ended it: what was created by then may stand in an older index too.
        let checked = self.check_unexpected_copies(claim).await;
        let asked_again = self.check_refusals(claim).await;
        for row in claim.settled_rows() {
            self.suspects.forget_row(row);
        }
        let settled = claim.documents.iter().filter(|document| !document.is_unsettled());
        self.put_off.forget(settled.clone().map(|document| &document.id));
        sent.and(checked).and(asked_again)?;
        // By look-ups alone, too: nothing may have been left to send.
        if settled.count() > 0 {
            self.gate.open_stream(&claim.target);
        }
        Ok(())
    }

    async fn send_open(&self, claim: &mut Claim) -> Result<(), Halt> {
        let looks_up = self.look_up_again(claim).await?;
        let (mut waiting, limit) = self.in_order(claim);
        // A whole-request refusal halves the next bulk until the culprit stands alone.
        let mut documents_max = limit;
        while !waiting.is_empty() {
            if !self.holds(&claim.rows) {
                return Err(Halt::Lease);
            }
            let (body, positions) = self.next_bulk(claim, &mut waiting, documents_max);
            failpoint!("delivery::before_bulk");
            let begun = Instant::now();
            let result = self.client.bulk(&body).await;
            metric::bulk_finished(begun.elapsed(), positions.len());
            if let Err(failure) = &result {
                metric::bulk_failed(failure);
                claim.awaits_bulk |= failure.may_come_late();
            }
            failpoint!("delivery::after_bulk");
            match result {
                Ok(verdicts) => {
                    self.gate.open_cluster();
                    documents_max = limit;
                    let creates = body.creates();
                    // What `next_bulk` asks for where documents are not large.
                    claim.spare.body = body.into_memory(self.limits.bytes / 4 * 5);
                    self.judge(claim, creates, &positions, verdicts)?;
                }
                Err(failure) if looks_up && failure.is_unexplained() => {
                    return Err(self.broken(claim, &positions, &failure));
                }
                Err(failure) => match whole_failure(failure, positions.len()) {
                    WholeFailure::Halve => {
                        documents_max = positions.len() / 2;
                        waiting.extend(positions.into_iter().rev());
                    }
                    WholeFailure::Refuse(refusal) => {
                        self.gate.open_cluster();
                        documents_max = limit;
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

    /// Looks documents up that may be there already, and says whether there were any.
    async fn look_up_again(&self, claim: &mut Claim) -> Result<bool, Halt> {
        if !claim.rows.iter().any(Claim::may_have_been_sent) {
            return Ok(false);
        }
        self.look_up(claim)
            .await
            .map_err(|error| self.look_up_failed("looking documents up", &error))?;
        self.gate.open_cluster();
        self.read_replacements(claim).await.map_err(Halt::Outbox)?;
        failpoint!("delivery::after_look_up");
        Ok(true)
    }

    /// What is to be sent, the next one last and suspects after all others, and how many of them at once.
    fn in_order(&self, claim: &Claim) -> (Vec<usize>, usize) {
        let mut waiting = claim.positions(Document::is_unsettled);
        let is_suspect = |position: &usize| {
            let document = claim.documents.get(*position);
            document.is_some_and(|document| self.suspects.is_suspect(&document.id))
        };
        if self.suspects.has_any() {
            waiting.sort_by_key(is_suspect);
        }
        waiting.reverse();
        let rows = claim.rows.iter().map(|row| row.id);
        let limit = self.suspects.documents_max(rows, waiting.len());
        (waiting, limit)
    }

    /// A bulk broke right after the cluster had answered: its only document is refused if it is the culprit beyond doubt.
    fn broken(&self, claim: &mut Claim, positions: &[usize], failure: &BulkFailure) -> Halt {
        let alone = match positions {
            [position] => claim.documents.get(*position).map(|document| document.id.clone()),
            _ => None,
        };
        let rows = claim.rows_of(positions).into_iter();
        if self.suspects.note_broken(&claim.target, rows, alone.as_ref()) {
            let refusal = Refusal {
                status: 0,
                error_type: "breaks_the_connection".to_owned(),
                reason: format!("sent alone, again and again, while other documents were taken: {failure}"),
            };
            let target = claim.target.to_string();
            let refused = positions.iter().map(|position| (*position, refusal.clone())).collect();
            if let Err(halt) = self.bury(claim, &target, refused, positions.len()) {
                return halt;
            }
        }
        // Whatever was done about it: there may be nobody to send the next one to.
        Halt::Cluster(failure.to_string())
    }

    /// Takes documents off the end of `waiting` for one bulk, at least one.
    fn next_bulk(&self, claim: &mut Claim, waiting: &mut Vec<usize>, documents_max: usize) -> (BulkBody, Vec<usize>) {
        let documents_max = documents_max.min(self.gate.documents()).max(1);
        let has_suspects = self.suspects.has_any();
        let mut body = BulkBody::new(self.targets.naming());
        let mut positions = Vec::new();
        while let Some(position) = waiting.pop() {
            let Some(document) = claim.documents.get(position) else {
                continue;
            };
            let is_suspect = has_suspects && self.suspects.is_suspect(&document.id);
            let copy = document.copy();
            if positions.is_empty() {
                if copy.is_some() {
                    body = BulkBody::over_copies();
                }
                let each = claim.bytes_each();
                let bytes = (each * documents_max.min(waiting.len() + 1)).min(self.limits.bytes + each);
                body.make_room(bytes, std::mem::take(&mut claim.spare.body));
            }
            if !positions.is_empty() && (is_suspect || body.creates() == copy.is_some()) {
                waiting.push(position);
                break;
            }
            match copy {
                Some(copy) => body.push_over(copy, &document.id, &document.event, &self.documents),
                None => body.push(&claim.target, &document.id, &document.event, &self.documents),
            }
            if body.bytes() > self.limits.bytes && !positions.is_empty() {
                waiting.push(position);
                body.truncate(positions.len());
                return (body, positions);
            }
            positions.push(position);
            if is_suspect || positions.len() >= documents_max {
                break;
            }
        }
        (body, positions)
    }

    /// Records the verdict on every document of a bulk that was answered.
    fn judge(&self, claim: &mut Claim, creates: bool, positions: &[usize], verdicts: Vec<Verdict>) -> Result<(), Halt> {
        let target = claim.target.to_string();
        let sent = positions.len();
        metric::verdicts(&verdicts);
        let mut tally = Tally::default();
        for (position, verdict) in positions.iter().copied().zip(verdicts) {
            tally.add(claim, position, verdict);
        }
        if tally.accepted > 0 {
            self.suspects.note_taken(&claim.target);
        }
        if tally.written > 0 {
            self.put_off.note_taken(&claim.target, creates);
        }
        if let [position] = positions
            && let Some(document) = claim.documents.get(*position)
        {
            // It was answered.
            self.suspects.forget_document(&document.id);
        }
        self.judge_put_off_over_copies(claim, &mut tally);
        let blocked = self.judge_put_off(claim, &mut tally, sent);
        let Tally {
            accepted,
            refused,
            halt,
            ..
        } = tally;
        if accepted > 0 && refused.is_empty() {
            self.gate.forget_refusals(&target);
        }
        let settled = accepted + refused.len();
        self.bury(claim, &target, refused, sent)?;
        if settled > 0 {
            self.gate.open_stream(&target);
        }
        match halt.or(blocked.map(Halt::Stream)) {
            Some(halt) => Err(halt),
            None => Ok(()),
        }
    }

    /// Refused documents become dead letters, unless the whole stream is refused alike.
    fn bury(&self, claim: &mut Claim, target: &str, refused: Vec<(usize, Refusal)>, sent: usize) -> Result<(), Halt> {
        let kinds = refused
            .iter()
            .map(|(_, refusal)| (refusal.status, &*refusal.error_type));
        let Some((reason, count)) = most_alike(kinds) else {
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
        BulkFailure::Busy { .. }
        | BulkFailure::Unreachable(_)
        | BulkFailure::Unanswered(_)
        | BulkFailure::Miscounted { .. } => WholeFailure::Halt(Halt::Cluster(text)),
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

pub(super) fn set(claim: &mut Claim, position: usize, progress: Progress) {
    if let Some(document) = claim.documents.get_mut(position) {
        document.progress = progress;
    }
}

pub(super) fn set_all(claim: &mut Claim, positions: &[usize], progress: &Progress) {
    for position in positions {
        set(claim, *position, progress.clone());
    }
}

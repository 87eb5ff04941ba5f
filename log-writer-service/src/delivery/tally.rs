//! What the verdicts on one bulk come to.

use std::collections::HashMap;

use super::{
    Delivery,
    documents::{Claim, Document, Progress, Refusal},
    put_off::PutOffStanding,
    send::{Halt, NO_ROOM_BYTES, set},
};
use crate::elasticsearch::Verdict;

/// The verdicts on one bulk.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Created, or there already.
    pub(super) accepted: usize,
    /// Of these, those that this bulk wrote: created, or put over their copies.
    pub(super) written: usize,
    /// To be created, and not now.
    pub(super) put_off: Vec<PutOffItem>,
    /// To go over their copies, and not now.
    pub(super) put_off_over_copies: Vec<PutOffItem>,
    pub(super) refused: Vec<(usize, Refusal)>,
    pub(super) halt: Option<Halt>,
}

/// A document that was put off.
#[derive(Debug)]
pub(super) struct PutOffItem {
    position: usize,
    status: u16,
    error_type: String,
}

impl Tally {
    /// Counts a verdict, and records it where it settles the document.
    pub(super) fn add(&mut self, claim: &mut Claim, position: usize, verdict: Verdict) {
        let is_stale = claim
            .documents
            .get(position)
            .is_some_and(|document| document.copy().is_some());
        match verdict {
            Verdict::Indexed { index } => {
                self.accepted += 1;
                self.written += 1;
                let progress = if is_stale {
                    Progress::Present
                } else {
                    Progress::Created(index)
                };
                set(claim, position, progress);
            }
            // Made or changed since the look-up, or gone with its index: the next claim looks again.
            Verdict::Duplicate { .. } if claim.replaces(position) => {}
            Verdict::Retry { status: 409, .. } | Verdict::MissingTemplate { .. } if is_stale => {}
            Verdict::Duplicate { .. } => {
                self.accepted += 1;
                set(claim, position, Progress::Present);
            }
            Verdict::Retry { status, error_type } => {
                let put_off = if is_stale {
                    &mut self.put_off_over_copies
                } else {
                    &mut self.put_off
                };
                put_off.push(PutOffItem {
                    position,
                    status,
                    error_type,
                });
            }
            // Must not stop the stream.
            Verdict::Forbidden { status, error_type } if is_stale => {
                tracing::error!(stream = %claim.target, status, error_type,
                    "a document can't be written over its copy; grant `index` on the service's indices");
                self.put_off_over_copies.push(PutOffItem {
                    position,
                    status,
                    error_type,
                });
            }
            Verdict::Reject {
                status,
                error_type,
                reason,
            } => self.refused.push((
                position,
                Refusal {
                    status,
                    error_type,
                    reason,
                },
            )),
            Verdict::MissingTemplate { .. } => self.halt = Some(Halt::Template),
            Verdict::Forbidden { status, error_type } => {
                self.halt = Some(Halt::Stream(format!("{status} {error_type}")));
            }
        }
    }
}

/// Status and type that most of these verdicts have, as `429 es_rejected_execution_exception`, and how many have them; `None`
/// without any.
pub(super) fn most_alike<'v>(verdicts: impl Iterator<Item = (u16, &'v str)>) -> Option<(String, usize)> {
    let mut alike: HashMap<(u16, &str), usize> = HashMap::new();
    for verdict in verdicts {
        *alike.entry(verdict).or_default() += 1;
    }
    let most = alike.into_iter().max_by_key(|(_, count)| *count);
    most.map(|((status, error_type), count)| (format!("{status} {error_type}"), count))
}

impl Delivery {
    /// Gives up what was to be created, was put off too often and may be at fault; the reason to pause its stream, if all of a
    /// bulk of `sent` documents was put off alike and not only such as are known for it while others are taken.
    pub(super) fn judge_put_off(&self, claim: &Claim, tally: &mut Tally, sent: usize) -> Option<String> {
        let most = most_alike(tally.put_off.iter().map(|item| (item.status, &*item.error_type)));
        let mut are_known = true;
        for (item, standing) in self.note_put_off(claim, true, std::mem::take(&mut tally.put_off)) {
            are_known &= standing != PutOffStanding::Unknown;
            if let PutOffStanding::TooOften(times) = standing
                && item.may_be_at_fault(claim)
            {
                let reason = format!(
                    "put off {times} times while others of its stream were taken; find out what sets it apart (its \
                     shard, its pipeline, its size), mend that and redrive it"
                );
                tally.refused.push((item.position, item.refusal(reason)));
            }
        }
        // All items back: the stream is blocked or the node has no room; part of them: only those wait.
        most.filter(|(_, count)| *count == sent && !are_known)
            .map(|(reason, _)| reason)
    }

    /// Gives up what was put off too often on its way over its copy and may be at fault. The stream goes on: most often the
    /// copy stands in an older index, into which nothing else goes.
    pub(super) fn judge_put_off_over_copies(&self, claim: &mut Claim, tally: &mut Tally) {
        let mut items = std::mem::take(&mut tally.put_off_over_copies);
        // None of the others is ever given up: they would take the places.
        items.retain(|item| item.may_be_at_fault(claim));
        for (item, standing) in self.note_put_off(claim, false, items) {
            if let PutOffStanding::TooOften(times) = standing {
                let document = claim.documents.get(item.position);
                let index = document.and_then(Document::copy).map(|copy| copy.index.to_string());
                let reason = format!(
                    "the change can't go over its copy in {}: put off {times} times while other documents were taken; \
                     lift the block or grant what is missing, and redrive it",
                    index.unwrap_or_default()
                );
                set(claim, item.position, Progress::Refused(item.refusal(reason)));
            }
        }
    }

    /// Each with its standing. Takes no lock if there are none.
    fn note_put_off(&self, claim: &Claim, creates: bool, items: Vec<PutOffItem>) -> Vec<(PutOffItem, PutOffStanding)> {
        if items.is_empty() {
            return Vec::new();
        }
        let known = items.iter().filter_map(|item| claim.documents.get(item.position));
        let standings = self
            .put_off
            .note(&claim.target, creates, known.map(|document| &document.id));
        items.into_iter().zip(standings).collect()
    }
}

impl PutOffItem {
    /// Whether the document may be why: no room, or a shard that is away, passes for any, however long that takes. But a node
    /// refuses for ever what is too large for it.
    fn may_be_at_fault(&self, claim: &Claim) -> bool {
        let document = claim.documents.get(self.position);
        match self.status {
            429 => document.is_some_and(|document| document.event.texts.bytes() > NO_ROOM_BYTES),
            status => status != 503,
        }
    }

    fn refusal(self, reason: String) -> Refusal {
        Refusal {
            status: self.status,
            error_type: self.error_type,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_alike_by_status_and_type() {
        let most = |verdicts: &[(u16, &'static str)]| most_alike(verdicts.iter().copied());
        assert_eq!(most(&[]), None);
        assert_eq!(
            most(&[(429, "a"), (429, "b"), (429, "b")]),
            Some(("429 b".to_owned(), 2))
        );
        let apart = [(400, "a"), (400, "a"), (429, "a"), (503, "a")];
        assert_eq!(most(&apart), Some(("400 a".to_owned(), 2)));
    }
}

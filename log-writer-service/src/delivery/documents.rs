//! The documents of one claim and how far each has come.

use std::{
    collections::{BTreeSet, HashSet},
    mem,
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    elasticsearch::{DocumentId, StoredCopy, document_id},
    event::{StoredEvent, Timestamp},
    timescale::{IndexRefusal, OutboxId, OutboxRow, Rest, Settlement, WorkKind},
};

/// What a document has beside its row: names of members, and the line of the action. With the events of `make bench` 231 bytes.
const AROUND_BYTES: usize = 256;

/// How far one document has come.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// Not settled: to be sent, now or with a later claim.
    Open,
    /// Indexed by this claim, in this index.
    Created(Arc<str>),
    /// There before.
    Present,
    /// There, as it was before: to be written over.
    Stale(StoredCopy),
    /// Refused for good.
    Refused(Refusal),
}

/// Why a document was refused for good.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error_type: String,
    pub(super) reason: String,
}

/// One document of a claim.
#[derive(Debug)]
pub(super) struct Document {
    /// Position of its outbox row in the claim.
    pub(super) row: usize,
    pub(super) id: DocumentId,
    pub(super) event: StoredEvent,
    pub(super) progress: Progress,
}

impl Document {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Open)
    }

    /// The copy that it is to go over.
    pub(super) fn copy(&self) -> Option<&StoredCopy> {
        match &self.progress {
            Progress::Stale(copy) => Some(copy),
            Progress::Open | Progress::Created(_) | Progress::Present | Progress::Refused(_) => None,
        }
    }

    /// Whether it is still to be created, or written over its copy.
    pub(super) fn is_unsettled(&self) -> bool {
        matches!(self.progress, Progress::Open | Progress::Stale(_))
    }

    fn key(&self) -> (Uuid, Timestamp) {
        (self.event.id, self.event.timestamp)
    }
}

/// Memory of one claim for the next: what was given back is mapped and cleared anew, which costs more than writing into it.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Of a bulk body.
    pub(super) body: Vec<u8>,
    /// Of documents: none of them any more.
    documents: Vec<Document>,
}

/// The documents of outbox rows, while their events are read back.
pub(super) struct Documents<'r> {
    rows: &'r [OutboxRow],
    /// The tenant that is not mixed into documents' ids.
    bare_tenant: &'r str,
    /// Where the table has no key, an event that is listed may stand in it twice; it is one document.
    listed: HashSet<(usize, Uuid, Timestamp, Arc<str>)>,
    all: Vec<Document>,
}

impl<'r> Documents<'r> {
    /// Makes room for as many events as the rows have, but for no more than `documents_max`: not for more than
    /// [`Claim::into_spare`] keeps.
    pub(super) fn new(rows: &'r [OutboxRow], bare_tenant: &'r str, spare: &mut Spare, documents_max: usize) -> Self {
        let events: i64 = rows.iter().map(|row| row.events).sum();
        let mut all = mem::take(&mut spare.documents);
        all.reserve_exact(usize::try_from(events).unwrap_or_default().min(documents_max));
        Self {
            rows,
            bare_tenant,
            listed: HashSet::new(),
            all,
        }
    }

    /// Takes an event that was read back for the row at this position.
    pub(super) fn push(&mut self, row: usize, event: StoredEvent) {
        let is_listed = self.rows.get(row).is_some_and(|row| row.open.is_some());
        let key = || (row, event.id, event.timestamp, Arc::clone(&event.tenant));
        if is_listed && !self.listed.insert(key()) {
            return;
        }
        self.all.push(Document {
            row,
            id: document_id(event.id, event.timestamp, &event.tenant, self.bare_tenant),
            event,
            progress: Progress::Open,
        });
    }

    /// All of them.
    pub(super) fn finish(self) -> Vec<Document> {
        self.all
    }
}

/// One claim: outbox rows of one target and their documents.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) target: Arc<str>,
    pub(super) rows: Vec<OutboxRow>,
    pub(super) documents: Vec<Document>,
    /// The target's write index when its indices were listed, empty if it had none; `None` if no look-up was needed.
    pub(super) write_index: Option<String>,
    /// Whether a bulk of it may still come, since it was not answered, or second copies had to stay.
    pub(super) awaits_bulk: bool,
    /// What it does not need, or not any more.
    pub(super) spare: Spare,
}

impl Claim {
    /// Joins rows and their documents; `None` without rows.
    pub(super) fn new(rows: Vec<OutboxRow>, documents: Vec<Document>, spare: Spare) -> Option<Self> {
        Some(Self {
            target: Arc::clone(&rows.first()?.target),
            rows,
            documents,
            write_index: None,
            awaits_bulk: false,
            spare,
        })
    }

    /// What the next claim can use of it; of one with more documents than this, not their memory.
    pub(super) fn into_spare(self, documents_max: usize) -> Spare {
        let (mut spare, mut documents) = (self.spare, self.documents);
        documents.clear();
        if documents.capacity() <= documents_max {
            spare.documents = documents;
        }
        spare
    }

    /// About what each document takes in a bulk, above it for usual events: a body that outgrows its room is copied. That is
    /// half as much again as its row, for what is escaped, and [`AROUND_BYTES`].
    pub(super) fn bytes_each(&self) -> usize {
        OutboxRow::bytes_of(&self.rows) / self.documents.len().max(1) * 3 / 2 + AROUND_BYTES
    }

    /// Whether a document of this row may be in Elasticsearch already.
    pub(super) fn may_have_been_sent(row: &OutboxRow) -> bool {
        row.attempts > 1 || row.kind == WorkKind::Replace
    }

    /// Whether the document is to go over the copy that is there.
    pub(super) fn replaces(&self, position: usize) -> bool {
        self.documents
            .get(position)
            .and_then(|document| self.rows.get(document.row))
            .is_some_and(|row| row.kind == WorkKind::Replace)
    }

    /// The ids of these documents.
    pub(super) fn ids_of(&self, positions: &[usize]) -> Vec<DocumentId> {
        let documents = positions.iter().filter_map(|position| self.documents.get(*position));
        documents.map(|document| document.id.clone()).collect()
    }

    /// The rows of these documents, each once.
    pub(super) fn rows_of(&self, positions: &[usize]) -> BTreeSet<OutboxId> {
        positions
            .iter()
            .filter_map(|position| self.rows.get(self.documents.get(*position)?.row))
            .map(|row| row.id)
            .collect()
    }

    /// The rows without a document that is still to be sent.
    pub(super) fn settled_rows(&self) -> impl Iterator<Item = OutboxId> {
        let unsettled: BTreeSet<usize> = self
            .documents
            .iter()
            .filter(|document| document.is_unsettled())
            .map(|document| document.row)
            .collect();
        let numbered = self.rows.iter().enumerate();
        numbered
            .filter(move |(number, _)| !unsettled.contains(number))
            .map(|(_, row)| row.id)
    }

    /// Positions of the documents that `keep` says yes to.
    pub(super) fn positions(&self, keep: impl Fn(&Document) -> bool) -> Vec<usize> {
        self.documents
            .iter()
            .enumerate()
            .filter(|(_, document)| keep(document))
            .map(|(position, _)| position)
            .collect()
    }

    /// What to record for each row; `pause` says how long a row that is not finished waits after so many attempts.
    pub(super) fn settlements(&self, pause: impl Fn(u32) -> std::time::Duration) -> Vec<Settlement> {
        let mut settlements: Vec<Settlement> = self
            .rows
            .iter()
            .map(|row| Settlement {
                id: row.id,
                attempts: row.attempts,
                indexed: 0,
                dead: Vec::new(),
                expired: row.events,
                awaited: Vec::new(),
                rest: Rest::Done,
            })
            .collect();
        let mut open: Vec<Vec<(Uuid, Timestamp)>> = vec![Vec::new(); self.rows.len()];
        for document in &self.documents {
            let (Some(settlement), Some(open)) = (settlements.get_mut(document.row), open.get_mut(document.row)) else {
                continue;
            };
            settlement.expired -= 1;
            let awaits_bulk = self.awaits_bulk || self.rows.get(document.row).is_some_and(|row| row.awaits_bulk);
            if awaits_bulk && !document.is_unsettled() {
                settlement.awaited.push(document.id.to_string());
            }
            match &document.progress {
                Progress::Open | Progress::Stale(_) => open.push(document.key()),
                Progress::Created(_) | Progress::Present => settlement.indexed += 1,
                Progress::Refused(refusal) => settlement.dead.push(IndexRefusal {
                    id: document.event.id,
                    timestamp: document.event.timestamp,
                    status: refusal.status,
                    error_type: refusal.error_type.clone(),
                    reason: refusal.reason.clone(),
                }),
            }
        }
        for ((settlement, open), row) in settlements.iter_mut().zip(open).zip(&self.rows) {
            settlement.expired = settlement.expired.max(0);
            if open.is_empty() {
                continue;
            }
            let is_whole = settlement.indexed == 0 && settlement.dead.is_empty() && settlement.expired == 0;
            let open = if is_whole { row.open.clone() } else { Some(open) };
            settlement.rest = Rest::Retry {
                open,
                after: pause(u32::try_from(row.attempts).unwrap_or(1)),
                awaits_bulk: self.awaits_bulk,
            };
        }
        settlements
    }
}

#[cfg(test)]
mod tests {
    use super::{super::worker::tests::rows, *};
    use crate::event::{StoredTexts, TextColumns};

    fn claim(events: usize, mut spare: Spare) -> Claim {
        let rows = rows(&[3], 3);
        let mut documents = Documents::new(&rows, "default", &mut spare, events);
        for number in (0..).take(events) {
            let event = StoredEvent {
                id: Uuid::from_u128(number),
                timestamp: Timestamp(0),
                ingested_at: Timestamp(0),
                batch_id: 1,
                tenant: Arc::from("default"),
                texts: StoredTexts::from(TextColumns::default()),
            };
            documents.push(0, event);
        }
        let documents = documents.finish();
        Claim::new(rows, documents, spare).unwrap()
    }

    #[test]
    fn a_claim_in_memory_of_another_has_its_own_documents_only() {
        let first = claim(3, Spare::default());
        let memory = first.documents.as_ptr();
        let second = claim(2, first.into_spare(3));
        assert_eq!((second.documents.len(), second.documents.as_ptr()), (2, memory));
        assert_eq!(second.into_spare(2).documents.capacity(), 0, "it has room for three");
    }
}

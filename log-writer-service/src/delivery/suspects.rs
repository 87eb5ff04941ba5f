//! Documents that break the connection, or the node, each time they are sent.
//!
//! Nothing explains such a failure, and most often nothing is wrong with the documents: the cluster went away. So it
//! counts only if the cluster had answered a look-up just before, as on every attempt after the first. A row whose bulks
//! broke [`BULKS_MAX`] times goes in halves, then quarters, until the culprit stands alone. It becomes a dead letter once
//! it broke [`ALONE_MAX`] bulks of its own and its target took other documents meanwhile: so a cluster that is down,
//! or takes nothing, never fills the dead letters.
//!
//! Known to this process alone; a restart begins to count anew, which costs attempts and nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{elasticsearch::DocumentId, timescale::OutboxId};

/// Bulks of a row that may break before it goes in halves.
const BULKS_MAX: u32 = 3;
/// Bulks that a document may break alone.
const ALONE_MAX: u32 = 3;
/// Rows and documents that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// What is known of broken bulks.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Bulks that broke with documents of the row.
    rows: HashMap<OutboxId, u32>,
    alone: HashMap<DocumentId, Alone>,
    /// Bulks that each target took while any document was under suspicion.
    taken: HashMap<Arc<str>, u64>,
}

/// A document that broke bulks alone.
#[derive(Debug)]
struct Alone {
    times: u32,
    /// Bulks that the target had taken when it did so first.
    taken: u64,
}

impl Suspects {
    /// Documents that one bulk of these rows, `open` in all, may have.
    pub(super) fn documents_max(&self, rows: impl Iterator<Item = OutboxId>, open: usize) -> usize {
        let state = self.lock();
        let broken = rows.filter_map(|row| state.rows.get(&row)).max().copied().unwrap_or(0);
        if broken < BULKS_MAX {
            return usize::MAX;
        }
        open.checked_shr(broken - BULKS_MAX + 1).unwrap_or(0).max(1)
    }

    /// Whether any document has broken a bulk alone. Asked before [`Self::is_suspect`]: all workers share one lock.
    pub(super) fn has_any(&self) -> bool {
        !self.lock().alone.is_empty()
    }

    /// Whether the document has broken a bulk alone; such go last.
    pub(super) fn is_suspect(&self, document: &DocumentId) -> bool {
        self.lock().alone.contains_key(document)
    }

    /// The target took a bulk.
    pub(super) fn note_taken(&self, target: &Arc<str>) {
        let mut state = self.lock();
        if state.alone.is_empty() {
            state.taken.clear();
        } else {
            *state.taken.entry(Arc::clone(target)).or_default() += 1;
        }
    }

    /// A bulk broke, though the cluster had answered just before; whether its only document is the culprit beyond doubt.
    pub(super) fn note_broken(
        &self,
        target: &Arc<str>,
        rows: impl Iterator<Item = OutboxId>,
        alone: Option<&DocumentId>,
    ) -> bool {
        let mut state = self.lock();
        if state.rows.len() + state.alone.len() > REMEMBERED_MAX {
            state.rows.clear();
            state.alone.clear();
        }
        for row in rows {
            *state.rows.entry(row).or_default() += 1;
        }
        let Some(document) = alone else { return false };
        let taken = state.taken.get(target).copied().unwrap_or(0);
        let alone = state.alone.entry(document.clone()).or_insert(Alone { times: 0, taken });
        alone.times += 1;
        alone.times >= ALONE_MAX && taken > alone.taken
    }

    /// A row is settled.
    pub(super) fn forget_row(&self, row: OutboxId) {
        self.lock().rows.remove(&row);
    }

    /// A document is settled.
    pub(super) fn forget_document(&self, document: &DocumentId) {
        self.lock().alone.remove(document);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use uuid::Uuid;

    use super::*;
    use crate::{elasticsearch::document_id, event::Timestamp};

    fn target() -> Arc<str> {
        Arc::from("logs-app-default")
    }

    fn culprit() -> DocumentId {
        document_id(Uuid::nil(), Timestamp(0), "default", "default")
    }

    #[test]
    fn bulks_of_a_row_are_halved_from_the_third_break_on() {
        let suspects = Suspects::default();
        let row = OutboxId(1);
        let limits: Vec<usize> = (0..8)
            .map(|_| {
                assert!(!suspects.note_broken(&target(), once(row), None));
                suspects.documents_max(once(row), 16)
            })
            .collect();
        assert_eq!(limits, [usize::MAX, usize::MAX, 8, 4, 2, 1, 1, 1]);
        assert_eq!(suspects.documents_max(once(OutboxId(2)), 16), usize::MAX, "another row");
        suspects.forget_row(row);
        assert_eq!(suspects.documents_max(once(row), 16), usize::MAX);
    }

    #[test]
    fn a_document_is_the_culprit_only_if_others_were_taken_meanwhile() {
        let suspects = Suspects::default();
        let breaks = || suspects.note_broken(&target(), once(OutboxId(1)), Some(&culprit()));
        // Taken before it broke anything: says nothing of what came then.
        suspects.note_taken(&target());
        assert!((0..100).all(|_| !breaks()), "a cluster that takes nothing");
        suspects.note_taken(&Arc::from("another"));
        assert!(!breaks(), "another stream");
        suspects.note_taken(&target());
        assert!(breaks());
    }

    #[test]
    fn a_document_that_broke_too_few_bulks_alone_is_no_culprit() {
        let suspects = Suspects::default();
        let breaks = || {
            suspects.note_taken(&target());
            suspects.note_broken(&target(), once(OutboxId(1)), Some(&culprit()))
        };
        assert!(!suspects.has_any());
        assert_eq!([breaks(), breaks(), breaks()], [false, false, true]);
        assert!(suspects.has_any() && suspects.is_suspect(&culprit()));
        suspects.forget_document(&culprit());
        assert!(!suspects.has_any());
        assert!(!breaks() && !suspects.is_suspect(&document_id(Uuid::max(), Timestamp(0), "a", "a")));
    }
}

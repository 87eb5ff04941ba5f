//! Documents that Elasticsearch puts off one by one, each time they are sent, while it takes others.
//!
//! Overload and blocks put documents off too, thousands at once, and pass. So being put off counts only where others were
//! taken since it counted last: of a document to be created, by its own target; of one that is to go over its copy, which
//! may stand in a blocked older index, by any. After [`PUT_OFF_MAX`] such times the document becomes a dead letter, if
//! `tally` finds that it may be at fault: a cluster or a stream that takes nothing, or has no room, never fills them.
//! Nothing else changes for it meanwhile: it is sent beside others, and its row waits longer each time.
//!
//! Known to this process alone; a restart begins to count anew, which costs attempts and nothing else.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::elasticsearch::DocumentId;

/// Times after which a document is given up: about twenty minutes with the pauses of `delivery.retry_max` = 30 s.
const PUT_OFF_MAX: u32 = 60;
/// Documents of each kind that are remembered, but for those of the last bulk.
const REMEMBERED_MAX: usize = 10_000;
/// What was not put off for this long was settled by another replica, if room is needed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What is known of documents that were put off.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    state: Mutex<State>,
    /// Whether any is remembered: all workers share the lock, and most of the time there is none.
    has_any: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    to_create: HashMap<DocumentId, Times>,
    over_copies: HashMap<DocumentId, Times>,
    /// Bulks of which each target created documents while any was remembered.
    created: HashMap<Arc<str>, u64>,
    /// Bulks of which anything was written, for whichever target.
    written: u64,
}

/// How often a document was put off.
#[derive(Debug)]
struct Times {
    counted: u32,
    /// Bulks that had been taken when it was first put off.
    taken_at_first: u64,
    /// The same when it counted last.
    taken_at_last: u64,
    last: Instant,
}

/// What being put off once more says of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutOffStanding {
    /// Nothing yet: most often the stream or the cluster has no room.
    Unknown,
    /// Others were taken since it was first put off: it says nothing of its stream.
    Known,
    /// It was put off so many times while others were taken.
    TooOften(u32),
}

impl PutOff {
    /// Whether any document is remembered; takes no lock.
    pub(super) fn has_any(&self) -> bool {
        self.has_any.load(Ordering::Relaxed)
    }

    /// A bulk for this target was answered, and documents of it were created or, else, written over their copies.
    pub(super) fn note_taken(&self, target: &Arc<str>, created: bool) {
        if !self.has_any() {
            return;
        }
        let mut state = self.lock();
        state.written += 1;
        if created && !state.to_create.is_empty() {
            *state.created.entry(Arc::clone(target)).or_default() += 1;
        }
    }

    /// Documents of one bulk were put off, which were to be created or, else, to go over their copies.
    pub(super) fn note<'d>(
        &self,
        target: &Arc<str>,
        creates: bool,
        documents: impl Iterator<Item = &'d DocumentId>,
    ) -> Vec<PutOffStanding> {
        let now = Instant::now();
        let mut state = self.lock();
        let taken = if creates {
            state.created.get(target).copied().unwrap_or(0)
        } else {
            state.written
        };
        let remembered = if creates {
            &mut state.to_create
        } else {
            &mut state.over_copies
        };
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, times| now.saturating_duration_since(times.last) < FORGOTTEN_AFTER);
        }
        if remembered.len() >= REMEMBERED_MAX && creates {
            // So many at once are put off for want of room, or of a shard.
            remembered.clear();
        }
        let is_full = remembered.len() >= REMEMBERED_MAX;
        let standings = documents
            .map(|document| match remembered.get_mut(document) {
                Some(times) => times.again(taken, now),
                // Copies in a blocked index can be that many: the first are given up, then there is room for the next.
                None if is_full => PutOffStanding::Unknown,
                None => {
                    remembered.insert(document.clone(), Times::first(taken, now));
                    PutOffStanding::Unknown
                }
            })
            .collect();
        self.has_any.store(true, Ordering::Relaxed);
        standings
    }

    /// Documents are settled.
    pub(super) fn forget<'d>(&self, documents: impl Iterator<Item = &'d DocumentId>) {
        if !self.has_any() {
            return;
        }
        let mut state = self.lock();
        for document in documents {
            state.to_create.remove(document);
            state.over_copies.remove(document);
        }
        if state.to_create.is_empty() {
            state.created.clear();
            if state.over_copies.is_empty() {
                self.has_any.store(false, Ordering::Relaxed);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    fn first(taken: u64, now: Instant) -> Self {
        Self {
            counted: 1,
            taken_at_first: taken,
            taken_at_last: taken,
            last: now,
        }
    }

    fn again(&mut self, taken: u64, now: Instant) -> PutOffStanding {
        self.last = now;
        if taken > self.taken_at_last {
            self.taken_at_last = taken;
            self.counted = self.counted.saturating_add(1);
        }
        if self.counted >= PUT_OFF_MAX {
            PutOffStanding::TooOften(self.counted)
        } else if taken > self.taken_at_first {
            PutOffStanding::Known
        } else {
            PutOffStanding::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use uuid::Uuid;

    use super::*;
    use crate::{elasticsearch::document_id, event::Timestamp};

    fn target(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn numbered(number: usize) -> DocumentId {
        let number = i64::try_from(number).unwrap();
        document_id(Uuid::nil(), Timestamp(number), "default", "default")
    }

    /// Puts one document off once more.
    fn note(put_off: &PutOff, creates: bool) -> PutOffStanding {
        let standings = put_off.note(&target("s"), creates, once(&numbered(1)));
        *standings.first().unwrap()
    }

    /// How many times more it is put off until it is given up, if others are taken before each.
    fn times_left(put_off: &PutOff) -> usize {
        let given_up = |_: &usize| {
            put_off.note_taken(&target("s"), true);
            matches!(note(put_off, true), PutOffStanding::TooOften(_))
        };
        (1..1_000).find(given_up).unwrap()
    }

    #[test]
    fn a_document_is_given_up_after_so_many_times_with_others_taken_in_between() {
        let put_off = PutOff::default();
        assert_eq!(note(&put_off, true), PutOffStanding::Unknown);
        assert_eq!(times_left(&put_off), 59);
        assert_eq!(note(&put_off, true), PutOffStanding::TooOften(60));
    }

    #[test]
    fn times_without_others_taken_since_the_last_one_do_not_count() {
        let put_off = PutOff::default();
        // Taken before it was put off: says nothing of what came then.
        put_off.note_taken(&target("s"), true);
        assert!(
            (0..1_000).all(|_| note(&put_off, true) == PutOffStanding::Unknown),
            "nothing is taken"
        );
        put_off.note_taken(&target("another"), true);
        put_off.note_taken(&target("s"), false);
        assert_eq!(
            note(&put_off, true),
            PutOffStanding::Unknown,
            "another stream, and copies in older indices"
        );
        put_off.note_taken(&target("s"), true);
        // An overload that passed, and a block that came later.
        assert!(
            (0..1_000).all(|_| note(&put_off, true) == PutOffStanding::Known),
            "taken once"
        );
        assert_eq!(times_left(&put_off), 58);
    }

    #[test]
    fn a_copy_is_given_up_where_anything_is_taken() {
        let put_off = PutOff::default();
        assert!((0..1_000).all(|_| note(&put_off, false) == PutOffStanding::Unknown));
        for _ in 0..58 {
            put_off.note_taken(&target("another"), true);
            assert_eq!(note(&put_off, false), PutOffStanding::Known);
        }
        put_off.note_taken(&target("another"), false);
        assert_eq!(note(&put_off, false), PutOffStanding::TooOften(60));
    }

    #[test]
    fn a_settled_document_is_forgotten() {
        let put_off = PutOff::default();
        assert!(!put_off.has_any());
        note(&put_off, true);
        note(&put_off, false);
        times_left(&put_off);
        assert!(put_off.has_any());
        put_off.forget(once(&numbered(2)));
        assert!(put_off.has_any());
        put_off.forget(once(&numbered(1)));
        assert!(!put_off.has_any());
        assert_eq!(note(&put_off, true), PutOffStanding::Unknown);
        assert_eq!(times_left(&put_off), 59);
    }

    #[test]
    fn memory_is_bounded_and_very_many_at_once_are_not_given_up() {
        let many: Vec<DocumentId> = (0..REMEMBERED_MAX * 2).map(numbered).collect();
        let put_off = PutOff::default();
        let rounds = |creates: bool| {
            let mut given_up = 0;
            for _ in 0..100 {
                for bulk in many.chunks(1_000) {
                    put_off.note_taken(&target("s"), creates);
                    let standings = put_off.note(&target("s"), creates, bulk.iter());
                    let of_it = bulk.iter().zip(standings);
                    let settled: Vec<_> = of_it
                        .filter(|(_, standing)| matches!(standing, PutOffStanding::TooOften(_)))
                        .collect();
                    given_up += settled.len();
                    put_off.forget(settled.into_iter().map(|(document, _)| document));
                    let state = put_off.lock();
                    assert!(state.to_create.len().max(state.over_copies.len()) <= REMEMBERED_MAX + 1_000);
                }
            }
            given_up
        };
        assert_eq!(rounds(true), 0);
        assert!(rounds(false) >= REMEMBERED_MAX);
    }
}

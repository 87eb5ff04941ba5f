//! Dead letters: what could not be decoded, stored or indexed, with the reason, from the day it is kept to its end.
//!
//! `keep` is part of a commit, `look` names to delivery those whose document may have come after all. Everything else is
//! for people: `read` finds and counts, `requeue` sends stored events to Elasticsearch again, `recommit` stores what was
//! not, `purge` deletes. Letters leave the table only with their event settled, by a purge, or by retention; the books
//! count what happened and are never rewritten by a purge.

mod keep;
mod look;
mod purge;
mod raw;
mod read;
mod recommit;
mod requeue;

pub use self::{
    keep::{DeadLetter, Stage},
    look::{RefusedDocument, claim_looks, note_looks},
    purge::{LetterUpkeep, count_purgeable, purge_letters, upkeep_letters},
    raw::RawLetter,
    read::{Letter, LetterCount, LetterFilter, LetterTotals, Redrivable, StoredLetter, count_letters},
    recommit::Recommitted,
    requeue::Requeued,
};
pub(in crate::timescale) use self::{
    keep::{Letter as NewLetter, keep, without_nul},
    read::read_totals,
    recommit::recommit,
};

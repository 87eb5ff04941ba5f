//! One log event: how it looks raw, normalised and stored, and what makes it the same event.
//!
//! Pure: no I/O, no clock, no randomness. Whoever calls brings the time of arrival and the digests.
//! Turning bytes into raw events is `wire`'s work, storing them is `timescale`'s.
//!
//! In the order of an event's way: [`Normaliser`] goes over the members (`scan`, `cursor`), knows them by their names
//! (`aliases`), offers them to columns (`assembly`, `columns`, with `claimed_time`, `severity`, `collections`, `id`) and keeps
//! the rest (`fields`), in a form that PostgreSQL accepts (`text`, `jsonb`).

mod aliases;
mod assembly;
mod claimed_time;
mod collections;
mod columns;
mod cursor;
mod digest;
mod fields;
mod id;
mod jsonb;
mod log_event;
mod normalise;
mod pattern;
mod plain;
mod raw;
mod scan;
mod severity;
mod signs;
mod stored;
mod stored_texts;
#[cfg(test)]
mod tests;
mod text;
mod time;

pub use aliases::InvalidAliases;
pub use digest::{Digest, DigestParts, request_digest};
pub use id::derive_id;
pub use log_event::{EventKey, Level, LogEvent, Unusable};
pub use normalise::{Arrival, Normaliser};
pub use pattern::{mask, pattern_of};
pub(crate) use plain::plain_run;
pub use raw::RawEvent;
pub use stored::StoredEvent;
pub use stored_texts::{StoredTexts, TextColumns};
pub use time::Timestamp;

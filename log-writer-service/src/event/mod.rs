//! One log event: how it looks raw, normalised and stored, and what makes it the same event.
//!
//! Pure: no I/O, no clock, no randomness. Whoever calls brings the time of arrival and the digests.
//! Turning bytes into raw events is `wire`'s work, storing them is `timescale`'s.

mod log_event;
mod raw;
mod stored;
mod time;

pub use log_event::{EventKey, Level, LogEvent, Unusable};
pub use raw::RawEvent;
pub use stored::StoredEvent;
pub use time::Timestamp;

//! Time of an event: microseconds since 1970-01-01T00:00:00Z, what PostgreSQL keeps of a time.

/// Microseconds since 1970-01-01T00:00:00Z; negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

//! When a token ends: a point in time, or so long from now.

use chrono::{DateTime, Utc};

/// Not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no time; write it like \"2027-01-31T00:00:00Z\" (RFC 3339)")]
pub struct InvalidExpiry;

/// Reads RFC 3339, or a duration from `now` like `90d`.
///
/// # Errors
/// [`InvalidExpiry`] if it is neither.
pub fn expiry(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, InvalidExpiry> {
    if let Ok(duration) = humantime::parse_duration(text) {
        return chrono::TimeDelta::from_std(duration)
            .ok()
            .and_then(|duration| now.checked_add_signed(duration))
            .ok_or(InvalidExpiry);
    }
    point(text)
}

/// Reads RFC 3339.
pub(super) fn point(text: &str) -> Result<DateTime<Utc>, InvalidExpiry> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| InvalidExpiry)
}

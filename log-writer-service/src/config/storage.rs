//! Section `[storage]`: how `application_logs` stores events.

use std::fmt;

use serde::Deserialize;

/// How events are stored. A database is of one profile, and changes it only while it has no events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// As rows, with a key: an event is stored once, however it comes again. Old chunks go to the columnstore.
    Row,
    /// Straight into the columnstore, without a key: a request is stored once, an event as often as requests bring it.
    Columnar,
}

impl Profile {
    /// As in the configuration and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Columnar => "columnar",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Section `[storage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// What a new database is made as, and what one that is there must be.
    pub profile: Profile,
}

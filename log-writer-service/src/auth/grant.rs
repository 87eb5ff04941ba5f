//! What a credential allows, whichever kind it is of.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::ValueEnum;

/// What a token allows; each stands for itself, none includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scope {
    /// To send events.
    Ingest,
    /// To read metrics and status, and to ask about events.
    Read,
    /// To add analyses to events.
    Annotate,
    /// To change what is stored or how it is delivered.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Read, Self::Annotate, Self::Admin];

    /// As it stands in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Annotate => "annotate",
            Self::Admin => "admin",
        }
    }
}

/// The scopes of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// Whether a scope is among them.
    #[must_use]
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

/// Who a credential stands for, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) name: Arc<str>,
    pub(super) scopes: Scopes,
    pub(super) tenant: Arc<str>,
    pub(super) expires: Option<DateTime<Utc>>,
}

impl Grant {
    pub(super) fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

//! Tokens, and finding the one that a request presents without telling by the time it takes which one or whether.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{
    hash::{Hash, Hashed},
    presented::Presented,
};

/// What a token allows; each stands for itself, none includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scope {
    /// To send events.
    Ingest,
    /// To read metrics and status.
    Read,
    /// To change what is stored or how it is delivered.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Admin];

    /// As it stands in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// The scopes of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// Whether a scope is among them.
    #[must_use]
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

/// One token of the file.
pub(super) struct Token {
    pub(super) name: Arc<str>,
    pub(super) hash: Hash,
    pub(super) scopes: Scopes,
    /// Its own, or the default one.
    pub(super) tenant: Arc<str>,
    pub(super) expires: Option<DateTime<Utc>>,
}

impl Token {
    pub(super) fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// All tokens of a file.
pub(super) struct Tokens(pub(super) Vec<Token>);

/// What was found of a credential.
pub(super) struct Found<'a> {
    pub(super) token: Option<&'a Token>,
    /// The token of the name that was given, though its secret may be another.
    pub(super) named: Option<Arc<str>>,
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn expired(&self, now: DateTime<Utc>) -> Vec<Arc<str>> {
        let expired = self.0.iter().filter(|token| token.is_expired(now));
        expired.map(|token| Arc::clone(&token.name)).collect()
    }

    /// Compares with every token, whether one was found before or not.
    pub(super) fn find(&self, presented: &Presented) -> Found<'_> {
        let secret = Hashed::new(&presented.secret);
        let name = presented.name.as_deref().unwrap_or_default();
        let has_name = Choice::from(u8::from(presented.name.is_some()));
        let (mut found, mut named) = (u32::MAX, u32::MAX);
        for (number, token) in (0_u32..).zip(&self.0) {
            // Names are no secrets; that their lengths show in time tells nothing that a list of them would not.
            let same_name = token.name.as_bytes().ct_eq(name) & has_name;
            named.conditional_assign(&number, same_name);
            found.conditional_assign(&number, secret.is(&token.hash) & (same_name | !has_name));
        }
        let at = |number: u32| self.0.get(usize::try_from(number).unwrap_or(usize::MAX));
        Found {
            token: at(found),
            named: at(named).map(|token| Arc::clone(&token.name)),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|token| &token.name);
        formatter.debug_list().entries(names).finish()
    }
}

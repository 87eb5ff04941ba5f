//! Who may do what: tokens and certificates, checked on every request, replaced while the service runs.
//!
//! The file holds hashes; a secret is seen in a request only and is never logged or kept. An unknown name takes as long
//! as a wrong secret: every check compares with every token. A new file that is wrong or cannot be read changes nothing:
//! the tokens before it stay. What a refusal looks like over HTTP is `http`'s.

mod certificates;
mod expiry;
mod file;
mod hash;
mod presented;
mod token;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, Utc};

pub use self::{
    certificates::server_config,
    expiry::{InvalidExpiry, expiry},
    file::{Entry, entry},
    hash::{SECRET_BYTES_MIN, WeakSecret, hash_of, new_secret},
    token::{Scope, Scopes},
};
use self::{
    file::Rules,
    presented::{Malformed, Presented},
    token::Tokens,
};
use crate::config::Config;

/// What a request may count on once its credential was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token.
    pub token: Arc<str>,
    /// The tenant that its events are stored under.
    pub tenant: Arc<str>,
    /// Whether it has the scope `admin`: it may ask about all tenants.
    pub is_admin: bool,
}

/// Why a request was refused; its sender is not told more than the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No certificate of a client.
    Certificate,
    /// No credential.
    Missing,
    /// A credential that cannot be read, or several.
    Malformed,
    /// No token has this secret, or not under this name.
    Unknown,
    /// A good token after its end.
    Expired,
    /// A good token that may not do this.
    Scope,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Certificate,
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Expired,
        Self::Scope,
    ];

    /// Stable name, as in the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Scope => "scope",
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub reason: Reason,
    /// The token it is about, if one of that name or secret is known.
    pub token: Option<Arc<str>>,
}

/// The tokens in force. Clones share them.
#[derive(Debug, Clone)]
pub struct Credentials {
    path: PathBuf,
    rules: Arc<Rules>,
    tokens: Arc<RwLock<Arc<Tokens>>>,
}

impl Credentials {
    /// Reads the tokens; `None` if nobody is asked for one.
    ///
    /// # Errors
    /// Every mistake in the file, one text each; no secret and no hash stands in them.
    pub fn open(config: &Config) -> Result<Option<Self>, Vec<String>> {
        if !config.auth.enabled {
            return Ok(None);
        }
        let path = config.auth.tokens_file.clone().unwrap_or_default();
        let rules = Rules::new(&config.events);
        let tokens = file::read(&path, &rules)?;
        Ok(Some(Self {
            path,
            rules: Arc::new(rules),
            tokens: Arc::new(RwLock::new(Arc::new(tokens))),
        }))
    }

    /// Reads the file again and puts its tokens in force; how many they are.
    ///
    /// # Errors
    /// As [`Credentials::open`]; then the tokens before stay in force.
    pub fn reload(&self) -> Result<usize, Vec<String>> {
        let tokens = file::read(&self.path, &self.rules)?;
        let count = tokens.len();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        Ok(count)
    }

    /// Names of the tokens in force that are past their end.
    #[must_use]
    pub fn expired(&self, now: DateTime<Utc>) -> Vec<Arc<str>> {
        self.in_force().expired(now)
    }

    /// Checks a request's `Authorization` headers.
    ///
    /// # Errors
    /// [`Denied`] if the request must not be served.
    pub fn check<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        needed: Scope,
        now: DateTime<Utc>,
    ) -> Result<Caller, Denied> {
        let denied = |reason, token| Err(Denied { reason, token });
        let presented = match Presented::of(headers) {
            Ok(Some(presented)) => presented,
            Ok(None) => return denied(Reason::Missing, None),
            Err(Malformed) => return denied(Reason::Malformed, None),
        };
        let tokens = self.in_force();
        let found = tokens.find(&presented);
        let Some(token) = found.token else {
            return denied(Reason::Unknown, found.named);
        };
        if token.is_expired(now) {
            return denied(Reason::Expired, Some(Arc::clone(&token.name)));
        }
        if !token.scopes.contains(needed) {
            return denied(Reason::Scope, Some(Arc::clone(&token.name)));
        }
        Ok(Caller {
            token: Arc::clone(&token.name),
            tenant: Arc::clone(&token.tenant),
            is_admin: token.scopes.contains(Scope::Admin),
        })
    }

    fn in_force(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What keeps `serve` from starting: a listener open to everyone, a file of tokens that cannot be used. Keys and messages.
#[must_use]
pub fn mistakes(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let others_can_connect = !config.http.listen.ip().to_canonical().is_loopback();
    let needs_certificate = config.tls.enabled && config.tls.client_ca_file.is_some();
    if others_can_connect && !config.auth.enabled && !needs_certificate && !config.http.allow_unauthenticated {
        found.push((
            "http.listen".to_owned(),
            "other machines can connect, and nobody would be asked for a credential; give auth.enabled = true and \
             auth.tokens_file, or tls.client_ca_file (docs/SECURITY.md), or listen on 127.0.0.1, or, if something else keeps strangers out, \
             http.allow_unauthenticated = true"
                .to_owned(),
        ));
    }
    // Without a name of a file the configuration has said so itself.
    if config.auth.tokens_file.is_some()
        && let Err(mistakes) = Credentials::open(config)
    {
        found.extend(
            mistakes
                .into_iter()
                .map(|mistake| ("auth.tokens_file".to_owned(), mistake)),
        );
    }
    if let Err(mistakes) = server_config(&config.tls) {
        found.extend(mistakes);
    }
    found
}

#[cfg(test)]
mod tests;

//! Who may do what: tokens, tokens that an issuer signed (JWT) and certificates, checked on every request, replaced while
//! the service runs.
//!
//! The file holds hashes; a secret is seen in a request only and is never logged or kept. An unknown name takes as long
//! as a wrong secret: every check compares with every token. Where a token and a certificate come together the token says
//! who it is. New files of which one is wrong or cannot be read change nothing: what was in force before stays. What a
//! refusal looks like over HTTP is `http`'s.

mod certificates;
mod expiry;
mod file;
mod grant;
mod hash;
mod holder;
mod jwt;
mod presented;
mod tenants;
mod token;
mod validity;

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};

pub use self::{
    certificates::{Tls, server_config},
    expiry::{InvalidExpiry, expiry},
    file::{Entry, entry},
    grant::{Scope, Scopes},
    hash::{SECRET_BYTES_MIN, WeakSecret, hash_of, new_secret},
    holder::{Subject, subjects},
    validity::Terms,
};
use self::{
    file::{Entries, Rules, read_file},
    grant::Grant,
    holder::Holder,
    jwt::Jwt,
    presented::{Malformed, Presented},
    token::Tokens,
};
use crate::config::{self, Config};

/// What a request may count on once its credential was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token or of the certificate's holder; `jwt:` and the subject of a signed token.
    pub token: Arc<str>,
    /// The tenant that its events are stored under.
    pub tenant: Arc<str>,
    /// Whether it has the scope `admin`: it may ask about all tenants.
    pub is_admin: bool,
    /// Whether it has the scope `annotate`.
    pub may_annotate: bool,
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
    /// No token has this secret, or not under this name; a signature by none of the keys; a certificate of nobody known.
    Unknown,
    /// A good credential after its end.
    Expired,
    /// A well-signed token that is for others, not yet in force, or of a tenant that cannot be one.
    Claims,
    /// A good credential that may not do this.
    Scope,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Certificate,
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Expired,
        Self::Claims,
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
            Self::Claims => "claims",
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
    /// What more there is to say, for the log alone.
    pub detail: &'static str,
}

impl Denied {
    /// A refusal of which there is no more to say.
    #[must_use]
    pub fn new(reason: Reason, token: Option<Arc<str>>) -> Self {
        Self {
            reason,
            token,
            detail: "",
        }
    }
}

/// The credentials in force. Clones share them.
#[derive(Debug, Clone)]
pub struct Credentials {
    settings: config::Auth,
    rules: Arc<Rules>,
    in_force: Arc<RwLock<Arc<InForce>>>,
}

#[derive(Debug)]
struct InForce {
    tokens: Tokens,
    holders: Vec<Holder>,
    jwt: Option<Jwt>,
}

impl InForce {
    fn read(settings: &config::Auth, rules: &Rules) -> Result<Self, Vec<(String, String)>> {
        let of = |key: &'static str| {
            move |wrong: Vec<String>| {
                wrong
                    .into_iter()
                    .map(|wrong| (key.to_owned(), wrong))
                    .collect::<Vec<_>>()
            }
        };
        let entries = match &settings.tokens_file {
            Some(path) => file::read(path, rules).map_err(of("auth.tokens_file"))?,
            None => Entries::none(rules),
        };
        let jwt = Jwt::open(&settings.jwt, entries.tenants).map_err(of("auth.jwt.jwks_file"))?;
        Ok(Self {
            jwt,
            tokens: entries.tokens,
            holders: entries.holders,
        })
    }

    fn grants(&self) -> impl Iterator<Item = &Grant> {
        let of_tokens = self.tokens.0.iter().map(|token| &token.grant);
        of_tokens.chain(self.holders.iter().map(|holder| &holder.grant))
    }

    /// Who presents this.
    fn of_presented(&self, presented: &Presented) -> Result<Grant, Denied> {
        let found = self.tokens.find(presented);
        match (found.token, &self.jwt) {
            (Some(token), _) => Ok(token.grant.clone()),
            (None, Some(jwt)) if presented.name.is_none() && Jwt::looks_like_one(&presented.secret) => {
                jwt.check(&presented.secret).map_err(|(reason, detail)| Denied {
                    reason,
                    token: None,
                    detail,
                })
            }
            (None, _) => Err(Denied::new(Reason::Unknown, found.named)),
        }
    }

    /// Whose certificate this is.
    fn of_certificate(&self, subjects: &[Subject]) -> Result<Grant, Denied> {
        let holder = holder::find(&self.holders, subjects);
        let holder = holder.ok_or_else(|| Denied::new(Reason::Unknown, None))?;
        Ok(holder.grant.clone())
    }
}

impl Credentials {
    /// Reads the tokens, certificates and keys; `None` if nobody is asked for one.
    ///
    /// # Errors
    /// Keys and every mistake in their files; no secret and no hash stands in them.
    pub fn open(config: &Config) -> Result<Option<Self>, Vec<(String, String)>> {
        if !config.auth.enabled {
            return Ok(None);
        }
        let rules = Rules::new(config);
        let in_force = InForce::read(&config.auth, &rules)?;
        Ok(Some(Self {
            settings: config.auth.clone(),
            rules: Arc::new(rules),
            in_force: Arc::new(RwLock::new(Arc::new(in_force))),
        }))
    }

    /// Reads the files again and puts them in force; how many tokens and certificates they name.
    ///
    /// # Errors
    /// As [`Credentials::open`]; then all that was in force stays so.
    pub fn reload(&self) -> Result<usize, Vec<(String, String)>> {
        let new = InForce::read(&self.settings, &self.rules)?;
        let count = new.grants().count();
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(count)
    }

    /// Names of the tokens and certificates in force that are past their end.
    #[must_use]
    pub fn expired(&self, now: DateTime<Utc>) -> Vec<Arc<str>> {
        let in_force = self.in_force();
        let expired = in_force.grants().filter(|grant| grant.is_expired(now));
        expired.map(|grant| Arc::clone(&grant.name)).collect()
    }

    /// Checks a request's `Authorization` headers; without one, the names in its sender's certificate.
    ///
    /// # Errors
    /// [`Denied`] if the request must not be served.
    pub fn check<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        subjects: &[Subject],
        needed: Scope,
        now: DateTime<Utc>,
    ) -> Result<Caller, Denied> {
        let in_force = self.in_force();
        let grant = match Presented::of(headers) {
            Ok(Some(presented)) => in_force.of_presented(&presented)?,
            Ok(None) if subjects.is_empty() => return Err(Denied::new(Reason::Missing, None)),
            Ok(None) => in_force.of_certificate(subjects)?,
            Err(Malformed) => return Err(Denied::new(Reason::Malformed, None)),
        };
        if grant.is_expired(now) {
            return Err(Denied::new(Reason::Expired, Some(grant.name)));
        }
        if !grant.scopes.contains(needed) {
            return Err(Denied::new(Reason::Scope, Some(grant.name)));
        }
        Ok(Caller {
            token: grant.name,
            tenant: grant.tenant,
            is_admin: grant.scopes.contains(Scope::Admin),
            may_annotate: grant.scopes.contains(Scope::Annotate),
        })
    }

    fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
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
    if (config.auth.tokens_file.is_some() || config.auth.jwt.jwks_file.is_some())
        && let Err(mistakes) = Credentials::open(config)
    {
        found.extend(mistakes);
    }
    if let Err(mistakes) = server_config(&config.tls) {
        found.extend(mistakes);
    }
    found
}

#[cfg(test)]
mod tests;

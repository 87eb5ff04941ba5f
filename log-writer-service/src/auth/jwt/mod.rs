//! Tokens that an issuer signed (JWT, RFC 7519), checked as RFC 8725 asks: the key decides the algorithm, never the token.
//!
//! A token counts if a public key of the file signed it, it is for us (`aud`), from the issuer (`iss`), has an end (`exp`)
//! that has not come and names a tenant that can be one. Nothing is asked over the network.

mod keys;
mod provider;

use std::{fmt, sync::Arc};

use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::keys::Key;
use super::{
    Reason,
    grant::{Grant, Scope, Scopes},
    read_file,
    tenants::Tenants,
};
use crate::config;

/// What is kept of a subject for the log, in characters.
const SUBJECT_CHARS_MAX: usize = 64;

/// What signed tokens are held against.
pub(super) struct Jwt {
    keys: Vec<Key>,
    settings: config::Jwt,
    tenants: Tenants,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.keys.iter().map(|key| &key.kid);
        formatter.debug_list().entries(names).finish()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Why a token does not count, for the log.
pub(super) type Refused = (Reason, &'static str);

impl Jwt {
    /// Reads the issuer's keys; `None` if no file of them is named.
    ///
    /// # Errors
    /// All mistakes.
    pub(super) fn open(settings: &config::Jwt, tenants: Tenants) -> Result<Option<Self>, Vec<String>> {
        let Some(path) = &settings.jwks_file else {
            return Ok(None);
        };
        provider::install();
        let text = read_file(path).map_err(|wrong| vec![format!("the file of keys {wrong}")])?;
        Ok(Some(Self {
            keys: keys::parse(&text)?,
            settings: settings.clone(),
            tenants,
        }))
    }

    /// Whether a secret has the form of such a token: three parts.
    pub(super) fn looks_like_one(secret: &[u8]) -> bool {
        secret.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// What a token allows.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn check(&self, token: &[u8]) -> Result<Grant, Refused> {
        // An algorithm that the library does not know, `none` among them, ends here.
        let header = decode_header(token).map_err(|_| (Reason::Malformed, "its header cannot be read"))?;
        if header.crit.is_some() {
            return Err((Reason::Malformed, "it asks for an extension (`crit`)"));
        }
        let key = self.keys.iter().find(|key| key.kid == header.kid);
        let key = key.ok_or((Reason::Unknown, "no key has its `kid`"))?;
        let mut validation = Validation::new(header.alg);
        validation.algorithms.clone_from(&key.algorithms);
        validation.leeway = self.settings.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[self.settings.issuer.as_deref().unwrap_or_default()]);
        validation.set_audience(&[self.settings.audience.as_deref().unwrap_or_default()]);
        let claims = decode::<Claims>(token, &key.key, &validation)
            .map_err(|error| refused(error.kind()))?
            .claims;
        Ok(Grant {
            name: name_of(claims.sub.as_deref()),
            scopes: self.scopes(&claims.others)?,
            tenant: self.tenant(&claims.others)?,
            // Past its end it was refused above.
            expires: None,
        })
    }

    fn tenant(&self, claims: &Map<String, Value>) -> Result<Arc<str>, Refused> {
        let tenant = match claims.get(&self.settings.tenant_claim) {
            Some(Value::String(tenant)) => tenant.as_str(),
            None => {
                let default = self.settings.default_tenant.as_deref();
                default.ok_or((Reason::Claims, "it names no tenant (auth.jwt.tenant_claim)"))?
            }
            Some(_) => return Err((Reason::Claims, "its tenant is no text")),
        };
        let known = self.tenants.take(tenant);
        known.map_err(|_| {
            (
                Reason::Claims,
                "its tenant cannot be one, or differs from another in case only",
            )
        })
    }

    /// Words that are none of ours are for others.
    fn scopes(&self, claims: &Map<String, Value>) -> Result<Scopes, Refused> {
        let words: Vec<&str> = match claims.get(&self.settings.scopes_claim) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err((Reason::Claims, "its scopes are neither text nor a list")),
        };
        let scopes = Scope::ALL.into_iter().filter(|scope| words.contains(&scope.name()));
        Ok(Scopes(scopes.collect()))
    }
}

/// Of the subject only what cannot shape a line of the log, and its hash where that is not all of it: two subjects have two
/// names. No token of the file has a name with a colon.
fn name_of(subject: Option<&str>) -> Arc<str> {
    let subject = subject.unwrap_or_default();
    let mask = |c: char| if c.is_ascii_graphic() && c != '~' { c } else { '_' };
    let shown: String = subject.chars().take(SUBJECT_CHARS_MAX).map(mask).collect();
    if shown == subject {
        return Arc::from(format!("jwt:{shown}"));
    }
    let hash = blake3::hash(subject.as_bytes()).to_hex();
    Arc::from(format!("jwt:{shown}~{}", hash.get(..16).unwrap_or_default()))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum may grow, and all the rest is told alike"
)]
fn refused(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::ExpiredSignature => (Reason::Expired, "its `exp` has passed"),
        ErrorKind::ImmatureSignature => (Reason::Claims, "its `nbf` has not come"),
        ErrorKind::InvalidIssuer => (Reason::Claims, "its `iss` is not auth.jwt.issuer"),
        ErrorKind::InvalidAudience => (Reason::Claims, "its `aud` is not auth.jwt.audience"),
        ErrorKind::MissingRequiredClaim(_) => (Reason::Claims, "it lacks `exp`, `iss` or `aud`"),
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            (Reason::Unknown, "its key is not for its algorithm")
        }
        ErrorKind::InvalidSignature => (Reason::Unknown, "its signature is not by its key"),
        _ => (Reason::Malformed, "it cannot be read"),
    }
}

#[cfg(test)]
mod tests;

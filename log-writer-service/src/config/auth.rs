//! Section `[auth]`: who may send and read.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{Config, check::tenant_mistake, load::Merge};

/// Longest `leeway`: more would keep tokens alive that have ended.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// Section `[auth]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whether requests need a credential.
    pub enabled: bool,
    /// TOML file of the tokens and of the names in certificates.
    pub tokens_file: Option<PathBuf>,
    /// Tokens that an issuer signed.
    pub jwt: Jwt,
}

/// Section `[auth.jwt]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// JWKS file of the issuer's public keys; without it no signed token is taken.
    pub jwks_file: Option<PathBuf>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be, or have among others.
    pub audience: Option<String>,
    /// How far the issuer's clock may be off.
    #[serde(with = "super::unit::duration")]
    pub leeway: Duration,
    /// Name of the claim that holds the tenant.
    pub tenant_claim: String,
    /// Name of the claim that holds the scopes.
    pub scopes_claim: String,
    /// Tenant of tokens without that claim; without it they are refused.
    pub default_tenant: Option<String>,
}

/// Notes what must hold between keys.
pub(super) fn check(config: &Config, merge: &mut Merge) {
    let auth = &config.auth;
    let files = [
        ("auth.tokens_file", auth.tokens_file.is_some()),
        ("auth.jwt.jwks_file", auth.jwt.jwks_file.is_some()),
    ];
    let has_file = files.iter().any(|(_, is_given)| *is_given);
    if auth.enabled && !has_file {
        merge.refuse(
            &["auth.enabled", "auth.tokens_file"],
            "requests need a token, but no file of tokens is named; `log-writer-service token new` makes an entry for one",
        );
    }
    for (key, _) in files.iter().filter(|(_, is_given)| *is_given && !auth.enabled) {
        merge.notes.push(format!(
            "{key} is not read: auth.enabled is false, nobody is asked for a token"
        ));
    }
    if auth.enabled && has_file && !config.events.body_tenants.is_empty() {
        merge
            .notes
            .push("events.body_tenants has no effect: with auth.enabled the tenant is the token's".to_owned());
    }
    jwt(config, merge);
}

fn jwt(config: &Config, merge: &mut Merge) {
    let jwt = &config.auth.jwt;
    for (key, value) in [("auth.jwt.issuer", &jwt.issuer), ("auth.jwt.audience", &jwt.audience)] {
        if jwt.jwks_file.is_some() && value.as_ref().is_none_or(String::is_empty) {
            merge.refuse(
                &["auth.jwt.jwks_file", key],
                "without issuer and audience every token that these keys ever signed would count, whomever it was for; name both",
            );
        }
    }
    if jwt.leeway > LEEWAY_MAX {
        merge.refuse(
            &["auth.jwt.leeway"],
            "must be at most 10m: tokens count so long after their end",
        );
    }
    for (key, name) in [
        ("auth.jwt.tenant_claim", &jwt.tenant_claim),
        ("auth.jwt.scopes_claim", &jwt.scopes_claim),
    ] {
        if name.is_empty() {
            merge.refuse(&[key], "must not be empty");
        }
    }
    let Some(tenant) = &jwt.default_tenant else { return };
    let other = &config.events.default_tenant;
    if let Some(wrong) = tenant_mistake(tenant) {
        merge.refuse(&["auth.jwt.default_tenant"], wrong);
    } else if tenant.to_lowercase() == other.to_lowercase() && tenant != other {
        merge.refuse(
            &["auth.jwt.default_tenant", "events.default_tenant"],
            "differ only in case and would share an index; write them alike",
        );
    } else if tenant.to_lowercase() != *tenant && tenant != other {
        merge.refuse(
            &["auth.jwt.default_tenant"],
            "must be in lower case, as the names of indices are",
        );
    }
}

//! The file of tokens: read whole or not at all, every mistake told, nothing of a secret or a hash quoted.

use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Read as _, path::Path, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;

use super::{
    expiry,
    hash::{Hash, from_hex},
    token::{Scope, Scopes, Token, Tokens},
};
use crate::config::{self, tenant_mistake};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    token: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    blake3: Option<String>,
    sha256: Option<String>,
    scopes: Vec<String>,
    tenant: Option<String>,
    expires: Option<toml::Value>,
}

/// What the tokens' tenants are held against.
#[derive(Debug)]
pub(super) struct Rules {
    default_tenant: Arc<str>,
}

impl Rules {
    pub(super) fn new(events: &config::Events) -> Self {
        Self {
            default_tenant: Arc::from(events.default_tenant.as_str()),
        }
    }
}

/// Reads a file.
///
/// # Errors
/// All mistakes.
pub(super) fn read(path: &Path, rules: &Rules) -> Result<Tokens, Vec<String>> {
    let mut text = String::new();
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text).map(|_| ())
    };
    if let Err(error) = read() {
        return Err(vec![format!("the file of tokens cannot be read: {error}")]);
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(vec![format!("the file of tokens has more than {FILE_BYTES_MAX} bytes")]);
    }
    parse(&text, rules)
}

pub(super) fn parse(text: &str, rules: &Rules) -> Result<Tokens, Vec<String>> {
    let document: Document = toml::from_str(text).map_err(|error| vec![explain(text, &error)])?;
    let mut mistakes = Vec::new();
    let mut tokens: Vec<Token> = Vec::new();
    for (number, written) in (1_u32..).zip(document.token) {
        match token(number, written, rules) {
            Ok(token) => tokens.push(token),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    if tokens.is_empty() && mistakes.is_empty() {
        mistakes.push("the file has no token, so nobody could send or read; `token new` makes an entry".to_owned());
    }
    mistakes.extend(between(&tokens, rules));
    if mistakes.is_empty() {
        Ok(Tokens(tokens))
    } else {
        Err(mistakes)
    }
}

fn token(number: u32, written: Written, rules: &Rules) -> Result<Token, Vec<String>> {
    if let Some(wrong) = name_mistake(&written.name) {
        // Not quoted: it may be the secret, put in the wrong place.
        return Err(vec![format!("the name of token number {number} {wrong}")]);
    }
    let name = written.name;
    let mut mistakes = Vec::new();
    let mut wrong = |message: String| mistakes.push(format!("token `{name}` {message}"));
    let hash = match (written.blake3.as_deref(), written.sha256.as_deref()) {
        (Some(hex), None) => from_hex(hex).map(Hash::Blake3),
        (None, Some(hex)) => from_hex(hex).map(Hash::Sha256),
        (Some(_), Some(_)) | (None, None) => None,
    };
    if hash.is_none() {
        wrong(
            "needs one of blake3 and sha256: the hash of its secret, 64 hex digits (`token hash` makes it)".to_owned(),
        );
    }
    let known = |text: &String| Scope::ALL.into_iter().find(|scope| scope.name() == *text);
    let scopes: Vec<Scope> = written.scopes.iter().filter_map(known).collect();
    if scopes.is_empty() || scopes.len() < written.scopes.len() {
        wrong("needs scopes, each of them one of ingest, read, admin".to_owned());
    }
    if let Some(mistake) = written.tenant.as_deref().and_then(tenant_mistake) {
        wrong(format!("has a tenant that cannot be used: it {mistake}"));
    }
    let expires = written.expires.map(|value| match value {
        toml::Value::String(text) => expiry::point(&text),
        toml::Value::Datetime(time) => expiry::point(&time.to_string()),
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => Err(expiry::InvalidExpiry),
    });
    if let Some(Err(error)) = &expires {
        wrong(format!("has an `expires` that {error}"));
    }
    match (hash, expires.transpose()) {
        (Some(hash), Ok(expires)) if mistakes.is_empty() => Ok(Token {
            name: Arc::from(name),
            hash,
            scopes: Scopes(scopes),
            tenant: written
                .tenant
                .map_or_else(|| Arc::clone(&rules.default_tenant), Arc::from),
            expires,
        }),
        (Some(_) | None, Ok(_) | Err(_)) => Err(mistakes),
    }
}

/// What does not hold between tokens.
fn between(tokens: &[Token], rules: &Rules) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut lower: BTreeMap<String, Arc<str>> = BTreeMap::new();
    lower.insert(rules.default_tenant.to_lowercase(), Arc::clone(&rules.default_tenant));
    for (number, token) in tokens.iter().enumerate() {
        for before in tokens.iter().take(number) {
            if before.name == token.name {
                mistakes.push(format!("two tokens have the name `{}`", token.name));
            }
            if before.hash == token.hash {
                mistakes.push(format!(
                    "tokens `{}` and `{}` have the same secret, so nobody can tell which one is meant",
                    before.name, token.name
                ));
            }
        }
        let before = lower
            .entry(token.tenant.to_lowercase())
            .or_insert_with(|| Arc::clone(&token.tenant));
        if *before != token.tenant {
            mistakes.push(format!(
                "tenants `{before}` and `{}` differ only in case and would share an index; rename one",
                token.tenant
            ));
        }
    }
    mistakes
}

/// Without a quote of the line, which the whole message would have.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.lines().count().max(1));
    let message = error.message();
    let safe = ["unknown field", "missing field", "duplicate key"]
        .iter()
        .any(|start| message.starts_with(start));
    let what = if safe {
        message
    } else {
        "it is no TOML, or a value is of the wrong kind"
    };
    format!("the file of tokens cannot be understood near line {line}: {what}")
}

/// What keeps a text from being a token's name.
fn name_mistake(name: &str) -> Option<&'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(known) {
        return Some("must have 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    None
}

/// What makes an entry.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Name of the token.
    pub name: &'a str,
    /// BLAKE3 of its secret in hex.
    pub blake3: &'a str,
    /// What it allows.
    pub scopes: &'a [Scope],
    /// Its tenant, if not the default one.
    pub tenant: Option<&'a str>,
    /// When it ends.
    pub expires: Option<DateTime<Utc>>,
}

/// The entry of a token as it stands in the file.
///
/// # Errors
/// What the file's reader would not take.
pub fn entry(token: &Entry<'_>) -> Result<String, String> {
    if let Some(wrong) = name_mistake(token.name) {
        return Err(format!("the name {wrong}"));
    }
    if let Some(wrong) = token.tenant.and_then(tenant_mistake) {
        return Err(format!("the tenant {wrong}"));
    }
    let scopes: Vec<String> = token
        .scopes
        .iter()
        .map(|scope| format!("\"{}\"", scope.name()))
        .collect();
    let mut text = format!(
        "[[token]]\nname = \"{}\"\nblake3 = \"{}\"\nscopes = [{}]\n",
        token.name,
        token.blake3,
        scopes.join(", ")
    );
    if let Some(tenant) = token.tenant {
        // A tenant has no quote, no backslash and no control character.
        let _infallible = writeln!(text, "tenant = \"{tenant}\"");
    }
    if let Some(expires) = token.expires {
        let _infallible = writeln!(text, "expires = {}", expires.to_rfc3339_opts(SecondsFormat::Secs, true));
    }
    Ok(text)
}

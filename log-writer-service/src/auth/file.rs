//! The file of tokens: read whole or not at all, every mistake told, nothing of a secret or a hash quoted.

use std::{fmt::Write as _, fs::File, io::Read as _, path::Path, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;

use super::{
    expiry,
    grant::{Grant, Scope, Scopes},
    hash::{Hash, from_hex},
    holder::{Holder, Subject},
    tenants::Tenants,
    token::{Token, Tokens},
};
use crate::config::{Config, tenant_mistake};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a token or a certificate's holder, in bytes.
const NAME_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    token: Vec<WrittenToken>,
    #[serde(default)]
    certificate: Vec<WrittenCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    blake3: Option<String>,
    sha256: Option<String>,
    scopes: Vec<String>,
    tenant: Option<String>,
    expires: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCertificate {
    name: String,
    dns: Option<String>,
    uri: Option<String>,
    scopes: Vec<String>,
    tenant: Option<String>,
    expires: Option<toml::Value>,
}

/// What of an entry says whom it is for.
struct WrittenGrant {
    name: String,
    scopes: Vec<String>,
    tenant: Option<String>,
    expires: Option<toml::Value>,
}

/// What the file's entries are held against.
#[derive(Debug)]
pub(super) struct Rules {
    default_tenant: Arc<str>,
    /// Whether anyone asks for certificates of clients.
    asks_for_certificates: bool,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            default_tenant: Arc::from(config.events.default_tenant.as_str()),
            asks_for_certificates: config.tls.enabled && config.tls.client_ca_file.is_some(),
        }
    }

    /// The tenants that are known without a file.
    pub(super) fn tenants(&self) -> Tenants {
        Tenants::new(&self.default_tenant)
    }
}

/// What stands in the file.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) tokens: Tokens,
    pub(super) holders: Vec<Holder>,
    /// Theirs and the default one.
    pub(super) tenants: Tenants,
}

impl Entries {
    /// Where there is no file.
    pub(super) fn none(rules: &Rules) -> Self {
        Self {
            tokens: Tokens(Vec::new()),
            holders: Vec::new(),
            tenants: rules.tenants(),
        }
    }
}

/// Reads a file.
///
/// # Errors
/// All mistakes.
pub(super) fn read(path: &Path, rules: &Rules) -> Result<Entries, Vec<String>> {
    let text = read_file(path).map_err(|wrong| vec![format!("the file of tokens {wrong}")])?;
    parse(&text, rules)
}

/// Reads a file of bounded size.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text).map(|_| ())
    };
    if let Err(error) = read() {
        return Err(format!("cannot be read: {error}"));
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

pub(super) fn parse(text: &str, rules: &Rules) -> Result<Entries, Vec<String>> {
    let document: Document = toml::from_str(text).map_err(|error| vec![explain(text, &error)])?;
    let mut mistakes = Vec::new();
    let (mut tokens, mut holders): (Vec<Token>, Vec<Holder>) = (Vec::new(), Vec::new());
    for (number, written) in (1_u32..).zip(document.token) {
        match token(number, written, rules) {
            Ok(token) => tokens.push(token),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    for (number, written) in (1_u32..).zip(document.certificate) {
        match holder(number, written, rules) {
            Ok(holder) => holders.push(holder),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    if tokens.is_empty() && holders.is_empty() && mistakes.is_empty() {
        mistakes.push("the file has no token, so nobody could send or read; `token new` makes an entry".to_owned());
    }
    let (mut between, tenants) = between(&tokens, &holders, rules);
    mistakes.append(&mut between);
    if mistakes.is_empty() {
        Ok(Entries {
            tokens: Tokens(tokens),
            holders,
            tenants,
        })
    } else {
        Err(mistakes)
    }
}

fn token(number: u32, written: WrittenToken, rules: &Rules) -> Result<Token, Vec<String>> {
    let hash = match (written.blake3.as_deref(), written.sha256.as_deref()) {
        (Some(hex), None) => from_hex(hex).map(Hash::Blake3),
        (None, Some(hex)) => from_hex(hex).map(Hash::Sha256),
        (Some(_), Some(_)) | (None, None) => None,
    };
    let mistake = "needs one of blake3 and sha256: the hash of its secret, 64 hex digits (`token hash` makes it)";
    let (name, scopes, tenant, expires) = (written.name, written.scopes, written.tenant, written.expires);
    let written = WrittenGrant {
        name,
        scopes,
        tenant,
        expires,
    };
    let (hash, grant) = granted("token", number, written, hash.ok_or(mistake), rules)?;
    Ok(Token { grant, hash })
}

fn holder(number: u32, written: WrittenCertificate, rules: &Rules) -> Result<Holder, Vec<String>> {
    let is_whole = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != '*');
    let subject = match (written.dns.filter(is_whole), written.uri.filter(is_whole)) {
        (Some(name), None) => Ok(Subject::Dns(name.to_ascii_lowercase())),
        (None, Some(name)) => Ok(Subject::Uri(name)),
        (Some(_), Some(_)) | (None, None) => {
            Err("needs one of dns and uri: a whole name of its certificate, without `*`")
        }
    };
    let subject = subject.and_then(|subject| {
        let mistake = "can never come: no certificate is asked for without tls.client_ca_file";
        rules.asks_for_certificates.then_some(subject).ok_or(mistake)
    });
    let (name, scopes, tenant, expires) = (written.name, written.scopes, written.tenant, written.expires);
    let written = WrittenGrant {
        name,
        scopes,
        tenant,
        expires,
    };
    let (subject, grant) = granted("certificate", number, written, subject, rules)?;
    Ok(Holder { grant, subject })
}

/// Checks what an entry grants, and tells what is wrong with its proof along with that.
fn granted<P>(
    kind: &str,
    number: u32,
    written: WrittenGrant,
    proof: Result<P, &str>,
    rules: &Rules,
) -> Result<(P, Grant), Vec<String>> {
    if let Some(wrong) = name_mistake(&written.name) {
        // Not quoted: it may be the secret, put in the wrong place.
        return Err(vec![format!("the name of {kind} number {number} {wrong}")]);
    }
    let name = written.name;
    let mut mistakes = Vec::new();
    let mut wrong = |message: String| mistakes.push(format!("{kind} `{name}` {message}"));
    if let Err(mistake) = &proof {
        wrong((*mistake).to_owned());
    }
    let known = |text: &String| Scope::ALL.into_iter().find(|scope| scope.name() == *text);
    let scopes: Vec<Scope> = written.scopes.iter().filter_map(known).collect();
    if scopes.is_empty() || scopes.len() < written.scopes.len() {
        wrong("needs scopes, each of them one of ingest, read, annotate, admin".to_owned());
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
    match (proof, expires.transpose()) {
        (Ok(proof), Ok(expires)) if mistakes.is_empty() => {
            let tenant = written.tenant.map(Arc::from);
            let grant = Grant {
                name: Arc::from(name),
                scopes: Scopes(scopes),
                tenant: tenant.unwrap_or_else(|| Arc::clone(&rules.default_tenant)),
                expires,
            };
            Ok((proof, grant))
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(mistakes),
    }
}

/// What does not hold between entries; and their tenants.
fn between(tokens: &[Token], holders: &[Holder], rules: &Rules) -> (Vec<String>, Tenants) {
    let mut mistakes = Vec::new();
    for (number, token) in tokens.iter().enumerate() {
        for before in tokens.iter().take(number).filter(|before| before.hash == token.hash) {
            mistakes.push(format!(
                "tokens `{}` and `{}` have the same secret, so nobody can tell which one is meant",
                before.grant.name, token.grant.name
            ));
        }
    }
    for (number, holder) in holders.iter().enumerate() {
        for before in holders
            .iter()
            .take(number)
            .filter(|before| before.subject == holder.subject)
        {
            mistakes.push(format!(
                "certificates `{}` and `{}` have the same name in them, so nobody can tell which one is meant",
                before.grant.name, holder.grant.name
            ));
        }
    }
    let mut tenants = rules.tenants();
    let of_tokens = tokens.iter().map(|token| &token.grant);
    let grants: Vec<&Grant> = of_tokens.chain(holders.iter().map(|holder| &holder.grant)).collect();
    for (number, grant) in grants.iter().enumerate() {
        if grants.iter().take(number).any(|before| before.name == grant.name) {
            mistakes.push(format!("two entries have the name `{}`", grant.name));
        }
        if let Err(before) = tenants.add(&grant.tenant) {
            mistakes.push(format!(
                "tenants `{before}` and `{}` differ only in case and would share an index; rename one",
                grant.tenant
            ));
        }
    }
    (mistakes, tenants)
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

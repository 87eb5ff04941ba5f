//! Tokens as people write them, secrets as clients send them, and what keeps a service from starting.

use std::{fs, path::Path};

use chrono::TimeDelta;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::*;
use crate::config::{Sources, load};

const SECRET: &str = "a-secret-of-thirty-two-letters-1";
const OTHER: &str = "a-secret-of-thirty-two-letters-2";

fn sha256_of(secret: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(secret)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn tokens() -> String {
    format!(
        "[[token]]\nname = \"agent\"\nblake3 = \"{}\"\nscopes = [\"ingest\"]\ntenant = \"Acme\"\n\
         [[token]]\nname = \"prometheus\"\nsha256 = \"{}\"\nscopes = [\"read\"]\nexpires = 2030-01-01T00:00:00Z\n",
        hash_of(SECRET).unwrap(),
        sha256_of(OTHER)
    )
}

fn config(flags: &[(&str, &str)]) -> Config {
    let set = |(key, value): &(&str, &str)| ("--set".to_owned(), (*key).to_owned(), (*value).to_owned());
    let sources = Sources {
        file: None,
        flags: flags.iter().map(set).collect(),
        environment: Vec::new(),
        usual_file: "/nonexistent".into(),
    };
    load(&sources).unwrap().config
}

fn opened(text: &str) -> (TempDir, Result<Credentials, String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.toml");
    fs::write(&path, text).unwrap();
    let config = config(&[("auth.enabled", "true"), ("auth.tokens_file", path.to_str().unwrap())]);
    let credentials = Credentials::open(&config).map(Option::unwrap);
    (folder, credentials.map_err(|mistakes| told(&mistakes)))
}

fn told(mistakes: &[(String, String)]) -> String {
    let told: Vec<_> = mistakes.iter().map(|(key, wrong)| format!("{key}: {wrong}")).collect();
    told.join("\n")
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

fn basic(name: &str, secret: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn check(credentials: &Credentials, header: &str, scope: Scope) -> Result<(String, String), (Reason, Option<String>)> {
    let now = at("2029-12-31T23:59:59Z");
    credentials
        .check([header.as_bytes()], &[], scope, now)
        .map(|caller| (caller.token.to_string(), caller.tenant.to_string()))
        .map_err(|denied| (denied.reason, denied.token.map(|name| name.to_string())))
}

#[test]
fn a_token_is_known_by_its_secret_and_by_name_and_secret() {
    let (_folder, credentials) = opened(&tokens());
    let credentials = credentials.unwrap();
    for header in [bearer(SECRET), basic("agent", SECRET)] {
        let agent = Ok(("agent".to_owned(), "Acme".to_owned()));
        assert_eq!(check(&credentials, &header, Scope::Ingest), agent, "{header}");
    }
    let prometheus = Ok(("prometheus".to_owned(), "default".to_owned()));
    assert_eq!(check(&credentials, &bearer(OTHER), Scope::Read), prometheus);
}

#[test]
fn what_is_wrong_is_refused_with_its_reason() {
    let (_folder, credentials) = opened(&tokens());
    let credentials = credentials.unwrap();
    let agent = Some("agent".to_owned());
    for (header, scope, reason, token) in [
        (
            bearer("another-secret-of-some-length"),
            Scope::Ingest,
            Reason::Unknown,
            None,
        ),
        (bearer(&SECRET.to_uppercase()), Scope::Ingest, Reason::Unknown, None),
        (
            bearer(SECRET.trim_end_matches('1')),
            Scope::Ingest,
            Reason::Unknown,
            None,
        ),
        (bearer(&hash_of(SECRET).unwrap()), Scope::Ingest, Reason::Unknown, None),
        (basic("agent", OTHER), Scope::Ingest, Reason::Unknown, agent.clone()),
        (basic("agent", ""), Scope::Ingest, Reason::Unknown, agent.clone()),
        (basic("nobody", SECRET), Scope::Ingest, Reason::Unknown, None),
        (basic("", SECRET), Scope::Ingest, Reason::Unknown, None),
        (bearer(SECRET), Scope::Read, Reason::Scope, agent.clone()),
        (bearer(SECRET), Scope::Admin, Reason::Scope, agent),
        ("Digest x".to_owned(), Scope::Ingest, Reason::Malformed, None),
    ] {
        assert_eq!(check(&credentials, &header, scope), Err((reason, token)), "{header}");
    }
    let none: [&[u8]; 0] = [];
    let denied = credentials.check(none, &[], Scope::Ingest, Utc::now()).unwrap_err();
    assert_eq!(denied.reason, Reason::Missing);
}

#[test]
fn a_token_ends_when_it_says() {
    let (_folder, credentials) = opened(&tokens());
    let credentials = credentials.unwrap();
    let end = at("2030-01-01T00:00:00Z");
    let header = bearer(OTHER);
    let on = |now| {
        credentials
            .check([header.as_bytes()], &[], Scope::Read, now)
            .map_err(|denied| denied.reason)
    };
    assert!(on(end - TimeDelta::milliseconds(1)).is_ok());
    assert_eq!(on(end).unwrap_err(), Reason::Expired);
    assert_eq!(credentials.expired(end), [Arc::from("prometheus")]);
}

#[test]
fn a_new_file_counts_and_a_bad_one_keeps_the_old_tokens() {
    let (folder, credentials) = opened(&tokens());
    let (credentials, path) = (credentials.unwrap(), folder.path().join("tokens.toml"));
    for bad in ["", "nonsense", &tokens().replace("ingest", "all")] {
        fs::write(&path, bad).unwrap();
        credentials.reload().unwrap_err();
        assert!(check(&credentials, &bearer(SECRET), Scope::Ingest).is_ok(), "{bad}");
    }
    fs::remove_file(&path).unwrap();
    credentials.reload().unwrap_err();
    assert!(check(&credentials, &bearer(SECRET), Scope::Ingest).is_ok());
    fs::write(
        &path,
        tokens().replace(
            &hash_of(SECRET).unwrap(),
            &hash_of("a-third-secret-of-some-length").unwrap(),
        ),
    )
    .unwrap();
    assert_eq!(credentials.reload(), Ok(2));
    check(&credentials, &bearer(SECRET), Scope::Ingest).unwrap_err();
    check(&credentials, &bearer("a-third-secret-of-some-length"), Scope::Ingest).unwrap();
}

#[test]
fn every_mistake_in_a_file_is_told_and_no_secret_is_quoted() {
    let hash = hash_of(SECRET).unwrap();
    let entry = |rest: &str| format!("[[token]]\nname = \"a\"\nblake3 = \"{hash}\"\n{rest}\n");
    for (text, part) in [
        (String::new(), "no token"),
        ("[[token]".to_owned(), "near line 1"),
        (entry("scopes = []"), "needs scopes"),
        (entry(&format!("scopes = [\"{SECRET}\"]")), "needs scopes"),
        (entry(&format!("scopes = \"{SECRET}\"")), "near line"),
        (
            entry(&format!("scopes = [\"read\"]\nsecret = \"{SECRET}\"")),
            "unknown field `secret`",
        ),
        (entry("scopes = [\"read\"]\nexpires = \"tomorrow\""), "RFC 3339"),
        (entry("scopes = [\"read\"]\nexpires = 2027-01-01"), "RFC 3339"),
        (entry("scopes = [\"read\"]\ntenant = \"a/b\""), "tenant"),
        (
            entry("scopes = [\"read\"]\ntenant = \"DEFAULT\""),
            "differ only in case",
        ),
        (
            entry(&format!("sha256 = \"{hash}\"\nscopes = [\"read\"]")),
            "one of blake3 and sha256",
        ),
        (entry("scopes = [\"read\"]").replace(&hash, SECRET), "64 hex digits"),
        (
            entry("scopes = [\"read\"]").replace("\"a\"", &format!("\"{SECRET}:\"")),
            "name of token number 1",
        ),
        (entry("scopes = [\"read\"]").repeat(2), "same secret"),
        (entry("scopes = [\"read\"]").repeat(2), "the name `a`"),
        (
            entry("scopes = [\"read\"]\ntenant = \"Shop\"")
                + &entry("scopes = [\"read\"]\ntenant = \"shop\"")
                    .replace("\"a\"", "\"b\"")
                    .replace(&hash, &hash_of(OTHER).unwrap()),
            "tenants `Shop` and `shop`",
        ),
    ] {
        let (_folder, credentials) = opened(&text);
        let mistakes = credentials.unwrap_err();
        assert!(mistakes.contains(part), "{text}\n{mistakes}");
        assert!(!mistakes.contains(SECRET) && !mistakes.contains(&hash), "{mistakes}");
    }
}

#[test]
fn what_token_new_writes_is_taken_and_its_secret_is_new_each_time() {
    let (secret, another) = (new_secret(), new_secret());
    assert_ne!(secret.expose_secret(), another.expose_secret());
    assert!(secret.expose_secret().len() >= 64);
    let text = entry(&Entry {
        name: "agent-1",
        blake3: &hash_of(secret.expose_secret()).unwrap(),
        scopes: &[Scope::Ingest, Scope::Read],
        tenant: Some("Müller & Söhne"),
        expires: Some(expiry("90d", at("2029-12-01T00:00:00Z")).unwrap()),
    });
    let (_folder, credentials) = opened(&text.clone().unwrap_or_default());
    assert!(
        text.is_err() && credentials.is_err(),
        "a blank cannot be in an index's name"
    );
    let text = entry(&Entry {
        name: "agent-1",
        blake3: &hash_of(secret.expose_secret()).unwrap(),
        scopes: &[Scope::Ingest, Scope::Read],
        tenant: Some("müller'$(x)"),
        expires: Some(expiry("90d", at("2029-12-01T00:00:00Z")).unwrap()),
    })
    .unwrap();
    let (_folder, credentials) = opened(&text);
    let known = check(&credentials.unwrap(), &bearer(secret.expose_secret()), Scope::Read);
    assert_eq!(known, Ok(("agent-1".to_owned(), "müller'$(x)".to_owned())));
    assert_eq!(hash_of("short"), Err(WeakSecret));
}

#[test]
fn nothing_of_a_hash_is_in_the_debug_form() {
    let (_folder, credentials) = opened(&tokens());
    let text = format!("{:?}", credentials.unwrap());
    assert!(
        text.contains("agent") && !text.contains(hash_of(SECRET).unwrap().split_at(8).0),
        "{text}"
    );
}

#[test]
fn a_listener_open_to_others_needs_tokens_or_consent() {
    let mistakes_of = |flags: &[(&str, &str)]| {
        let found = mistakes(&config(flags));
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    for (address, is_open) in [
        ("127.0.0.1:8080", false),
        ("127.8.8.8:8080", false),
        ("[::1]:8080", false),
        ("[::ffff:127.0.0.1]:8080", false),
        ("0.0.0.0:8080", true),
        ("[::]:8080", true),
        ("10.0.0.1:8080", true),
        ("[::ffff:10.0.0.1]:8080", true),
    ] {
        let found = mistakes_of(&[("http.listen", address)]);
        assert_eq!(found, vec!["http.listen"; usize::from(is_open)], "{address}");
        let found = mistakes_of(&[("http.listen", address), ("http.allow_unauthenticated", "true")]);
        assert_eq!(found, Vec::<&str>::new(), "{address}");
    }
    let absent = Path::new("/nonexistent/tokens.toml").to_str().unwrap();
    let with_tokens = [
        ("http.listen", "0.0.0.0:1"),
        ("auth.enabled", "true"),
        ("auth.tokens_file", absent),
    ];
    assert_eq!(mistakes_of(&with_tokens), ["auth.tokens_file"]);
}

/// A configuration that asks for certificates, with this file of tokens.
fn with_certificates(text: &str) -> (TempDir, Result<Credentials, String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.toml");
    fs::write(&path, text).unwrap();
    let config = config(&[
        ("auth.enabled", "true"),
        ("auth.tokens_file", path.to_str().unwrap()),
        ("tls.enabled", "true"),
        ("tls.cert_file", "/nonexistent"),
        ("tls.key_file", "/nonexistent"),
        ("tls.client_ca_file", "/nonexistent"),
    ]);
    let credentials = Credentials::open(&config).map(Option::unwrap);
    (folder, credentials.map_err(|mistakes| told(&mistakes)))
}

const HOLDERS: &str = "[[certificate]]\nname = \"web-1\"\ndns = \"Web-1.example.org\"\nscopes = [\"ingest\"]\ntenant = \"shop\"\n\
    [[certificate]]\nname = \"spiffe\"\nuri = \"spiffe://example.org/agent\"\nscopes = [\"ingest\", \"read\"]\n\
    expires = 2029-01-01T00:00:00Z\n";

#[test]
fn a_certificate_counts_by_a_whole_name_in_it_and_a_token_beside_it_decides() {
    let (_folder, credentials) = with_certificates(&format!("{}{HOLDERS}", tokens()));
    let credentials = credentials.unwrap();
    let of = |header: Option<&str>, subjects: &[Subject], scope| {
        let caller = credentials.check(header.map(str::as_bytes), subjects, scope, at("2028-12-31T00:00:00Z"));
        caller
            .map(|caller| (caller.token.to_string(), caller.tenant.to_string()))
            .map_err(|denied| denied.reason)
    };
    let dns = |name: &str| Subject::Dns(name.to_owned());
    let uri = |name: &str| Subject::Uri(name.to_owned());
    let web = Ok(("web-1".to_owned(), "shop".to_owned()));
    let spiffe = uri("spiffe://example.org/agent");
    assert_eq!(of(None, &[dns("web-1.example.org")], Scope::Ingest), web);
    assert_eq!(
        of(
            None,
            &[dns("other.example.org"), dns("web-1.example.org")],
            Scope::Ingest
        ),
        web
    );
    assert_eq!(
        of(None, std::slice::from_ref(&spiffe), Scope::Read),
        Ok(("spiffe".to_owned(), "default".to_owned()))
    );
    for (subjects, reason) in [
        (vec![], Reason::Missing),
        (vec![dns("*.example.org")], Reason::Unknown),
        (vec![dns("web-1.example.org.evil.org")], Reason::Unknown),
        (vec![uri("web-1.example.org")], Reason::Unknown),
        (vec![uri("spiffe://example.org/agent/x")], Reason::Unknown),
        // Two at once: nobody can tell which one is meant.
        (vec![dns("web-1.example.org"), spiffe.clone()], Reason::Unknown),
    ] {
        assert_eq!(of(None, &subjects, Scope::Ingest), Err(reason), "{subjects:?}");
    }
    assert_eq!(of(None, &[dns("web-1.example.org")], Scope::Read), Err(Reason::Scope));
    let agent = Ok(("agent".to_owned(), "Acme".to_owned()));
    let certificate = [dns("web-1.example.org")];
    assert_eq!(of(Some(&bearer(SECRET)), &certificate, Scope::Ingest), agent);
    // A token that is not good is not made good by the certificate.
    for header in ["Bearer another-secret-of-some-length", "nonsense"] {
        assert!(of(Some(header), &certificate, Scope::Ingest).is_err(), "{header}");
    }
    let late = credentials.check([], &[spiffe], Scope::Read, at("2029-01-01T00:00:00Z"));
    assert_eq!(late.unwrap_err().reason, Reason::Expired);
}

#[test]
fn every_mistake_about_a_certificate_is_told() {
    let (_folder, credentials) = opened(HOLDERS);
    assert!(
        credentials.unwrap_err().contains("tls.client_ca_file"),
        "nobody asks for one"
    );
    let entry = |rest: &str| format!("[[certificate]]\nname = \"a\"\nscopes = [\"read\"]\n{rest}\n");
    for (text, part) in [
        (entry(""), "needs one of dns and uri"),
        (entry("dns = \"*.example.org\""), "without `*`"),
        (entry("dns = \"\""), "needs one of dns and uri"),
        (entry("dns = \"a\"\nuri = \"b\""), "needs one of dns and uri"),
        (entry("common_name = \"a\""), "unknown field"),
        (entry("dns = \"a\"\ntenant = \"a/b\""), "tenant"),
        (
            format!("{}{}", entry("dns = \"x.y\""), entry("dns = \"X.Y\"")),
            "the same name in them",
        ),
        (
            format!("{}{}", entry("dns = \"x\""), entry("uri = \"x\"")),
            "two entries have the name `a`",
        ),
        (
            format!("{}{}", tokens(), entry("dns = \"x\"\ntenant = \"acme\"")),
            "differ only in case",
        ),
    ] {
        let (_folder, credentials) = with_certificates(&text);
        let mistakes = credentials.unwrap_err();
        assert!(mistakes.contains(part), "{text}\n{mistakes}");
    }
}

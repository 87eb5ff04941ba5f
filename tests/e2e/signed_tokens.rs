//! Tokens that an issuer signed (JWT), seen from outside; what makes one count is told by the tests of the module `auth`.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    service::{Service, Settings, run_command},
    stack::Database,
};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::events::fresh;

struct Issuer {
    key: KeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        Self { key, kid }
    }

    fn public_key(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid, "x": x })
    }

    fn token(&self, tenant: &str, scope: &str) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({ "alg": "EdDSA", "kid": self.kid }));
        let claims = part(json!({
            "iss": "https://issuer.example.org", "aud": "log-writer", "sub": "agent", "tenant": tenant, "scope": scope,
            "exp": Utc::now().timestamp() + 600,
        }));
        let message = format!("{head}.{claims}");
        let signature = self.key.sign(message.as_bytes()).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn with(request: Request, token: &str) -> Request {
    request.header("authorization", &format!("Bearer {token}"))
}

fn settings(database: &str, keys: &str) -> Settings {
    Settings::new(database, "http://127.0.0.1:1", "house")
        .set("elasticsearch.enabled", "false")
        .set("auth.enabled", "true")
        .set("auth.jwt.jwks_file", keys)
        .set("auth.jwt.issuer", "https://issuer.example.org")
        .set("auth.jwt.audience", "log-writer")
}

fn write_keys(folder: &TempDir, keys: &[Value]) -> PathBuf {
    let path = folder.path().join("jwks.json");
    fs::write(&path, json!({ "keys": keys }).to_string()).expect("a file");
    path
}

#[tokio::test]
async fn a_signed_token_brings_its_tenant_and_scopes_and_keys_are_replaced_on_sighup() {
    let folder = TempDir::with_prefix("log-writer-keys-").expect("a folder");
    let (first, second) = (Issuer::new("first"), Issuer::new("second"));
    let path = write_keys(&folder, &[first.public_key()]);
    let database = Database::create().await;
    let service = Service::start(settings(database.url(), path.to_str().expect("text"))).await;
    let status = async |token: &str| service.send(&with(Request::json(&fresh(1)), token)).await.status;

    let agent = first.token("acme", "ingest");
    let events = Request::json(&fresh(2));
    assert_eq!(
        service.send(&with(events.clone(), &agent)).await.receipt(),
        Receipt::all_committed(2)
    );
    let other = first.token("shop", "openid ingest");
    assert_eq!(
        service.send(&with(events, &other)).await.receipt(),
        Receipt::all_committed(2),
        "another tenant's equal body is another"
    );
    for tenant in ["acme", "shop"] {
        let query = format!("select count(*) from public.application_logs where tenant = '{tenant}'");
        assert_eq!(database.number(&query).await, 2, "{tenant}");
    }
    let reader = with(Request::get("/metrics"), &first.token("acme", "read"));
    assert_eq!(service.send(&reader).await.status, 200);
    assert_eq!(service.send(&with(Request::get("/metrics"), &agent)).await.status, 403);

    // Tenants that cannot be one, and signatures that do not count: nothing is stored.
    for tenant in [
        "",
        "House",
        "ACME",
        "a/b",
        "*",
        "../x",
        "-,logs-*",
        "a b",
        "a\"b",
        "<a>",
        "a\nb",
        &"x".repeat(101),
    ] {
        assert_eq!(status(&first.token(tenant, "ingest")).await, 401, "{tenant:?}");
    }
    assert_eq!(status(&second.token("acme", "ingest")).await, 401);
    assert_eq!(status(&agent.repeat(40)).await, 401, "longer than a credential may be");
    assert_eq!(database.number("select count(*) from public.application_logs").await, 4);

    let said = async |text: &str| {
        let log = || std::future::ready(service.log().contains(text).then_some(()));
        eventually(text, SOON, log).await;
    };
    fs::write(&path, "{\"keys\": []}").expect("a file");
    service.signal("HUP");
    said("THE OLD TOKENS STAY IN FORCE").await;
    assert_eq!(status(&agent).await, 200);
    write_keys(&folder, &[second.public_key()]);
    service.signal("HUP");
    said("are in force").await;
    assert_eq!(status(&agent).await, 401);
    assert_eq!(status(&second.token("acme", "ingest")).await, 200);
    let log = service.log();
    assert!(log.contains("no key has its `kid`"), "an operator learns why");
    assert!(!log.contains(&agent) && !log.contains(agent.rsplit_once('.').expect("a signature").1));
}

#[tokio::test]
async fn keys_without_issuer_or_audience_are_a_mistake_of_the_configuration() {
    let folder = TempDir::with_prefix("log-writer-keys-").expect("a folder");
    let path = write_keys(&folder, &[Issuer::new("a").public_key()]);
    let complete = settings("postgres://nobody@127.0.0.1:1/x", path.to_str().expect("text"));
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0LW9mLW1pbmU" });
    for (settings, part) in [
        (complete.clone().set("auth.jwt.issuer", ""), "auth.jwt.issuer"),
        (complete.clone().set("auth.jwt.audience", ""), "auth.jwt.audience"),
        (complete.clone().set("auth.jwt.leeway", "11m"), "auth.jwt.leeway"),
        (
            complete.clone().set("auth.jwt.default_tenant", "a/b"),
            "auth.jwt.default_tenant",
        ),
        (
            complete.clone().set("auth.jwt.default_tenant", "HOUSE"),
            "differ only in case",
        ),
        (
            complete.clone().set("auth.jwt.jwks_file", "/nonexistent"),
            "cannot be read",
        ),
    ] {
        let output = run_command(&["config", "check"], &settings).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{part}: {told}");
        assert!(told.contains(part), "{part}: {told}");
    }
    fs::write(&path, json!({ "keys": [secret] }).to_string()).expect("a file");
    let output = run_command(&["serve"], &complete).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("shared secret") && !told.contains("c2VjcmV0"), "{told}");
}

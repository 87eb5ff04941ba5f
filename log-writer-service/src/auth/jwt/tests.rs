//! Signed tokens as issuers make them, and every way in which one must not count.
//!
//! The RSA tokens end in 2100; their private key was thrown away.

use std::{fs, io::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;
use tempfile::NamedTempFile;

use super::*;

const RSA_MODULUS: &str = "\
    99D9WK3pCrQl-1w2Jmgb6rbOajyFqFk3pGY6z2OH54gu2OuvNTHoHxvuojDx-RhWR-dM0PoG6z5R6qDkcBkyGxEYlPL20NJAELbcISYW7aY2Oa\
    UZUJqX4huTaTNZpI4Jh8xb6SmyIT9WNurR-OKqvnlYXC_9Qeq2VOQNL0z5z3SSxQcqQsClnYFO8FQXPRk1n3l9BaR3VsROwmIpso0X77X0wiU6\
    x2pGd_tTscFTOU-XhGaSBZpQjV15WmdZrETCvbs5Wsxnc6vOwxkTID6l0PBI6MD2ltg_dTC2hAc7UMZUwTnh8IR_p6yet726H3s4gH0HN8Yxil\
    1Cg0MKCnRK7Q";
const RS256: &str = "\
    eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInJzYSJ9.eyJpc3MiOiAiaHR0cHM6Ly9pc3N1ZXIuZXhhbXBsZS5vcmciLCAiYXVkIjogImxvZy13c\
    ml0ZXIiLCAiZXhwIjogNDEwMjQ0NDgwMCwgInN1YiI6ICJhZ2VudC03IiwgInRlbmFudCI6ICJhY21lIiwgInNjb3BlIjogImluZ2VzdCJ9.i9\
    G7O5jsjX6DdffcFu9Q297AQ1iBz7wulm21vr7MIbVJMzZdQ5gyB3A16vyhAh2w7EOWKWw6fotxEjRqS0qVNHZ0wuzoy7AkeNW_YOQU8dY6PT_D\
    Xi9rFlA_dnHXE_KNp30ZTsCE9xwmAzHOJobfZSRRP6_l05UZr9u_YdlbdcR6dzdcG6EJNB-9pxaKB3ldDC5m8gh4CyGo4gGbT2BOPlDUuGZm1k\
    wTcK8O6iQbNE31yDH9OWppj7pfnnFmJPZNUx8RfG6Q1ZJsDv4Mxlh1HuNqEXpUp7n8JyrwPhiDxJ9-s3uX_RpdRMC8KfEkL0kEdXCiimUSaGYi\
    DdtCTg8GNQ";
const PS256: &str = "\
    eyJhbGciOiAiUFMyNTYiLCAia2lkIjogInJzYSJ9.eyJpc3MiOiAiaHR0cHM6Ly9pc3N1ZXIuZXhhbXBsZS5vcmciLCAiYXVkIjogImxvZy13c\
    ml0ZXIiLCAiZXhwIjogNDEwMjQ0NDgwMCwgInN1YiI6ICJhZ2VudC03IiwgInRlbmFudCI6ICJhY21lIiwgInNjb3BlIjogImluZ2VzdCJ9.Px\
    9KrcSSAOeInU0ROtaE1m0PsFe9cZEhWOAB-HX333MYKyvBOvg8nlX7cM_7nXvk_ZncmOFvzfMwQowFoMc5rx46cegRS52neGM0OFCUNxZqgvSf\
    ZBgMSawQVv14ns95nOsqrIYwp0E8TQeuRFRs9yqSJyfpcv7vVZ6s_PhxZFEMc2qk7rUU7YGNg5h5zZPCzDd-OFH5j-vLUMMUgr7xHdh7cHKPmk\
    hoyISJe1I-AwSqh0pFlQGW1iiwd41vrlnJZDkPsAHflNnAskUafys4Vo2_rSVKoLVY7W3ZwXXOzswPpmPxfxjzz-IPYD3INLlp58Yzur2QsRFI\
    jCkLqDg6Yg";
const RS512: &str = "\
    eyJhbGciOiAiUlM1MTIiLCAia2lkIjogInJzYSJ9.eyJpc3MiOiAiaHR0cHM6Ly9pc3N1ZXIuZXhhbXBsZS5vcmciLCAiYXVkIjogImxvZy13c\
    ml0ZXIiLCAiZXhwIjogNDEwMjQ0NDgwMCwgInN1YiI6ICJhZ2VudC03IiwgInRlbmFudCI6ICJhY21lIiwgInNjb3BlIjogImluZ2VzdCJ9.rt\
    jhOHWGgfYfM4Y9FPaTi-CVWqCS0f8kW5qcLfAR74nnnYwEXRAf6OZqt0aQLD_3x3IfQJk8d5VTrEkoQ6eTni0YppGmH3ObkEEh5qxgrshKXokt\
    wPvE_5x0vHQIE7vJPtc3zDOqtE_kJuLO7AnYGX3eYSoJdUdSuf76x6IUnPRodWRpaipZzV7oXUolIO4aTvb7WsJ_bnUxBp2S6uMfhCO-SknYo7\
    FRmMNlAFp00f85ePSvKN5cs8guuo8Zm7ZkIMcVPg5kupN5j2vTAUxnhdtpRimoitrn_vi4bF2oBM8DkFhGieYCT_7wFZwYauMxIZJ4NdYSU8JU\
    VlT_qRDiDg";

const ISSUER: &str = "https://issuer.example.org";
const AUDIENCE: &str = "log-writer";

/// An issuer with a key of each elliptic kind.
struct Issuer {
    edwards: Ed25519KeyPair,
    p256: EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            edwards: Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap(),
        }
    }

    /// Its public keys.
    fn keys(&self) -> Value {
        let (x, y) = self.p256.public_key().as_ref().split_at(1).1.split_at(32);
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": encoded(self.edwards.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": encoded(x), "y": encoded(y)},
            {"kty": "RSA", "kid": "rsa", "n": RSA_MODULUS, "e": "AQAB"},
            {"kty": "RSA", "kid": "rsa-ps", "alg": "PS256", "n": RSA_MODULUS, "e": "AQAB"},
            {"kty": "RSA", "kid": "for-secrets", "use": "enc", "alg": "RSA-OAEP", "n": RSA_MODULUS, "e": "AQAB"},
        ]})
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = if header["alg"] == "ES256" {
            let signature = self.p256.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
            encoded(signature)
        } else {
            encoded(self.edwards.sign(message.as_bytes()))
        };
        format!("{message}.{signature}")
    }

    /// A good one.
    fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "EdDSA", "kid": "ed"}), claims)
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn good() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": Utc::now().timestamp() + 300, "sub": "agent-7", "tenant": "acme",
        "scope": "openid ingest",
    })
}

/// The good claims with one changed; `null` takes it away.
fn with(claim: &str, value: Value) -> Value {
    let mut claims = good();
    let all = claims.as_object_mut().unwrap();
    all.remove(claim);
    if !value.is_null() {
        all.insert(claim.to_owned(), value);
    }
    claims
}

fn settings(keys: &Value) -> (NamedTempFile, config::Jwt) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(keys.to_string().as_bytes()).unwrap();
    let settings = config::Jwt {
        jwks_file: Some(file.path().to_owned()),
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        leeway: Duration::from_secs(10),
        tenant_claim: "tenant".to_owned(),
        scopes_claim: "scope".to_owned(),
        default_tenant: None,
    };
    (file, settings)
}

/// The file of tokens knows the tenants `default` and `Shop`.
fn tenants() -> Tenants {
    let mut tenants = Tenants::new("default");
    tenants.add(&Arc::from("Shop")).unwrap();
    tenants
}

fn opened(keys: &Value) -> Jwt {
    let (_file, settings) = settings(keys);
    Jwt::open(&settings, tenants()).unwrap().unwrap()
}

#[test]
fn a_token_signed_by_each_kind_of_key_counts() {
    let issuer = Issuer::new();
    let jwt = opened(&issuer.keys());
    for token in [
        issuer.token(&good()),
        issuer.signed(&json!({"alg": "ES256", "kid": "ec", "typ": "at+jwt"}), &good()),
        RS256.to_owned(),
        PS256.to_owned(),
    ] {
        let grant = jwt.check(token.as_bytes()).unwrap();
        assert_eq!((&*grant.name, &*grant.tenant), ("jwt:agent-7", "acme"), "{token}");
        assert_eq!(grant.scopes.0, [Scope::Ingest], "{token}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a row for each way to be wrong")]
fn every_token_that_must_not_count_is_refused_for_what_is_wrong_with_it() {
    let issuer = Issuer::new();
    let jwt = opened(&issuer.keys());
    let now = Utc::now().timestamp();
    let ed = |header: Value| issuer.signed(&header, &good());
    let of = |claim: &str, value: Value| issuer.token(&with(claim, value));
    let (whole, other) = (issuer.token(&good()), Issuer::new().token(&good()));
    let (message, signature) = whole.rsplit_once('.').unwrap();
    let unsigned = |algorithm: &str| {
        let header = encoded(json!({"alg": algorithm, "kid": "ed"}).to_string());
        format!("{header}.{}", encoded(good().to_string()))
    };
    // What a checker that lets the token choose would take: the public key as the secret of an HMAC.
    let hmac_with = |kid: &str, secret: &[u8]| {
        let message = format!(
            "{}.{}",
            encoded(json!({"alg": "HS256", "kid": kid}).to_string()),
            encoded(good().to_string())
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", encoded(tag))
    };
    let shop = issuer.token(&with("tenant", json!("acme"))).replace(
        &encoded(with("tenant", json!("acme")).to_string()),
        &encoded(with("tenant", json!("shop2")).to_string()),
    );
    for (what, token, reason) in [
        ("ended", of("exp", json!(now - 11)), Reason::Expired),
        ("ended long ago", of("exp", json!(0)), Reason::Expired),
        ("without an end", of("exp", Value::Null), Reason::Claims),
        (
            "an end that is text",
            of("exp", json!((now + 300).to_string())),
            Reason::Claims,
        ),
        ("an end before all time", of("exp", json!(-1)), Reason::Claims),
        ("not yet", of("nbf", json!(now + 60)), Reason::Claims),
        ("a beginning that is text", of("nbf", json!("0")), Reason::Malformed),
        (
            "another issuer",
            of("iss", json!("https://issuer.example.org/")),
            Reason::Claims,
        ),
        ("no issuer", of("iss", Value::Null), Reason::Claims),
        ("another audience", of("aud", json!("other")), Reason::Claims),
        (
            "other audiences",
            of("aud", json!(["other", "log-writer2"])),
            Reason::Claims,
        ),
        ("no audience", of("aud", Value::Null), Reason::Claims),
        ("an empty audience", of("aud", json!([])), Reason::Claims),
        ("no tenant", of("tenant", Value::Null), Reason::Claims),
        (
            "a tenant of another kind",
            of("tenant", json!(["acme"])),
            Reason::Claims,
        ),
        ("an empty tenant", of("tenant", json!("")), Reason::Claims),
        (
            "a tenant that names another index",
            of("tenant", json!("a/../b")),
            Reason::Claims,
        ),
        ("a tenant for all indices", of("tenant", json!("*")), Reason::Claims),
        ("a tenant in capitals", of("tenant", json!("Acme")), Reason::Claims),
        (
            "a known tenant in another case",
            of("tenant", json!("shop")),
            Reason::Claims,
        ),
        (
            "the default tenant in another case",
            of("tenant", json!("Default")),
            Reason::Claims,
        ),
        ("scopes of another kind", of("scope", json!(7)), Reason::Claims),
        ("another's key", other.clone(), Reason::Unknown),
        (
            "another's signature",
            format!("{message}.{}", other.rsplit_once('.').unwrap().1),
            Reason::Unknown,
        ),
        ("no signature", format!("{message}."), Reason::Unknown),
        (
            "half a signature",
            format!("{message}.{}", signature.split_at(40).0),
            Reason::Unknown,
        ),
        ("other claims under the signature", shop, Reason::Unknown),
        (
            "an unknown key",
            ed(json!({"alg": "EdDSA", "kid": "old"})),
            Reason::Unknown,
        ),
        ("no name of a key", ed(json!({"alg": "EdDSA"})), Reason::Unknown),
        (
            "a key for encryption",
            RS256.replace(&kid("rsa"), &kid("for-secrets")),
            Reason::Unknown,
        ),
        (
            "another algorithm of the kind",
            ed(json!({"alg": "ES256", "kid": "ed"})),
            Reason::Unknown,
        ),
        ("another algorithm of RSA", RS512.to_owned(), Reason::Unknown),
        (
            "a key that is for another algorithm",
            RS256.replace(&kid("rsa"), &kid("rsa-ps")),
            Reason::Unknown,
        ),
        ("none", format!("{}.", unsigned("none")), Reason::Malformed),
        ("None", format!("{}.", unsigned("None")), Reason::Malformed),
        (
            "none with a signature",
            format!("{}.{signature}", unsigned("none")),
            Reason::Malformed,
        ),
        (
            "HMAC by a point",
            hmac_with("ed", issuer.edwards.public_key().as_ref()),
            Reason::Unknown,
        ),
        (
            "HMAC by a modulus",
            hmac_with("rsa", &URL_SAFE_NO_PAD.decode(RSA_MODULUS).unwrap()),
            Reason::Unknown,
        ),
        (
            "HMAC by the file",
            hmac_with("rsa", issuer.keys().to_string().as_bytes()),
            Reason::Unknown,
        ),
        ("HMAC by nothing", hmac_with("ed", b""), Reason::Unknown),
        (
            "an extension",
            ed(json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false})),
            Reason::Malformed,
        ),
        ("two parts", message.to_owned(), Reason::Malformed),
        ("three empty parts", "..".to_owned(), Reason::Malformed),
        ("garbage", "a.b.c".to_owned(), Reason::Malformed),
        (
            "claims that are no object",
            issuer.token(&json!([1])),
            Reason::Malformed,
        ),
        ("with padding", format!("{whole}="), Reason::Malformed),
    ] {
        let refused = jwt.check(token.as_bytes()).map(|grant| grant.name).unwrap_err();
        assert_eq!(refused.0, reason, "{what}: {refused:?}");
        assert!(!refused.1.is_empty(), "{what}");
    }
    // A key in the token's own head is nobody's.
    let header = json!({"alg": "EdDSA", "kid": "ed", "jwk": Issuer::new().keys()["keys"][0], "jku": "http://x/"});
    let by_itself = Issuer::new().signed(&header, &good());
    assert_eq!(jwt.check(by_itself.as_bytes()).unwrap_err().0, Reason::Unknown);
}

/// The head of the RSA token with a key's name, as it stands in it.
fn kid(name: &str) -> String {
    encoded(format!("{{\"alg\": \"RS256\", \"kid\": \"{name}\"}}"))
}

#[test]
fn clocks_may_be_off_by_the_leeway_and_no_more() {
    let issuer = Issuer::new();
    let jwt = opened(&issuer.keys());
    let now = Utc::now().timestamp();
    jwt.check(issuer.token(&with("exp", json!(now - 5))).as_bytes())
        .unwrap();
    jwt.check(issuer.token(&with("nbf", json!(now + 5))).as_bytes())
        .unwrap();
    jwt.check(issuer.token(&with("exp", json!(now - 60))).as_bytes())
        .unwrap_err();
}

#[test]
fn claims_are_read_as_issuers_write_them() {
    let issuer = Issuer::new();
    let (_file, mut settings) = settings(&issuer.keys());
    settings.default_tenant = Some("default".to_owned());
    let jwt = Jwt::open(&settings, tenants()).unwrap().unwrap();
    let grant = |claims: Value| jwt.check(issuer.token(&claims).as_bytes()).unwrap();
    assert_eq!(
        &*grant(with("tenant", Value::Null)).tenant,
        "default",
        "it is configured"
    );
    assert_eq!(
        &*grant(with("tenant", json!("Shop"))).tenant,
        "Shop",
        "as the file spells it"
    );
    assert_eq!(&*grant(with("aud", json!(["other", AUDIENCE]))).tenant, "acme");
    for (scope, scopes) in [
        (json!("read ingest"), vec![Scope::Ingest, Scope::Read]),
        (json!(["admin", 7, "profile"]), vec![Scope::Admin]),
        (json!("INGEST readonly"), vec![]),
        (Value::Null, vec![]),
    ] {
        assert_eq!(grant(with("scope", scope.clone())).scopes.0, scopes, "{scope}");
    }
    let hostile = grant(with("sub", json!(format!("a\n\u{1b}[2J\"é {}", "x".repeat(100)))));
    let shown = format!("jwt:a__[2J\"__{}~", "x".repeat(55));
    assert!(hostile.name.starts_with(&shown), "{}", hostile.name);
    let similar = grant(with("sub", json!(format!("a\n\u{1b}[2J\"é_{}", "x".repeat(100)))));
    assert!(similar.name.starts_with(&shown) && similar.name != hostile.name);
}

#[test]
fn every_mistake_in_a_file_of_keys_is_told_and_nothing_of_a_key_is_quoted() {
    let secret = "c2VjcmV0LXRoYXQtbXVzdC1ub3QtYmUtc2hvd24";
    let rsa = |modulus: &str| json!({"kty": "RSA", "kid": "a", "n": modulus, "e": "AQAB"});
    for (keys, part) in [
        (json!({"keys": []}), "has no key"),
        (
            json!({"keys": [{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}]}),
            "has no key",
        ),
        (json!({"keys": [{"kty": "XYZ", "k": secret}]}), "has no key"),
        (json!({"keys": [{"kty": "oct", "k": secret}]}), "shared secret"),
        (json!({"keys": secret}), "no JWKS"),
        (json!([secret]), "no JWKS"),
        (json!({"keys": [rsa("!!!")]}), "base64url"),
        (json!({"keys": [rsa(&encoded([0xff; 128]))]}), "wrong length"),
        (
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": secret}]}),
            "wrong length",
        ),
        (
            json!({"keys": [rsa(RSA_MODULUS), rsa(RSA_MODULUS)]}),
            "the `kid` of another",
        ),
    ] {
        let (_file, settings) = settings(&keys);
        let mistakes = Jwt::open(&settings, tenants()).unwrap_err().join("\n");
        assert!(mistakes.contains(part), "{keys}\n{mistakes}");
        assert!(!mistakes.contains(secret), "{mistakes}");
    }
    let (file, settings) = settings(&json!({}));
    for text in ["", "{", "\u{feff}{}"] {
        fs::write(file.path(), text).unwrap();
        assert!(
            Jwt::open(&settings, tenants())
                .unwrap_err()
                .join("\n")
                .contains("no JWKS"),
            "{text}"
        );
    }
    fs::remove_file(file.path()).unwrap();
    assert!(
        Jwt::open(&settings, tenants())
            .unwrap_err()
            .join("\n")
            .contains("cannot be read")
    );
}

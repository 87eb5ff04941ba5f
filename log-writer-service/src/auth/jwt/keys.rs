//! The file of public keys (JWKS, RFC 7517): which of them may check a signature, and by which algorithms.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse},
};

/// Bytes that an RSA modulus may have: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// A point of P-256: a byte for its form and two coordinates.
const P256_BYTES: usize = 65;
/// A point of Ed25519.
const ED25519_BYTES: usize = 32;

/// A key of the issuer.
pub(super) struct Key {
    /// Its name, which a token signed by it must give; `None` is for tokens that name none.
    pub(super) kid: Option<String>,
    /// What it may be used with; never more than one family.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Reads the keys that may check signatures; keys for anything else are passed over.
///
/// # Errors
/// All mistakes; nothing of a key stands in them.
pub(super) fn parse(text: &str) -> Result<Vec<Key>, Vec<String>> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| {
        vec![format!(
            "it is no JWKS (RFC 7517): line {}, {}",
            error.line(),
            kind_of(&error)
        )]
    })?;
    let (mut keys, mut mistakes): (Vec<Key>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, jwk) in (1_u32..).zip(&set.keys) {
        match key(jwk) {
            Ok(None) => {}
            Ok(Some(key)) if keys.iter().any(|before| before.kid == key.kid) => mistakes.push(format!(
                "key number {number} has the `kid` of another one, or both have none, so nobody can tell which one is meant"
            )),
            Ok(Some(key)) => keys.push(key),
            Err(wrong) => mistakes.push(format!("key number {number} {wrong}")),
        }
    }
    if keys.is_empty() && mistakes.is_empty() {
        mistakes.push("it has no key for signatures by RS256, PS256, ES256 or EdDSA (Ed25519)".to_owned());
    }
    if mistakes.is_empty() { Ok(keys) } else { Err(mistakes) }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds that are not named check no signature here"
)]
fn key(jwk: &Jwk) -> Result<Option<Key>, &'static str> {
    let common = &jwk.common;
    let is_for_others = matches!(&common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature)
        || matches!(&common.key_operations, Some(operations) if !operations.contains(&KeyOperations::Verify));
    let algorithms = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => {
            return Err("is a shared secret (`oct`): whoever reads it could sign; give public keys alone");
        }
        _ if is_for_others => return Ok(None),
        AlgorithmParameters::RSA(_) => match common.key_algorithm {
            None => vec![Algorithm::RS256, Algorithm::PS256],
            Some(KeyAlgorithm::RS256) => vec![Algorithm::RS256],
            Some(KeyAlgorithm::PS256) => vec![Algorithm::PS256],
            Some(_) => return Ok(None),
        },
        AlgorithmParameters::EllipticCurve(parameters) => match (&parameters.curve, common.key_algorithm) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => vec![Algorithm::ES256],
            _ => return Ok(None),
        },
        AlgorithmParameters::OctetKeyPair(parameters) => match (&parameters.curve, common.key_algorithm) {
            (EllipticCurve::Ed25519, None | Some(KeyAlgorithm::EdDSA)) => vec![Algorithm::EdDSA],
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "is not in base64url")?;
    let is_sound = match (key.kind(), &jwk.algorithm) {
        (DecodingKeyKind::RsaModulusExponent { n, .. }, _) => MODULUS_BYTES.contains(&n.len()),
        (DecodingKeyKind::SecretOrDer(point), AlgorithmParameters::EllipticCurve(_)) => point.len() == P256_BYTES,
        (DecodingKeyKind::SecretOrDer(point), _) => point.len() == ED25519_BYTES,
    };
    if !is_sound {
        return Err("has a wrong length (RSA keys have 2048 to 8192 bits)");
    }
    Ok(Some(Key {
        kid: common.key_id.clone(),
        algorithms,
        key,
    }))
}

/// Without the value, which may be a secret in the wrong place.
fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "a member is missing or of the wrong kind",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            "it is no JSON"
        }
    }
}

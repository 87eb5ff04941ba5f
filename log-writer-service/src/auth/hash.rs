//! Secrets and their hashes.
//!
//! One fast hash without salt is enough for a secret of 240 random bits and for no other: that is why short ones are
//! refused, and why `token new` makes them.

use std::fmt::{self, Write as _};

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use uuid::Uuid;

/// Shortest secret that is hashed, in bytes. A word that a person chose can be guessed from its hash.
pub const SECRET_BYTES_MIN: usize = 24;
/// Opens every secret that is made here, so that scanners for leaked secrets can know it.
const PREFIX: &str = "lwt_";

/// A secret that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secret is shorter than {SECRET_BYTES_MIN} bytes and could be guessed from its hash; `token new` makes a good one"
)]
pub struct WeakSecret;

/// The hash of a secret, by one of two functions.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Hash {
    Blake3([u8; 32]),
    Sha256([u8; 32]),
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hash(***)")
    }
}

/// A text by both functions, made once for each check.
pub(super) struct Hashed {
    blake3: [u8; 32],
    sha256: [u8; 32],
}

impl Hashed {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self {
            blake3: *blake3::hash(secret).as_bytes(),
            sha256: Sha256::digest(secret).into(),
        }
    }

    /// Whether the hash is of this text, in constant time.
    pub(super) fn is(&self, hash: &Hash) -> Choice {
        match hash {
            Hash::Blake3(hash) => self.blake3.ct_eq(hash),
            Hash::Sha256(hash) => self.sha256.ct_eq(hash),
        }
    }
}

/// Makes a secret: 244 random bits.
#[must_use]
pub fn new_secret() -> SecretString {
    let (first, second) = (Uuid::new_v4().simple(), Uuid::new_v4().simple());
    SecretString::from(format!("{PREFIX}{first}{second}"))
}

/// The BLAKE3 hash of a secret in hex, as it stands in the file of tokens.
///
/// # Errors
/// [`WeakSecret`] if it is too short.
pub fn hash_of(secret: &str) -> Result<String, WeakSecret> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(WeakSecret);
    }
    let mut hex = String::with_capacity(64);
    for byte in blake3::hash(secret.as_bytes()).as_bytes() {
        let _infallible = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// 32 bytes from 64 hex digits.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}

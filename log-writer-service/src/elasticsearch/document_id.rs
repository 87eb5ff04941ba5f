//! The `_id` of a document: the identity of a row as 24 bytes in base64url.
//!
//! Elasticsearch keeps such ids as their bytes. The time comes first, so that neighbours in time are neighbours in the
//! index, which takes a third of the CPU of random ids; 32 characters, whatever the event.

use std::fmt;

use uuid::Uuid;

use crate::event::Timestamp;

/// A document's `_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentId(String);

impl DocumentId {
    /// The id as Elasticsearch gets it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One that was kept, or that Elasticsearch named.
    pub(crate) fn known(id: String) -> Self {
        Self(id)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of the document of one row: time in µs (8 bytes, big-endian), then the event's id (16 bytes).
///
/// A tenant other than the bare one is mixed into the latter, since two tenants may have rows of one id and time. Which one is
/// bare stands in the database, not in the configuration: it must never change.
pub fn document_id(id: Uuid, timestamp: Timestamp, tenant: &str, bare_tenant: &str) -> DocumentId {
    let mut bytes = [0_u8; 24];
    let (time, identity) = bytes.split_at_mut(8);
    time.copy_from_slice(&timestamp.0.to_be_bytes());
    if tenant == bare_tenant {
        identity.copy_from_slice(id.as_bytes());
    } else {
        let mut hasher = blake3::Hasher::new();
        hasher.update(id.as_bytes());
        hasher.update(tenant.as_bytes());
        hasher.finalize_xof().fill(identity);
    }
    DocumentId(base64url(&bytes))
}

/// Base64url without padding (RFC 4648, 5) of whole groups of three bytes.
fn base64url(bytes: &[u8; 24]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(32);
    let (groups, _none_left) = bytes.as_chunks::<3>();
    for &[a, b, c] in groups {
        let group = u32::from_be_bytes([0, a, b, c]);
        for shift in [18, 12, 6, 0] {
            let index = usize::try_from(group >> shift & 63).unwrap_or_default();
            out.push(char::from(ALPHABET.get(index).copied().unwrap_or_default()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(id: &DocumentId) -> Vec<u8> {
        let mut bits = Vec::new();
        for symbol in id.as_str().bytes() {
            let value = match symbol {
                b'A'..=b'Z' => symbol - b'A',
                b'a'..=b'z' => symbol - b'a' + 26,
                b'0'..=b'9' => symbol - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                other => panic!("{other} is not of the alphabet"),
            };
            bits.extend((0..6).rev().map(|bit| value >> bit & 1));
        }
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit))
            .collect()
    }

    proptest! {
        #[test]
        fn an_id_holds_time_and_id_and_sorts_by_time(a in 0_i64.., b in 0_i64.., id: u128) {
            let make = |time| document_id(Uuid::from_u128(id), Timestamp(time), "default", "default");
            let (first, second) = (bytes_of(&make(a)), bytes_of(&make(b)));
            prop_assert_eq!(&first[..8], &a.to_be_bytes());
            prop_assert_eq!(&first[8..], &id.to_be_bytes());
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }

        #[test]
        fn tenants_have_ids_of_their_own(id: u128, tenant in "[a-z]{1,8}") {
            prop_assume!(tenant != "default");
            let of = |tenant: &str| document_id(Uuid::from_u128(id), Timestamp(1), tenant, "default");
            prop_assert_ne!(of(&tenant), of("default"));
            prop_assert_ne!(of(&tenant), of(&format!("{tenant}x")));
            prop_assert_eq!(of(&tenant), of(&tenant));
        }
    }

    // Ids stand in clusters: another layout would index every event a second time.
    #[test]
    fn ids_stay_what_they_are() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let time = Timestamp(1_795_219_200_123_456);
        assert_eq!(
            document_id(id, time, "default", "default").as_str(),
            "AAZgvgq3okABkAAAAABwAIAAAAAAAAAB"
        );
        assert_eq!(document_id(id, time, "acme", "default").as_str().len(), 32);
    }
}

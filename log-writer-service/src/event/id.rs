//! Ids of events: the one an event brings (UUID or ULID), the one derived for it, and the time inside either.

use uuid::Uuid;

use super::{Digest, Timestamp};

/// An id that an event brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnId {
    pub(super) id: Uuid,
    /// The time inside a UUID of version 7 or a ULID.
    pub(super) time: Option<Timestamp>,
    /// Whether the column shows the id as it was sent.
    pub(super) as_sent: bool,
}

impl OwnId {
    /// Reads a UUID (hyphenated, simple, in braces, as URN) or a ULID; the nil and max UUID identify nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() == 26 {
            return parse_ulid(text);
        }
        let id = Uuid::try_parse(text).ok()?;
        if id.is_nil() || id.is_max() {
            return None;
        }
        let time = (id.get_version_num() == 7).then(|| time_of(id.as_u128()));
        let mut buffer = Uuid::encode_buffer();
        let as_sent = *id.hyphenated().encode_lower(&mut buffer) == *text;
        Some(Self { id, time, as_sent })
    }
}

/// The time in the first 48 bits, in milliseconds.
fn time_of(bits: u128) -> Timestamp {
    Timestamp(i64::try_from(bits >> 80).unwrap_or_default() * 1000)
}

/// Crockford's base 32, 26 characters, 128 bits (github.com/ulid/spec).
fn parse_ulid(text: &str) -> Option<OwnId> {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    if !matches!(text.as_bytes().first(), Some(b'0'..=b'7')) {
        return None;
    }
    let bits = text.bytes().try_fold(0_u128, |bits, byte| {
        let value = ALPHABET
            .iter()
            .position(|letter| *letter == byte.to_ascii_uppercase())?;
        Some((bits << 5) | value as u128)
    })?;
    if bits == 0 || bits == u128::MAX {
        return None;
    }
    Some(OwnId {
        id: Uuid::from_u128(bits),
        time: Some(time_of(bits)),
        as_sent: false,
    })
}

/// Derives the id of an event that brought none: the same for the same request, position and claimed time.
///
/// Layout of a version 7 UUID: the claimed time (0 if none) in milliseconds, clamped to 48 bits, then BLAKE3 of `position` keyed
/// with the request's digest.
pub fn derive_id(claimed: Option<Timestamp>, digest: &Digest, position: u32) -> Uuid {
    const MILLIS_MAX: u64 = (1 << 48) - 1;
    let millis = claimed.map_or(0, |time| u64::try_from(time.millis()).unwrap_or(0));
    let hash = blake3::keyed_hash(&digest.0, &position.to_le_bytes());
    let random = hash.as_bytes().first_chunk::<10>().copied().unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis.min(MILLIS_MAX), &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "01a1f640-bc0b-7182-892f-902bd23f0824";

    #[test]
    fn every_spelling_of_a_uuid_is_the_same_id() {
        let expected = Uuid::parse_str(ID).unwrap();
        for (text, as_sent) in [
            (ID.to_owned(), true),
            (ID.to_uppercase(), false),
            (ID.replace('-', ""), false),
            (format!("{{{ID}}}"), false),
            (format!("urn:uuid:{ID}"), false),
        ] {
            let own = OwnId::parse(&text).unwrap();
            assert_eq!((own.id, own.as_sent), (expected, as_sent), "{text}");
            assert_eq!(own.time.unwrap().to_rfc3339(), "2026-11-20T00:00:00.011000Z");
        }
    }

    #[test]
    fn a_ulid_is_its_128_bits_and_carries_a_time() {
        // The example of github.com/ulid/spec.
        let own = OwnId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
        assert_eq!(own.id.to_string(), "01563e3a-b5d3-d676-4c61-efb99302bd5b");
        assert_eq!(own.time, Some(Timestamp(1_469_922_850_259_000)));
        assert_eq!(OwnId::parse("01arz3ndektsv4rrffq69g5fav").unwrap().id, own.id);
    }

    #[test]
    fn what_identifies_nothing_is_no_id() {
        for text in [
            "",
            "42",
            "order-17",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "00000000000000000000000000",
            "01a1f640-bc0b-7182-892f-902bd23f082",
        ] {
            assert_eq!(OwnId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_random_uuid_carries_no_time() {
        assert_eq!(OwnId::parse("5f557203-3018-40c5-a38f-d547923a7369").unwrap().time, None);
    }

    #[test]
    fn a_derived_id_is_the_same_in_every_version() {
        let id = derive_id(Some(Timestamp(1_795_132_800_011_739)), &Digest([7; 32]), 3);
        assert_eq!(id.to_string(), "01a1f640-bc0b-7f19-b2e0-fa0b991a157b");
        assert_eq!(id.get_version_num(), 7);
    }

    proptest! {
        #[test]
        fn derived_ids_sort_by_claimed_time_and_differ_by_position(micros: i64, position: u32, bytes: [u8; 32]) {
            let digest = Digest(bytes);
            let id = derive_id(Some(Timestamp(micros)), &digest, position);
            let millis = u128::try_from(micros.div_euclid(1000).max(0)).unwrap().min((1 << 48) - 1);
            prop_assert_eq!(id.as_u128() >> 80, millis);
            prop_assert_eq!(id, derive_id(Some(Timestamp(micros)), &digest, position));
            prop_assert_ne!(id, derive_id(Some(Timestamp(micros)), &digest, position.wrapping_add(1)));
        }
    }
}

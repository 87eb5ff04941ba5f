//! Digest of a request: by it a resend of the same bytes is known.

/// BLAKE3 of everything that decides what a request stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// 64 hexadecimal digits, lower case.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// What goes into a request's digest.
#[derive(Debug, Clone, Copy)]
pub struct DigestParts<'a> {
    /// Whose request it is: two tenants may send the same bytes.
    pub tenant: &'a str,
    /// Path without the query.
    pub path: &'a str,
    /// Header `Content-Type` as sent.
    pub content_type: Option<&'a [u8]>,
    /// Header `Content-Encoding` as sent.
    pub content_encoding: Option<&'a [u8]>,
    /// Header `Idempotency-Key` as sent.
    pub idempotency_key: Option<&'a [u8]>,
    /// Body as received, before decompression.
    pub body: &'a [u8],
}

/// Digests a request; the same parts give the same digest on every replica and version.
///
/// Each part is preceded by its length, so that bytes cannot move from one part to the next.
pub fn request_digest(parts: &DigestParts<'_>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in [
        Some(parts.tenant.as_bytes()),
        Some(parts.path.as_bytes()),
        parts.content_type,
        parts.content_encoding,
        parts.idempotency_key,
        Some(parts.body),
    ] {
        // An absent header differs from an empty one: no body is 2^64-1 bytes long.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hasher.update(&length.to_le_bytes());
        hasher.update(part.unwrap_or_default());
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: DigestParts<'_> = DigestParts {
        tenant: "default",
        path: "/ingest",
        content_type: Some(b"application/json"),
        content_encoding: None,
        idempotency_key: None,
        body: b"[]",
    };

    #[test]
    fn every_part_counts_and_none_can_slide_into_the_next() {
        let digests = [
            PARTS,
            DigestParts {
                tenant: "acme",
                ..PARTS
            },
            DigestParts {
                tenant: "default/",
                path: "ingest",
                ..PARTS
            },
            DigestParts { path: "/", ..PARTS },
            DigestParts {
                content_type: None,
                ..PARTS
            },
            DigestParts {
                content_type: None,
                content_encoding: PARTS.content_type,
                ..PARTS
            },
            DigestParts {
                content_encoding: Some(b""),
                ..PARTS
            },
            DigestParts {
                idempotency_key: Some(b"1"),
                ..PARTS
            },
            DigestParts { body: b"[] ", ..PARTS },
        ]
        .map(|parts| request_digest(&parts));
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }

    #[test]
    fn a_digest_is_the_same_in_every_version() {
        let text: String = request_digest(&PARTS)
            .0
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(text, "e1ac52e071f566adfb3f3ff4dc013b1ffe426c2a01a1ec94ff04c1ed814db6de");
    }
}

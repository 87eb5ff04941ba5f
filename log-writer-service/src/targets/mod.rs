//! What must hold of any bytes: one function for each place that reads what others wrote. A broken promise is a panic.
//!
//! The fuzzers (`tests/fuzz/`, `make fuzz`) and the property tests beside this file call the same functions, with the same
//! recordings and the same regressions as seeds. Built in unit tests and with the feature `targets` only.
//! [`Replay`] is what `make instructions` counts.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a panic is what a fuzzer looks for"
)]

mod replay;
mod stored;
#[cfg(test)]
mod tests;
mod wire;

use uuid::Uuid;

pub use self::{
    replay::Replay,
    stored::{copy, document, normalise},
    wire::{decompress, split},
};
use crate::{
    elasticsearch::{DocumentId, document_id, read_answer},
    event::{Digest, DigestParts, Timestamp, derive_id, request_digest},
};

/// Takes any bytes, panics where they break a promise.
pub type Target = fn(&[u8]);

/// Every target with the name of its fuzzer and of its folder of regressions.
pub const ALL: [(&str, Target); 7] = [
    ("decompress", decompress),
    ("split", split),
    ("normalise", normalise),
    ("copy", copy),
    ("document", document),
    ("bulk_answer", bulk_answer),
    ("identity", identity),
];

/// An answer of Elasticsearch, or of whatever stands in front of it: one verdict for each document, or none at all.
pub fn bulk_answer(data: &[u8]) {
    for sent in 0..4 {
        for status in [200, 400, 401, 403, 404, 413, 429, 500, 503] {
            if let Ok(verdicts) = read_answer(status, data, sent) {
                assert_eq!((status, verdicts.len()), (200, sent));
            }
        }
    }
}

/// Digests and ids: the same for the same request, another for any other.
pub fn identity(data: &[u8]) {
    let first = data.first().copied().map_or(0, usize::from);
    let second = data.get(1).copied().map_or(0, usize::from);
    let at = |number: usize| number.min(data.len());
    let parts = |first: usize, second: usize| {
        let (from, to) = (at(first), at(first + second));
        let part = |from, to| data.get(from..to).unwrap_or_default();
        DigestParts {
            tenant: "t",
            path: "/ingest",
            content_type: Some(part(0, from)),
            content_encoding: (second > 0).then(|| part(from, to)),
            idempotency_key: None,
            body: part(to, data.len()),
        }
    };
    let said = |parts: &DigestParts<'_>| {
        [parts.content_type, parts.content_encoding, Some(parts.body)].map(|part| part.map(<[u8]>::to_vec))
    };
    let (one, other) = (parts(first, second), parts(second, first));
    let (digest, other_digest) = (request_digest(&one), request_digest(&other));
    assert_eq!(
        said(&one) == said(&other),
        digest == other_digest,
        "bytes moved from one part to another"
    );

    let number = |at: usize| {
        let bytes = data.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        i64::from_le_bytes(bytes.unwrap_or_default())
    };
    let position = u32::try_from(first).unwrap_or(0);
    let (time, later) = (Timestamp(number(2)), Timestamp(number(10)));
    let id = derive_id(Some(time), &digest, position);
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(id, derive_id(Some(time), &digest, position));
    assert_ne!(id, derive_id(Some(time), &digest, position + 1));
    assert_ne!(derive_id(None, &digest, 0), derive_id(None, &Digest([0; 32]), 0));

    let document = |id: Uuid, time, tenant| -> DocumentId { document_id(id, time, tenant, "default") };
    let documents = [
        document(id, time, "default"),
        document(id, time, "acme"),
        document(Uuid::nil(), time, "default"),
    ];
    for (number, one) in documents.iter().enumerate() {
        assert!(one.as_str().len() == 32 && one.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(
            documents.iter().skip(number + 1).all(|other| one != other),
            "two rows, one document"
        );
    }
    assert_eq!(
        time == later,
        document(id, time, "default") == document(id, later, "default")
    );
}

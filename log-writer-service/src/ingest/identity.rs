//! Ids of a request's events: their own, or derived from the request's digest and their place in it.

use uuid::Uuid;

use crate::{
    event::{Digest, Timestamp, derive_id},
    timescale::EncodedRows,
};

/// What derived ids and judgements of time go by.
#[derive(Debug)]
pub(super) struct Origin {
    /// Of the request's content.
    pub(super) digest: Digest,
    /// Whether the digest counts whatever the events have.
    pub(super) counts: bool,
    /// Place of the first event in its request.
    pub(super) first_position: u32,
    /// When it came in.
    pub(super) arrived: Timestamp,
    /// What the column `ingested_at` says.
    pub(super) ingested: Timestamp,
}

/// What of a row the derived ids are made from, kept until the noted digest is known.
pub(super) struct Claim {
    pub(super) own_id: Option<Uuid>,
    pub(super) time: Option<Timestamp>,
    pub(super) position: u32,
}

/// Gives every row its id and returns the digest to note.
///
/// The content's digest counts only if every event carries a time or an id, or the client sent a key: two equal bodies without either
/// are two bodies. Then a random digest is noted, so that our own second attempt after an unknown COMMIT is exact all the same.
pub(super) fn set_ids(rows: &mut EncodedRows, claims: &[Claim], content: &Digest, counts: bool) -> Digest {
    let counts = counts
        || claims
            .iter()
            .all(|claim| claim.time.is_some() || claim.own_id.is_some());
    let noted = if counts { *content } else { random_digest() };
    for (row, claim) in claims.iter().enumerate() {
        let digest = if claim.time.is_some() { content } else { &noted };
        let derived = derive_id(claim.time, digest, claim.position);
        rows.set_ids(row, claim.own_id.unwrap_or(derived), derived);
        rows.set_position(row, claim.position);
    }
    noted
}

fn random_digest() -> Digest {
    let (first, second) = (Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes());
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(first.into_iter().chain(second)) {
        *to = from;
    }
    Digest(bytes)
}

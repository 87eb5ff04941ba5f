//! Reading a request's body: reserved before it is held, bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::ingest::{Admission, Reservation};

/// How much of a body that is too large is read on and discarded, as a multiple of the limit: enough for the sender to see its 413.
const DISCARD_FACTOR: u64 = 4;
/// What a body without `Content-Length` gets first when it comes in more than one piece.
const FIRST_BYTES: usize = 64 * 1024;

/// How reading ended.
#[derive(Debug)]
pub(super) enum Read {
    /// The whole body.
    Whole(Bytes, Reservation),
    /// Over the limit; what was read of it, and the digest over those bytes.
    TooLarge { bytes: u64, digest: blake3::Hash },
    /// No memory for it now; the rest of the body.
    Busy(Body),
    /// It did not arrive in time.
    Slow,
    /// The connection broke.
    Broken,
}

/// Reads a body whose sender announced `length` bytes, if it did.
pub(super) async fn read(body: Body, length: Option<u64>, limit: usize, time: Duration, admission: &Admission) -> Read {
    let deadline = Instant::now() + time;
    if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > limit)) {
        return discard(body, Seen::default(), limit, deadline).await;
    }
    let announced = length
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or_default();
    let mut reservation = admission.open();
    if !reservation.grow_to(announced) {
        return Read::Busy(body);
    }
    let mut body = body;
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Read::Slow,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Read::Broken,
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.len() + rest.len();
        if so_far + data.len() > limit {
            let mut seen = Seen::default();
            for part in [&first[..], &rest, &data] {
                seen.add(part);
            }
            drop((first, rest, data, reservation));
            return discard(body, seen, limit, deadline).await;
        }
        // Most bodies come in one frame: it is kept as it is.
        if so_far == 0 {
            if !reservation.grow_to(data.len()) {
                return Read::Busy(body);
            }
            first = data;
            continue;
        }
        if !make_room(&mut rest, so_far + data.len(), announced, limit, &mut reservation) {
            return Read::Busy(body);
        }
        rest.extend_from_slice(&first);
        first = Bytes::new();
        rest.extend_from_slice(&data);
    }
    let body = if rest.is_empty() {
        first
    } else {
        // In place, for buffers of this size.
        rest.shrink_to_fit();
        Bytes::from(rest)
    };
    reservation.shrink_to(body.len());
    Read::Whole(body, reservation)
}

/// Room for `needed` bytes: what was announced at once, else twice as much each time. False if there is no memory for it.
///
/// While it grows it stands in memory twice.
fn make_room(held: &mut Vec<u8>, needed: usize, announced: usize, limit: usize, reservation: &mut Reservation) -> bool {
    let before = held.capacity();
    if needed <= before {
        return true;
    }
    let after = before
        .saturating_mul(2)
        .max(FIRST_BYTES)
        .min(limit)
        .max(announced)
        .max(needed);
    let granted = reservation.grow_to(before.saturating_add(after));
    if granted {
        held.reserve_exact(after.saturating_sub(held.len()));
        reservation.shrink_to(after);
    }
    granted
}

/// What is known of a body that is not kept.
#[derive(Default)]
struct Seen {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Seen {
    fn add(&mut self, part: &[u8]) {
        self.hasher.update(part);
        self.bytes = self.bytes.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
    }
}

/// Reads a body on that nobody wants, and keeps nothing of it.
pub(super) async fn pass_over(mut body: Body, bytes_max: u64, time: Duration) {
    let deadline = Instant::now() + time;
    let mut bytes = 0_u64;
    while bytes < bytes_max {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let read = frame.data_ref().map_or(0, Bytes::len);
                bytes = bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            }
            Ok(Some(Err(_)) | None) | Err(_) => break,
        }
    }
}

async fn discard(mut body: Body, mut seen: Seen, limit: usize, deadline: Instant) -> Read {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_mul(DISCARD_FACTOR);
    while seen.bytes < most {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    // Not beyond `most`, however the body is cut into frames: sent again, it has the same digest.
                    let rest = usize::try_from(most - seen.bytes).unwrap_or(usize::MAX);
                    seen.add(data.get(..rest).unwrap_or(&data));
                }
            }
            Ok(None) => break,
            // Sent again it would be another prefix, with another digest: nothing is kept of it.
            Ok(Some(Err(_))) => return Read::Broken,
            Err(_) => return Read::Slow,
        }
    }
    Read::TooLarge {
        bytes: seen.bytes,
        digest: seen.hasher.finalize(),
    }
}

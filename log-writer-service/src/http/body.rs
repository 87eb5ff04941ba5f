//! Reading a request's body: reserved before it is held, bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::ingest::{Admission, Reservation};

/// How much of a body that is too large is read on and discarded, as a multiple of the limit: enough for the sender to see its 413.
const DISCARD_FACTOR: u64 = 4;

/// How reading ended.
#[derive(Debug)]
pub(super) enum Read {
    /// The whole body.
    Whole(Bytes, Reservation),
    /// Over the limit; what was read of it, and the digest over those bytes.
    TooLarge { bytes: u64, digest: blake3::Hash },
    /// No memory for it now.
    Busy,
    /// It did not arrive in time.
    Slow,
    /// The connection broke.
    Broken,
}

/// Reads a body whose sender announced `length` bytes, if it did.
pub(super) async fn read(body: Body, length: Option<u64>, limit: usize, time: Duration, admission: &Admission) -> Read {
    let deadline = Instant::now() + time;
    if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > limit)) {
        return discard(body, BytesMut::new(), limit, deadline).await;
    }
    let announced = length
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or_default();
    let mut reservation = admission.open();
    if !reservation.grow_to(announced) {
        return Read::Busy;
    }
    let mut body = body;
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Read::Slow,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Read::Broken,
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if so_far + data.len() > limit {
            rest.extend_from_slice(&data);
            return discard(body, rest, limit, deadline).await;
        }
        if !reservation.grow_to(so_far + data.len()) {
            return Read::Busy;
        }
        // Most bodies come in one frame: it is kept as it is.
        if first.is_none() && rest.is_empty() {
            first = Some(data);
        } else {
            if let Some(first) = first.take() {
                rest.reserve(announced.max(first.len() + data.len()));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    Read::Whole(first.unwrap_or_else(|| rest.freeze()), reservation)
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

async fn discard(mut body: Body, read: BytesMut, limit: usize, deadline: Instant) -> Read {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&read);
    let mut bytes = u64::try_from(read.len()).unwrap_or(u64::MAX);
    drop(read);
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_mul(DISCARD_FACTOR);
    while bytes < most {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    hasher.update(&data);
                    bytes = bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                }
            }
            Ok(None) => break,
            // Sent again it would be another prefix, with another digest: nothing is kept of it.
            Ok(Some(Err(_))) => return Read::Broken,
            Err(_) => return Read::Slow,
        }
    }
    Read::TooLarge {
        bytes,
        digest: hasher.finalize(),
    }
}

//! Bytes of a body: decompressed as the formats' own decoders do, cut without losing any.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde::de::IgnoredAny;

use crate::{
    event::RawEvent,
    wire::{self, DecompressError, Framing, Piece, SplitSettings, cut_both_ways},
};

/// Far below the service's own limit, so that a fuzzer finds its way over it.
const EXPANDED_MAX: usize = 256 * 1024;
/// Values of `Content-Encoding`: the bytes win over them, but they decide what is tried.
const ENCODINGS: [Option<&str>; 6] = [
    None,
    Some("gzip"),
    Some("deflate"),
    Some("zstd"),
    Some("snappy"),
    Some("gzip, zstd"),
];
/// Values of `Content-Type`.
pub(super) const TYPES: [Option<&str>; 4] = [
    None,
    Some("application/json"),
    Some("application/x-ndjson"),
    Some("text/plain"),
];

/// A body in any compression: never more than the limit, and what the format's own decoder makes of it.
pub fn decompress(data: &[u8]) {
    let reference = reference(data);
    for encoding in ENCODINGS {
        let outcome = wire::decompress(Bytes::copy_from_slice(data), encoding, EXPANDED_MAX, &mut |_| true);
        assert_ne!(outcome, Err(DecompressError::NoRoom), "it was never refused");
        match outcome {
            Ok(plain) => {
                assert!(plain.len() <= EXPANDED_MAX, "{encoding:?}");
                // With two encodings a second step follows.
                if let Some(reference) = reference.as_ref().filter(|_| encoding.is_none()) {
                    assert_eq!(
                        Some(&plain[..]),
                        reference.as_deref(),
                        "the format's own decoder reads it otherwise"
                    );
                }
            }
            Err(DecompressError::TooLarge { limit }) => assert_eq!(limit, EXPANDED_MAX),
            Err(DecompressError::NoRoom | DecompressError::Broken { .. } | DecompressError::UnknownEncoding(_)) => {}
        }
    }
    for content_type in TYPES.into_iter().chain([Some("text/plain; charset=utf-16")]) {
        let _refused = wire::is_binary(content_type, data);
    }
}

/// What gzip's and zstd's streaming decoders read, up to one byte more than the limit; `None` for other bodies.
///
/// zstd's refuses blocks larger than a small window, which its decoder in one call takes: such a body is not compared.
#[expect(clippy::option_option, reason = "not compared, refused, and read are three things")]
fn reference(data: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    let limit = u64::try_from(EXPANDED_MAX).unwrap_or(u64::MAX) + 1;
    let is_gzip = data.starts_with(&[0x1f, 0x8b, 0x08]);
    let read = if is_gzip {
        MultiGzDecoder::new(data).take(limit).read_to_end(&mut plain)
    } else if data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(data);
        decoder.and_then(|decoder| decoder.take(limit).read_to_end(&mut plain))
    } else {
        return None;
    };
    match read {
        Ok(_) => Some(Some(plain)),
        Err(_) if is_gzip => Some(None),
        Err(_) => None,
    }
}

/// Text in any framing: every byte is in one piece or is a separator, and what is called JSON is.
pub fn split(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let wrappers = ["data", "events", "logs"].map(str::to_owned);
    for content_type in TYPES {
        for events_max in [2, 10_000] {
            let bare = SplitSettings {
                wrappers: &[],
                events_max,
            };
            if let Ok(pieces) = cut_both_ways(&text, content_type, bare) {
                assert!(pieces.len() <= events_max + 1);
                assert_accounted(&text, &pieces);
                pieces.iter().for_each(assert_json);
            }
        }
        let wrapped = SplitSettings {
            wrappers: &wrappers,
            events_max: 10_000,
        };
        if let Ok(pieces) = cut_both_ways(&text, content_type, wrapped) {
            pieces.iter().for_each(assert_json);
        }
        if let Ok(framing) = Framing::of(&text, content_type, wrapped) {
            let mut asked = 0;
            let around = framing.around(&mut |bytes| {
                asked = bytes;
                true
            });
            if let Some(around) = around {
                assert!(
                    is_json(&around) && around.len() <= asked,
                    "not JSON, or too long: {around}"
                );
            }
        }
    }
}

fn assert_json(piece: &Piece<'_>) {
    if let Piece::Event(RawEvent::Object(json) | RawEvent::Value(json)) = piece {
        assert!(is_json(json), "not JSON: {json}");
    }
}

pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Pieces stand in their order, do not overlap, and nothing but separators and envelopes is between them.
pub(super) fn assert_accounted(body: &str, pieces: &[Piece<'_>]) {
    let mut at = 0;
    let mut is_enveloped = false;
    for piece in pieces {
        let raw = match piece {
            Piece::Event(RawEvent::Object(raw) | RawEvent::Value(raw)) | Piece::Bad { raw, .. } => raw,
            Piece::Event(RawEvent::Text(line)) => line.as_ref(),
        };
        let from = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize);
        let from = from.expect("a piece is a part of the body");
        assert!(from >= at, "pieces overlap in {body:?}: {pieces:?}");
        let gap = body.get(at..from).expect("pieces are cut beside characters");
        let (gap, opened) = without_envelope(gap, is_enveloped);
        assert!(is_free(gap), "lost {gap:?} before {raw:?} of {body:?}: {pieces:?}");
        is_enveloped = opened;
        at = from + raw.len();
    }
    let gap = body.get(at..).expect("pieces are parts of the body");
    let (gap, _) = without_envelope(gap, is_enveloped);
    assert!(is_free(gap), "lost {gap:?} at the end of {body:?}: {pieces:?}");
}

/// A gap without the `}` that closes the last event's envelope, and without the `{"log":` that opens the next one's.
fn without_envelope(gap: &str, is_enveloped: bool) -> (&str, bool) {
    let closed = gap.trim_start().strip_prefix('}').filter(|_| is_enveloped);
    let gap = closed.unwrap_or(gap);
    let opened = gap.trim_end().strip_suffix(':').and_then(|gap| {
        let gap = gap.trim_end().strip_suffix("\"log\"")?;
        gap.trim_end().strip_suffix('{')
    });
    (opened.unwrap_or(gap), opened.is_some())
}

/// White space and control characters, brackets of lists, separators, and one free delimiter.
fn is_free(gap: &str) -> bool {
    let marks = gap
        .chars()
        .filter(|mark| !mark.is_ascii_whitespace() && !mark.is_ascii_control());
    marks.filter(|mark| !"[],;\u{feff}".contains(*mark)).count() <= 1
}

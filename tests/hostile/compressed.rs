//! Compressed bodies that lie: bombs, windows, dictionaries, lengths, and data that is cut, damaged or followed by more.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use log_writer_tests::client::Receipt;
use serde_json::json;

use crate::{MIB, Target, good};

/// Limit of a body in these tests, far below what the bombs hold.
const LIMIT: &str = "4MiB";
/// Bytes of zeros in a bomb.
const BOMB_BYTES: usize = 64 * 1024 * 1024;
/// Memory of the process in MiB, most of it its own; a bomb expanded would go over it.
const MEMORY: u64 = 90;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).expect("to memory")
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("to memory")
}

fn snappy_framed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).expect("to memory");
    encoder.into_inner().expect("to memory")
}

/// Name in `Content-Encoding` and the encoder.
type Codec = (&'static str, fn(&[u8]) -> Vec<u8>);
const CODECS: [Codec; 5] = [
    ("gzip", gzip),
    ("deflate", zlib),
    ("zstd", zstandard),
    ("snappy", snappy),
    ("x-snappy-framed", snappy_framed),
];

async fn small_target() -> Target {
    Target::start_with(|settings| {
        settings
            .set("http.body_bytes_max", LIMIT)
            .set("http.inflight_bytes_max", "32MiB")
    })
    .await
}

impl Target {
    /// Sends what cannot be expanded: answered so, kept up to `database.dead_letter_bytes_max` (nothing of it, if it is over the limit).
    async fn assert_refused(&self, encoding: &str, body: Vec<u8>, status: u16, reason: &str) {
        let kept = self.kept_bytes().await;
        let length = i64::try_from(body.len()).expect("short");
        let answer = self.post(body, &[("content-encoding", encoding)]).await;
        let said = answer.json();
        assert_eq!((answer.status, &said["error"]), (status, &json!(reason)), "{encoding}");
        assert!(said["dead_letter"].is_string(), "{said}");
        assert_eq!(
            self.reasons().await.last().map(String::as_str),
            Some(reason),
            "{encoding}"
        );
        let more = if status == 413 { 0 } else { length.min(1024 * 1024) };
        assert_eq!(self.kept_bytes().await - kept, more, "{encoding}");
    }
}

#[tokio::test]
async fn bombs_of_every_compression_are_refused_at_the_limit() {
    let target = small_target().await;
    let zeros = vec![0; BOMB_BYTES];
    for (encoding, encode) in CODECS {
        target
            .assert_refused(encoding, encode(&zeros), 413, "body_too_large")
            .await;
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn bombs_within_bombs_are_refused_at_the_limit() {
    let target = small_target().await;
    let inner = gzip(&vec![0; BOMB_BYTES]);
    for (outer, encode) in [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("deflate", zlib),
        ("zstd", zstandard),
    ] {
        let encodings = format!("gzip, {outer}");
        target
            .assert_refused(&encodings, encode(&inner), 413, "body_too_large")
            .await;
    }
    let names = "gzip, gzip, gzip, gzip, gzip";
    target
        .assert_refused(names, gzip(&inner), 400, "unknown_content_encoding")
        .await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_huge_zstd_window_is_refused_before_memory_is_taken() {
    let target = small_target().await;
    for window_log in [28_u8, 31, 41] {
        // A frame of one empty block.
        let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3, 0x01, 0x00, 0x00];
        target.assert_refused("zstd", frame, 400, "broken_compression").await;
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_zstd_frame_that_needs_a_dictionary_is_refused() {
    let target = small_target().await;
    // Dictionary 7, window of 1 KiB, one block of one byte.
    let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x00, 0x07, 0x09, 0x00, 0x00, b'x'];
    target.assert_refused("zstd", frame, 400, "broken_compression").await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn skippable_zstd_frames_hold_nothing_and_may_not_lie_about_it() {
    let target = small_target().await;
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0], &b"xyz"[..]].concat();
    let answer = target
        .post(skipped.repeat(1_000), &[("content-encoding", "zstd")])
        .await;
    assert_eq!(answer.receipt(), Receipt::default());
    let good = [skipped, zstandard(json!([good("m")]).to_string().as_bytes())].concat();
    let answer = target.post(good, &[("content-encoding", "zstd")]).await;
    assert_eq!(answer.receipt(), Receipt::all_committed(1));
    let lie = vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, b'x'];
    target.assert_refused("zstd", lie, 400, "broken_compression").await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_zstd_content_size_that_lies_costs_nothing() {
    let target = small_target().await;
    let mut sized = zstd::bulk::compress(&[b' '; 5_000], 3).expect("to memory");
    // A single segment of a 2-byte size (less 256) behind magic and descriptor.
    assert_eq!(sized[4], 0x60, "another header than this test changes");
    sized[5..7].copy_from_slice(&[0xff, 0xff]);
    target.assert_refused("zstd", sized, 400, "broken_compression").await;
    // A TiB in eight bytes.
    let huge = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..],
        &(1_u64 << 40).to_le_bytes(),
        &[0x01, 0x00, 0x00],
    ]
    .concat();
    target.assert_refused("zstd", huge, 413, "body_too_large").await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_snappy_block_that_lies_about_its_length_costs_nothing() {
    let target = small_target().await;
    // 4 GiB and 3 MiB, in ten bytes.
    let beyond = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 5]].concat();
    target.assert_refused("snappy", beyond, 413, "body_too_large").await;
    let within = [&[0x80, 0x80, 0xc0, 0x01][..], &[0; 6]].concat();
    target.assert_refused("snappy", within, 400, "broken_compression").await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn snappy_frames_that_lie_are_refused() {
    let target = small_target().await;
    let whole = snappy_framed(b"[1]");
    let mut long = whole.clone();
    long[11] = 0xff;
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    for body in [long, damaged] {
        target
            .assert_refused("x-snappy-framed", body, 400, "broken_compression")
            .await;
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_body_cut_short_is_kept_as_it_came() {
    let target = small_target().await;
    let events = json!([good("one"), good("two")]).to_string();
    for (encoding, encode) in CODECS {
        let mut body = encode(events.as_bytes());
        body.truncate(body.len() - 3);
        target.assert_refused(encoding, body, 400, "broken_compression").await;
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn other_bytes_after_the_compressed_ones_are_refused() {
    let target = small_target().await;
    let events = json!([good("one")]).to_string();
    for (encoding, encode) in CODECS {
        let body = [encode(events.as_bytes()), b"garbage after it".to_vec()].concat();
        target.assert_refused(encoding, body, 400, "broken_compression").await;
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_million_empty_members_are_refused() {
    let target = small_target().await;
    // The decoder's own cost of a member is what is attacked.
    let body = gzip(b"").repeat(100_000);
    target.assert_refused("gzip", body, 400, "broken_compression").await;
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn mixed_compressions_are_undone_in_their_order() {
    let target = small_target().await;
    let events = json!([good("one"), good("two")]).to_string();
    let body = zstandard(&gzip(events.as_bytes()));
    let answer = target.post(body, &[("content-encoding", "gzip, zstd")]).await;
    assert_eq!(answer.receipt(), Receipt::all_committed(2));
    assert_eq!(target.reasons().await, Vec::<String>::new());
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn an_encoding_that_lies_costs_nothing() {
    let target = small_target().await;
    let events = || json!([good("one")]).to_string();
    for (body, headers) in [
        (Bytes::from(events()), &[("content-encoding", "gzip")][..]),
        (gzip(events().as_bytes()).into(), &[("content-encoding", "zstd")]),
        (zstandard(events().as_bytes()).into(), &[]),
    ] {
        assert_eq!(target.post(body, headers).await.receipt(), Receipt::all_committed(1));
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn an_unknown_encoding_is_refused_by_name_and_kept() {
    let target = small_target().await;
    let long = "é".repeat(5_000);
    for encoding in ["br", "compress", "gzip, br", "gzip; q=1", long.as_str()] {
        let body = format!("\u{1}{encoding} is not known").into_bytes();
        target
            .assert_refused(encoding, body, 400, "unknown_content_encoding")
            .await;
    }
    target.assert_unharmed(MEMORY).await;
    assert!(target.kept_bytes().await < i64::try_from(MIB).expect("small"));
}

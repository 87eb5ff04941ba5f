//! Claims on decompression, for all codecs alike where they are alike.

use std::{fmt::Write as _, fs, io::Write as _};

use bytes::Bytes;
use flate2::{
    Compress, Compression, FlushCompress,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use proptest::prelude::*;

use super::{DecompressError, decompress};

const LIMIT: usize = 1 << 20;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn gzip_members(text: &[u8]) -> Vec<u8> {
    let (first, second) = text.split_at(text.len() / 3);
    [gzip(first), gzip(b""), gzip(second)].concat()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// As Vector does: no content size.
fn zstd_stream(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 1).unwrap()
}

fn zstd_sized(text: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(text, 3).unwrap()
}

fn zstd_frames(text: &[u8]) -> Vec<u8> {
    let (first, second) = text.split_at(text.len() / 2);
    let skipped = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    [skipped.to_vec(), zstd_stream(first), zstd_sized(second)].concat()
}

fn zstd_window(text: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn snappy_block(text: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(text).unwrap()
}

fn snappy_frames(text: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(text).unwrap();
    encoder.into_inner().unwrap()
}

type Encode = fn(&[u8]) -> Vec<u8>;

/// Header, name of the case, encoder.
const CODECS: [(&str, &str, Encode); 9] = [
    ("gzip", "gzip", gzip),
    ("gzip", "gzip of several members", gzip_members),
    ("deflate", "zlib", zlib),
    ("deflate", "raw deflate", raw_deflate),
    ("zstd", "zstd without size", zstd_stream),
    ("zstd", "zstd with size", zstd_sized),
    ("zstd", "zstd of several frames", zstd_frames),
    ("snappy", "snappy block", snappy_block),
    ("snappy", "snappy frames", snappy_frames),
];

fn undo(body: impl Into<Bytes>, header: &str) -> Result<Bytes, DecompressError> {
    decompress(body.into(), Some(header), LIMIT, &mut |_| true)
}

fn sample() -> Vec<u8> {
    let mut text = String::from("[");
    for number in 0..2_000_u32 {
        write!(
            text,
            r#"{{"n":{number},"message":"payment {} declined ü"}},"#,
            number * 7919
        )
        .unwrap();
    }
    text.push_str("{}]");
    text.into_bytes()
}

#[test]
fn every_codec_gives_back_what_went_in() {
    for (header, case, encode) in CODECS {
        assert_eq!(undo(encode(&sample()), header).unwrap(), sample(), "{case}");
    }
}

#[test]
fn a_header_is_read_in_any_spelling() {
    for header in [
        "gzip",
        "GZIP",
        "x-gzip",
        " gzip ",
        "identity, gzip",
        "gzip,identity",
        ",gzip",
    ] {
        assert_eq!(undo(gzip(b"[1]"), header).unwrap(), "[1]", "{header}");
    }
    for header in ["", "identity", "Identity", " , "] {
        assert_eq!(undo("[1]", header).unwrap(), "[1]", "{header}");
    }
}

#[test]
fn identity_is_not_copied() {
    let body = Bytes::from(sample());
    let same = decompress(body.clone(), None, LIMIT, &mut |_| true).unwrap();
    assert_eq!(same.as_ptr(), body.as_ptr());
}

#[test]
fn two_encodings_are_undone_last_first() {
    let body = zstd_stream(&gzip(&sample()));
    assert_eq!(undo(body, "gzip, zstd").unwrap(), sample());
    let body = snappy_block(&zlib(&sample()));
    assert_eq!(undo(body, "deflate, snappy").unwrap(), sample());
}

#[test]
fn the_limit_holds_for_each_step() {
    // Small at the end of each pass but the last, and small again after none.
    let inner = gzip(&vec![0; 2 * LIMIT]);
    assert_eq!(
        undo(gzip(&inner), "gzip, gzip"),
        Err(DecompressError::TooLarge { limit: LIMIT })
    );
}

#[test]
fn bytes_win_over_a_header_that_lies() {
    for (_, case, encode) in CODECS {
        let has_magic = !matches!(case, "snappy block" | "raw deflate");
        if has_magic {
            for header in ["gzip", "deflate", "zstd", "snappy"] {
                assert_eq!(
                    undo(encode(&sample()), header).unwrap(),
                    sample(),
                    "{case} sent as {header}"
                );
            }
            assert_eq!(
                decompress(encode(&sample()).into(), None, LIMIT, &mut |_| true).unwrap(),
                sample(),
                "{case} without header"
            );
        }
    }
    for plain in [
        &b"[{\"a\":1}]"[..],
        b"{\"a\":1}\n{\"a\":2}",
        "grüße\n".as_bytes(),
        b"x^2 is a line",
    ] {
        for header in ["gzip", "zstd", "snappy"] {
            assert_eq!(undo(plain.to_vec(), header).unwrap(), plain, "plain sent as {header}");
        }
        assert_eq!(
            decompress(plain.to_vec().into(), None, LIMIT, &mut |_| true).unwrap(),
            plain
        );
    }
    assert_eq!(undo("[{\"a\":1}]", "deflate").unwrap(), "[{\"a\":1}]");
}

#[test]
fn text_that_begins_like_zlib_stays_text() {
    let text = "x\u{6aa} begins a line";
    assert_eq!(decompress(text.into(), None, LIMIT, &mut |_| true).unwrap(), text);
}

#[test]
fn an_unknown_encoding_is_named() {
    assert_eq!(undo("[1]", "br"), Err(DecompressError::UnknownEncoding("br".into())));
    assert_eq!(
        undo("[1]", "gzip, br"),
        Err(DecompressError::UnknownEncoding("br".into()))
    );
    assert!(matches!(
        undo("[1]", "gzip,gzip,gzip,gzip,gzip"),
        Err(DecompressError::UnknownEncoding(_))
    ));
    let Err(DecompressError::UnknownEncoding(name)) = undo("[1]", &"é".repeat(500)) else {
        panic!("a long name is not known either");
    };
    assert_eq!(name.chars().count(), 64);
}

#[test]
fn an_empty_body_is_empty_in_every_encoding() {
    for header in ["gzip", "deflate", "zstd", "snappy", "gzip, zstd"] {
        assert_eq!(undo("", header).unwrap(), "", "{header}");
    }
}

#[test]
fn a_body_cut_short_is_broken_wherever_it_is_cut() {
    let text = sample();
    for (header, case, encode) in CODECS {
        let whole = encode(&text);
        for cut in (12..whole.len()).step_by(whole.len() / 40 + 1).chain([whole.len() - 1]) {
            let outcome = undo(whole[..cut].to_vec(), header);
            // Between two members or frames a cut cannot be seen; what there is, is a prefix.
            if let Ok(part) = &outcome {
                assert!(
                    case.contains("several") || case.contains("frames"),
                    "{case} cut at {cut}"
                );
                assert!(text.starts_with(part), "{case} cut at {cut}");
            } else {
                assert!(
                    matches!(outcome, Err(DecompressError::Broken { .. })),
                    "{case} cut at {cut}: {outcome:?}"
                );
            }
        }
    }
}

#[test]
fn other_bytes_after_the_end_are_broken() {
    for (header, case, encode) in CODECS {
        let outcome = undo([encode(&sample()), b"garbage after it".to_vec()].concat(), header);
        assert!(
            matches!(outcome, Err(DecompressError::Broken { .. })),
            "{case}: {outcome:?}"
        );
    }
}

#[test]
fn a_damaged_checksum_is_broken() {
    for (header, mut body) in [
        ("gzip", gzip(&sample())),
        ("deflate", zlib(&sample())),
        ("zstd", zstd_window(&sample(), 20)),
    ] {
        let last = body.len() - if header == "gzip" { 5 } else { 1 };
        body[last] ^= 0x40;
        assert!(
            matches!(undo(body, header), Err(DecompressError::Broken { .. })),
            "{header}"
        );
    }
}

#[test]
fn the_limit_is_exact() {
    let text = vec![b' '; 5_000];
    for (header, case, encode) in CODECS {
        let body = Bytes::from(encode(&text));
        assert_eq!(
            decompress(body.clone(), Some(header), 5_000, &mut |_| true).unwrap(),
            text,
            "{case}"
        );
        let outcome = decompress(body, Some(header), 4_999, &mut |_| true);
        assert_eq!(outcome, Err(DecompressError::TooLarge { limit: 4_999 }), "{case}");
    }
    let outcome = decompress(text.clone().into(), None, 4_999, &mut |_| true);
    assert_eq!(outcome, Err(DecompressError::TooLarge { limit: 4_999 }));
}

#[test]
fn every_window_of_vectors_levels_is_read_and_larger_ones_are_named() {
    for window_log in [10, 21, 23, 26, 27] {
        assert_eq!(
            undo(zstd_window(&sample(), window_log), "zstd").unwrap(),
            sample(),
            "2^{window_log}"
        );
    }
    // A frame header whose window is 2^28 bytes, and one empty block.
    let huge = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0x01, 0x00, 0x00];
    let error = undo(huge.to_vec(), "zstd").unwrap_err();
    assert!(error.to_string().contains("window of 2^28 bytes"), "{error}");
}

/// One GiB of zeros in each format, made of one flushed piece repeated; the checksums are never reached.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut piece = Vec::with_capacity(64 * 1024);
    compress
        .compress_vec(&vec![0; 1 << 20], &mut piece, FlushCompress::Full)
        .unwrap();
    let zeros = piece.repeat(1024);
    let gzip_header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let told_size = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let zstd_header = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3];
    // 8,191 blocks of one byte repeated 131,072 times, then the last one.
    let block = |last: u32| ((131_072_u32 << 3) | (1 << 1) | last).to_le_bytes();
    let mut zstd_blocks = Vec::new();
    for _ in 0..8_191 {
        zstd_blocks.extend_from_slice(&[&block(0)[..3], &[0]].concat());
    }
    zstd_blocks.extend_from_slice(&[&block(1)[..3], &[0]].concat());
    let snappy_lie = [vec![0x80, 0x80, 0x80, 0x80, 0x04], vec![0; 100]].concat();
    vec![
        ("gzip", [&gzip_header[..], &zeros, &told_size].concat()),
        ("deflate", [&[0x78, 0x9c][..], &zeros].concat()),
        ("deflate", zeros),
        ("zstd", [&zstd_header[..], &zstd_blocks].concat()),
        ("snappy", snappy_lie),
        ("snappy", snappy_frames(&vec![0; 2 * LIMIT])),
    ]
}

#[test]
fn bombs_stop_at_the_limit_with_little_memory() {
    let bombs = bombs();
    let before = peak_memory_kib();
    for (header, bomb) in bombs {
        assert!(bomb.len() < 2 * LIMIT, "{header}: {}", bomb.len());
        let outcome = decompress(bomb.into(), Some(header), 2 * LIMIT - 1, &mut |_| true);
        assert_eq!(
            outcome,
            Err(DecompressError::TooLarge { limit: 2 * LIMIT - 1 }),
            "{header}"
        );
    }
    // Other tests run in this process at the same time; a GiB would show all the same.
    assert!(peak_memory_kib() - before < 256 * 1024);
}

#[test]
fn a_block_that_claims_more_than_it_can_hold_costs_nothing() {
    // Claims 1 MiB, holds two bytes.
    let outcome = undo(vec![0x80, 0x80, 0x40, 0x00, 0xff], "snappy");
    assert!(
        matches!(outcome, Err(DecompressError::Broken { encoding: "snappy", .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_million_empty_members_are_refused_in_bounded_time() {
    let outcome = undo(gzip(b"").repeat(70_000), "gzip");
    assert!(
        matches!(
            outcome,
            Err(DecompressError::Broken { .. } | DecompressError::TooLarge { .. })
        ),
        "{outcome:?}"
    );
}

fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_round_trip_in_any_two_codecs(
        bytes in prop::collection::vec(any::<u8>(), 1..3_000),
        first in 0..CODECS.len(),
        second in 0..CODECS.len(),
    ) {
        let ((first_header, _, encode_first), (second_header, _, encode_second)) = (CODECS[first], CODECS[second]);
        let once = undo(encode_first(&bytes), first_header).unwrap();
        prop_assert_eq!(&once[..], &bytes[..]);
        let header = format!("{first_header}, {second_header}");
        let twice = undo(encode_second(&encode_first(&bytes)), &header).unwrap();
        prop_assert_eq!(&twice[..], &bytes[..]);
    }
}

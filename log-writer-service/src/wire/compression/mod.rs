//! Undoes `Content-Encoding`: gzip, `deflate` (zlib or raw), zstd, snappy (block or framed), and lists of them.
//!
//! The header says what was meant, the first bytes say what was done, and the bytes win: a header that lies, or is
//! missing, costs nothing. Promises: no step makes more than `expanded_max` bytes, no step needs memory beyond its
//! output and a window of at most 32 KiB, and compressed data that is cut short, damaged or followed by other bytes
//! is refused as a whole.

mod deflate;
mod snappy;
mod zstandard;

use bytes::Bytes;

use self::deflate::Wrapping;
use super::room::{Room, reserve};

/// Encodings in one header at most; nobody sends two, and each costs a pass.
const ENCODINGS_MAX: usize = 4;
/// Bytes looked at to tell text from compressed data.
const PLAIN_PREFIX_BYTES: usize = 1024;
/// An unknown encoding's name is cut here before it goes into an error.
const NAME_CHARS_MAX: usize = 64;

/// Why a body could not be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The body, or what a step makes of it, is larger than allowed.
    #[error("the body is larger than {limit} bytes when decompressed")]
    TooLarge {
        /// Bytes that were allowed.
        limit: usize,
    },
    /// The room for it was refused.
    #[error("no memory for the decompressed body")]
    NoRoom,
    /// The header names an encoding that is not read here.
    #[error("unknown content encoding `{0}`; known are gzip, deflate, zstd, snappy and identity")]
    UnknownEncoding(String),
    /// The compressed data is damaged, cut short, or followed by other bytes.
    #[error("broken {encoding} data: {detail}")]
    Broken {
        /// What the data was read as.
        encoding: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl DecompressError {
    fn broken(encoding: &'static str, detail: impl ToString) -> Self {
        Self::Broken {
            encoding,
            detail: detail.to_string(),
        }
    }
}

/// One compression, as a header names it or as first bytes show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Gzip,
    /// `deflate` of a header: zlib by the standard, raw by the habit of some.
    Deflate,
    Zstd,
    /// `snappy` of a header: one raw block, which has no magic bytes.
    Snappy,
    SnappyFramed,
}

impl Codec {
    fn from_header(name: &str) -> Option<Self> {
        let known = [
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("deflate", Self::Deflate),
            ("zlib", Self::Deflate),
            ("zstd", Self::Zstd),
            ("snappy", Self::Snappy),
            ("x-snappy", Self::Snappy),
            ("x-snappy-framed", Self::SnappyFramed),
        ];
        let found = known.iter().find(|(spelling, _)| spelling.eq_ignore_ascii_case(name));
        found.map(|(_, codec)| *codec)
    }

    fn from_magic(body: &[u8]) -> Option<Self> {
        match body {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xff, 0x06, 0x00, 0x00, b's', b'N', b'a', b'P', b'p', b'Y', ..] => Some(Self::SnappyFramed),
            // The fourth usual zlib header, 78 5e, is the text `x^`.
            [0x78, 0x01 | 0x9c | 0xda, ..] => Some(Self::Deflate),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Snappy | Self::SnappyFramed => "snappy",
        }
    }
}

/// Whether a body may be larger than it looks, by its header or its first bytes.
pub fn may_expand(body: &[u8], content_encoding: Option<&str>) -> bool {
    content_encoding.is_some() || Codec::from_magic(body).is_some()
}

/// Undoes what `content_encoding` lists, last first; `None` or `identity` returns `body` without a copy.
///
/// Synchronous CPU work (up to a second for 100 MiB): not for an async worker thread.
///
/// # Errors
/// [`DecompressError`]; nothing of the body is usable then.
pub fn decompress(
    body: Bytes,
    content_encoding: Option<&str>,
    expanded_max: usize,
    room: &mut Room<'_>,
) -> Result<Bytes, DecompressError> {
    let declared = declared_codecs(content_encoding.unwrap_or_default())?;
    let mut current = body;
    if declared.is_empty() {
        current = undeclared(current, expanded_max, room)?;
    }
    let mut between = 0;
    for codec in declared.into_iter().rev() {
        if let Some(expanded) = undo(codec, &current, expanded_max, &mut |bytes| room(between + bytes))? {
            between = expanded.capacity();
            current = Bytes::from(expanded);
        }
    }
    if current.len() > expanded_max {
        return Err(DecompressError::TooLarge { limit: expanded_max });
    }
    Ok(current)
}

/// The codecs a header lists, in the order they were applied.
fn declared_codecs(header: &str) -> Result<Vec<Codec>, DecompressError> {
    let names = || {
        let trimmed = header.split(',').map(str::trim);
        trimmed.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
    };
    if names().count() > ENCODINGS_MAX {
        return Err(unknown(header));
    }
    names()
        .map(|name| Codec::from_header(name).ok_or_else(|| unknown(name)))
        .collect()
}

fn unknown(name: &str) -> DecompressError {
    DecompressError::UnknownEncoding(name.chars().take(NAME_CHARS_MAX).collect())
}

/// A body without a header: compressed all the same if its first bytes say so.
fn undeclared(body: Bytes, limit: usize, room: &mut Room<'_>) -> Result<Bytes, DecompressError> {
    match Codec::from_magic(&body) {
        None => Ok(body),
        // Two bytes are weak evidence: `xڪ` is text.
        Some(Codec::Deflate) => match undo(Codec::Deflate, &body, limit, room) {
            Ok(Some(expanded)) => Ok(Bytes::from(expanded)),
            Err(error @ (DecompressError::TooLarge { .. } | DecompressError::NoRoom)) => Err(error),
            Ok(None) | Err(_) => Ok(body),
        },
        Some(codec) => Ok(undo(codec, &body, limit, room)?.map_or(body, Bytes::from)),
    }
}

/// One step; `None` if `body` is not compressed at all.
fn undo(declared: Codec, body: &[u8], limit: usize, room: &mut Room<'_>) -> Result<Option<Vec<u8>>, DecompressError> {
    if body.is_empty() {
        return Ok(None);
    }
    let expanded = match (Codec::from_magic(body), declared) {
        (Some(Codec::Gzip), _) => deflate::inflate(body, Wrapping::Gzip, limit, room),
        (Some(Codec::Zstd), _) => zstandard::expand(body, limit, room),
        (Some(Codec::SnappyFramed), _) => snappy::expand_frames(body, limit, room),
        (Some(Codec::Deflate), _) => inflate_zlib_or_raw(body, limit, room),
        // A block has no magic, so it has to be tried.
        (Some(Codec::Snappy) | None, Codec::Snappy) => match snappy::expand_block(body, limit, room) {
            Err(_) if is_plain(body) => return Ok(None),
            outcome => outcome,
        },
        _ if is_plain(body) => return Ok(None),
        (_, Codec::Deflate) => inflate_zlib_or_raw(body, limit, room),
        (_, Codec::Gzip | Codec::Zstd | Codec::SnappyFramed) => Err(DecompressError::broken(
            declared.name(),
            "it does not begin like this format, nor like text",
        )),
    };
    expanded.map(Some)
}

fn inflate_zlib_or_raw(body: &[u8], limit: usize, room: &mut Room<'_>) -> Result<Vec<u8>, DecompressError> {
    let zlib = deflate::inflate(body, Wrapping::Zlib, limit, room);
    match zlib {
        Err(DecompressError::Broken { .. }) => match deflate::inflate(body, Wrapping::Raw, limit, room) {
            Err(DecompressError::Broken { .. }) => zlib,
            settled => settled,
        },
        settled => settled,
    }
}

/// Whether the first bytes are text: then they were never compressed.
fn is_plain(body: &[u8]) -> bool {
    let prefix = body.get(..PLAIN_PREFIX_BYTES).unwrap_or(body);
    let is_utf8 = match std::str::from_utf8(prefix) {
        Ok(_) => true,
        // A character cut by the end of the prefix.
        Err(error) => error.error_len().is_none() && body.len() > prefix.len(),
    };
    is_utf8
        && !prefix
            .iter()
            .any(|byte| matches!(byte, 0x01..=0x08 | 0x0b | 0x0e..=0x1a | 0x7f))
}

/// Room for more output: doubles, but never beyond one byte more than `limit`, which is enough to see too much.
fn grow(out: &mut Vec<u8>, limit: usize, room: &mut Room<'_>) -> Result<(), DecompressError> {
    const STEP_MIN: usize = 64 * 1024;
    if out.len() == out.capacity() {
        let left = limit.saturating_add(1).saturating_sub(out.len());
        take(out, out.len().max(STEP_MIN).min(left), room)?;
    }
    Ok(())
}

/// Takes room for so many bytes of output.
fn take(out: &mut Vec<u8>, bytes: usize, room: &mut Room<'_>) -> Result<(), DecompressError> {
    reserve(out, bytes, room).then_some(()).ok_or(DecompressError::NoRoom)
}

/// Gives back what a guess reserved in vain: the bytes live as long as the request.
fn give_back(mut out: Vec<u8>) -> Vec<u8> {
    if out.capacity() - out.len() > out.len() / 4 {
        out.shrink_to_fit();
    }
    out
}

#[cfg(test)]
mod tests;

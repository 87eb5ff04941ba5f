//! Gzip (any number of members), zlib and raw deflate.

use flate2::{Decompress, FlushDecompress, Status};

use super::{DecompressError, Room, give_back, grow, take};

/// Members of one gzip body at most: each costs a new decoder, and bodies of many are cut in blocks of 64 KiB.
const MEMBERS_MAX: usize = 65_536;
/// Deflate cannot expand more than this (RFC 1951: 258 bytes from two bits).
const RATIO_MAX: usize = 1032;

/// What is around the deflate data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    Gzip,
    Zlib,
    Raw,
}

impl Wrapping {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Raw => "raw deflate",
        }
    }

    fn decoder(self) -> Decompress {
        match self {
            Self::Gzip => Decompress::new_gzip(15),
            Self::Zlib => Decompress::new(true),
            Self::Raw => Decompress::new(false),
        }
    }
}

/// Inflates the whole of `input`, checksums included.
pub(super) fn inflate(
    input: &[u8],
    wrapping: Wrapping,
    limit: usize,
    room: &mut Room<'_>,
) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let likely = likely_bytes(input, wrapping).min(limit.saturating_add(1));
    take(&mut out, likely, room)?;
    let mut rest = input;
    for _ in 0..MEMBERS_MAX {
        rest = inflate_stream(rest, wrapping, &mut out, limit, room)?;
        if rest.is_empty() {
            return Ok(give_back(out));
        }
        if wrapping != Wrapping::Gzip {
            return Err(broken(wrapping, "other bytes follow the compressed data"));
        }
    }
    Err(broken(wrapping, "it has too many members"))
}

/// Inflates one stream and returns what follows it.
fn inflate_stream<'a>(
    input: &'a [u8],
    wrapping: Wrapping,
    out: &mut Vec<u8>,
    limit: usize,
    room: &mut Room<'_>,
) -> Result<&'a [u8], DecompressError> {
    let mut stream = wrapping.decoder();
    let mut rest = input;
    loop {
        grow(out, limit, room)?;
        let (read_before, length_before) = (stream.total_in(), out.len());
        let status = stream
            .decompress_vec(rest, out, FlushDecompress::None)
            .map_err(|error| broken(wrapping, error))?;
        if out.len() > limit {
            return Err(DecompressError::TooLarge { limit });
        }
        let read = usize::try_from(stream.total_in() - read_before).unwrap_or(usize::MAX);
        rest = rest.get(read..).unwrap_or_default();
        if status == Status::StreamEnd {
            return Ok(rest);
        }
        if read == 0 && out.len() == length_before {
            return Err(broken(wrapping, "it ends too early"));
        }
    }
}

/// A first guess at the size; gzip tells the size of its last member, if it does not lie.
fn likely_bytes(input: &[u8], wrapping: Wrapping) -> usize {
    const USUAL_RATIO: usize = 6;
    let told = match (wrapping, input.last_chunk::<4>()) {
        (Wrapping::Gzip, Some(size)) => usize::try_from(u32::from_le_bytes(*size)).unwrap_or(0),
        _ => input.len().saturating_mul(USUAL_RATIO),
    };
    // One more, so that the decoder sees the end of the data before it runs out of room.
    told.min(input.len().saturating_mul(RATIO_MAX)).saturating_add(1)
}

fn broken(wrapping: Wrapping, detail: impl ToString) -> DecompressError {
    DecompressError::broken(wrapping.name(), detail)
}

//! Snappy: one raw block (what Vector sends) or the framing format.

use std::io::Read;

use snap::{raw, read::FrameDecoder};

use super::{DecompressError, Room, give_back, grow, take};

const NAME: &str = "snappy";
/// The densest element: 64 bytes from a copy of three.
const RATIO_MAX: usize = 22;

/// Expands a raw block; its length, which stands first, is checked before memory is taken.
pub(super) fn expand_block(input: &[u8], limit: usize, room: &mut Room<'_>) -> Result<Vec<u8>, DecompressError> {
    let length = raw::decompress_len(input).map_err(broken)?;
    if length > limit {
        return Err(DecompressError::TooLarge { limit });
    }
    if length > input.len().saturating_mul(RATIO_MAX) {
        return Err(broken("it claims to be longer than this format can make it"));
    }
    let mut out = Vec::new();
    take(&mut out, length, room)?;
    out.resize(length, 0);
    let written = raw::Decoder::new().decompress(input, &mut out).map_err(broken)?;
    out.truncate(written);
    Ok(out)
}

/// Expands the framing format, checksums included.
pub(super) fn expand_frames(input: &[u8], limit: usize, room: &mut Room<'_>) -> Result<Vec<u8>, DecompressError> {
    let mut frames = FrameDecoder::new(input);
    let mut out = Vec::new();
    loop {
        grow(&mut out, limit, room)?;
        let left = u64::try_from(out.capacity() - out.len()).unwrap_or(u64::MAX);
        let read = frames.by_ref().take(left).read_to_end(&mut out).map_err(broken)?;
        if out.len() > limit {
            return Err(DecompressError::TooLarge { limit });
        }
        if read == 0 {
            return Ok(give_back(out));
        }
    }
}

fn broken(detail: impl ToString) -> DecompressError {
    DecompressError::broken(NAME, detail)
}

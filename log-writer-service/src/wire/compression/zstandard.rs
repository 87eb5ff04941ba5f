//! Zstandard, with or without a content size.
//!
//! Decoded in one call straight into the output, which then is its own window: a window of any size costs no memory
//! (the streaming decoder of level 21 would take 64 MiB a request). What the output may need is read from the block
//! headers first, since Vector's frames do not tell their size.

use zstd::bulk::Decompressor;

use super::{DecompressError, Room, give_back, take};

const NAME: &str = "zstd";
/// Largest window: 128 MiB, what every level up to 22 keeps to (zstd's own decoder refuses more by default). RFC 9659
/// allows browsers 8 MiB; Vector's level 21 goes to 64 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// No block expands to more (RFC 8878, 3.1.1.2.4).
const BLOCK_BYTES_MAX: usize = 128 * 1024;

/// Expands all frames of `input`.
pub(super) fn expand(input: &[u8], limit: usize, room: &mut Room<'_>) -> Result<Vec<u8>, DecompressError> {
    let bound = expanded_bound(input, limit)?;
    let mut out = Vec::new();
    take(&mut out, bound.min(limit), room)?;
    let written = Decompressor::new()
        .and_then(|mut decoder| decoder.decompress_to_buffer(input, &mut out))
        .map_err(|error| {
            // The bound is true for well-formed frames, so only the limit can be what is too small.
            if bound > limit && error.to_string().contains("Destination buffer is too small") {
                DecompressError::TooLarge { limit }
            } else {
                DecompressError::broken(NAME, error)
            }
        })?;
    out.truncate(written);
    Ok(give_back(out))
}

/// What the frames can expand to at most, by their headers; checks the windows on the way.
fn expanded_bound(input: &[u8], limit: usize) -> Result<usize, DecompressError> {
    let mut bound = 0_usize;
    let mut rest = input;
    while !rest.is_empty() {
        let frame = read_frame(rest)?;
        if let Frame::Data { window_log, .. } = frame
            && window_log > WINDOW_LOG_MAX
        {
            return Err(DecompressError::broken(
                NAME,
                format!(
                    "its window of 2^{window_log} bytes is larger than 2^{WINDOW_LOG_MAX}; compress without `long`"
                ),
            ));
        }
        match frame {
            Frame::Skipped { after } => rest = after,
            Frame::Data {
                after, content, blocks, ..
            } => {
                if content.is_some_and(|bytes| bytes > limit) {
                    return Err(DecompressError::TooLarge { limit });
                }
                bound = bound.saturating_add(content.unwrap_or(blocks));
                rest = after;
            }
        }
    }
    Ok(bound)
}

enum Frame<'a> {
    Skipped {
        after: &'a [u8],
    },
    Data {
        after: &'a [u8],
        window_log: u32,
        content: Option<usize>,
        blocks: usize,
    },
}

/// Reads the header of the first frame and of its blocks (RFC 8878, 3.1.1).
fn read_frame(input: &[u8]) -> Result<Frame<'_>, DecompressError> {
    let mut cursor = Cursor { rest: input };
    match cursor.number(4)? {
        0xfd2f_b528 => {}
        0x184d_2a50..=0x184d_2a5f => {
            let size = cursor.number(4)?;
            cursor.skip(size)?;
            return Ok(Frame::Skipped { after: cursor.rest });
        }
        _ => return Err(DecompressError::broken(NAME, "other bytes follow the compressed data")),
    }
    let descriptor = cursor.number(1)?;
    let single_segment = descriptor & 0x20 != 0;
    let window_log = if single_segment { 0 } else { cursor.window_log()? };
    cursor.skip([0, 1, 2, 4].into_iter().nth(descriptor & 3).unwrap_or(0))?;
    let content = match descriptor >> 6 {
        0 if single_segment => Some(cursor.number(1)?),
        0 => None,
        1 => Some(cursor.number(2)? + 256),
        2 => Some(cursor.number(4)?),
        _ => Some(cursor.number(8)?),
    };
    let mut blocks = 0_usize;
    loop {
        let header = cursor.number(3)?;
        let size = header >> 3;
        // Type 0: as is, 1: one byte repeated, 2: compressed.
        let (stored, expanded) = match (header >> 1) & 3 {
            0 => (size, size),
            1 => (1, size),
            _ => (size, BLOCK_BYTES_MAX),
        };
        cursor.skip(stored)?;
        blocks = blocks.saturating_add(expanded);
        if header & 1 == 1 {
            break;
        }
    }
    if descriptor & 4 != 0 {
        cursor.skip(4)?;
    }
    Ok(Frame::Data {
        after: cursor.rest,
        window_log,
        content,
        blocks,
    })
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// The next `bytes` (at most 8) bytes as a little-endian number.
    fn number(&mut self, bytes: usize) -> Result<usize, DecompressError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(taken
            .iter()
            .rev()
            .fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), DecompressError> {
        self.rest = self.rest.get(bytes..).ok_or_else(cut_short)?;
        Ok(())
    }

    /// The window in bits, rounded up.
    fn window_log(&mut self) -> Result<u32, DecompressError> {
        let descriptor = u32::try_from(self.number(1)?).unwrap_or(u32::MAX);
        let (exponent, mantissa) = (descriptor >> 3, descriptor & 7);
        Ok(10 + exponent + u32::from(mantissa > 0))
    }
}

fn cut_short() -> DecompressError {
    DecompressError::broken(NAME, "it ends too early")
}

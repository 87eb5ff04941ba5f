//! JSON values one after another, and the elements of an array, with the broken ones told apart.
//!
//! Where an error leaves a value whose end shows by quotes and brackets, that value alone is bad. Where not, a stream
//! goes on at the next line that begins like a value (or after the next NUL); an array has no such place, so the rest
//! of it is one bad piece. Each byte is looked at a bounded number of times, whatever the body.

use super::{
    piece::{BadReason, Enough, Pieces},
    scan::{skip_broken_element, skip_broken_value, skip_scalar, skip_space, skip_value},
    text::line_end,
};

/// What an array at the top of a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopArray {
    /// A list of events.
    Events,
    /// One event that is an array.
    Event,
}

/// Cuts the values from `at` on, to the end of the body.
pub(super) fn split_stream(pieces: &mut Pieces<'_, '_>, at: usize, top_array: TopArray) -> Result<(), Enough> {
    let text = pieces.body().as_bytes();
    let mut stream = Stream {
        text,
        next_start: 0,
        scalars_until: 0,
        reread_bytes: 0,
    };
    let mut at = skip_separators(text, at);
    while let Some(first) = text.get(at) {
        let end = match (first, top_array) {
            (b'[', TopArray::Events) => split_array(pieces, at + 1)?,
            (b'{', _) => match pieces.read_object(at)? {
                Some(end) => end,
                None => stream.cut_container(pieces, at)?,
            },
            (b'[', _) => stream.cut_container(pieces, at)?,
            _ => stream.cut_scalar(pieces, at)?,
        };
        at = skip_separators(text, skip_delimiter(text, end));
    }
    Ok(())
}

/// Cuts the elements of the array whose opening bracket is just before `at`; returns where it ends.
///
/// Superfluous commas, and missing ones before an object, cost nothing.
pub(super) fn split_array(pieces: &mut Pieces<'_, '_>, mut at: usize) -> Result<usize, Enough> {
    let text = pieces.body().as_bytes();
    loop {
        at = skip_space(text, at);
        let first = match text.get(at) {
            None => return Ok(at),
            Some(b']') => return Ok(at + 1),
            Some(b',') => {
                at += 1;
                continue;
            }
            Some(first) => *first,
        };
        if first == b'{'
            && let Some(end) = pieces.read_object(at)?
        {
            at = end;
            continue;
        }
        let value_end = skip_value(text, at).ok();
        // An object is whole whatever follows; a string may end at a quote within it, a number at a letter.
        let is_whole =
            |end: &usize| first == b'{' || matches!(text.get(skip_space(text, *end)), None | Some(b',' | b']' | b'{'));
        if let Some(end) = value_end.filter(is_whole) {
            pieces.push_value(at, end)?;
            at = end;
        } else if let Some(end) = skip_broken_element(text, at) {
            let reason = if begins_value(first) {
                BadReason::MalformedJson
            } else {
                BadReason::NotJson
            };
            pieces.push_bad(at, end, reason)?;
            at = end;
        } else {
            if let Some(end) = value_end {
                pieces.push_value(at, end)?;
                at = skip_space(text, end);
            }
            pieces.push_bad(at, text.len(), BadReason::RestAfterError)?;
            return Ok(text.len());
        }
    }
}

struct Stream<'a> {
    text: &'a [u8],
    /// The last answer of `next_start`, to find it only once.
    next_start: usize,
    /// Up to here the scalars of a line are known to be good.
    scalars_until: usize,
    /// Bytes read beyond a place where reading began again.
    reread_bytes: usize,
}

impl Stream<'_> {
    /// An object or array; returns where to go on.
    fn cut_container(&mut self, pieces: &mut Pieces<'_, '_>, at: usize) -> Result<usize, Enough> {
        /// Times the body that may be read in vain before values may no longer reach over the next start.
        const REREADS_MAX: usize = 4;
        let is_bounded = self.reread_bytes / REREADS_MAX > self.text.len();
        let reach = if is_bounded {
            self.next_start(at + 1)
        } else {
            self.text.len()
        };
        let error = match skip_value(self.text.get(..reach).unwrap_or_default(), at) {
            Ok(end) => {
                pieces.push_value(at, end)?;
                return Ok(end);
            }
            Err(error) => error,
        };
        let next = self.next_start(at + 1);
        self.reread_bytes += error.at.saturating_sub(next);
        let until_next = self.text.get(..next).unwrap_or_default();
        if let Some(end) = skip_broken_value(until_next, at) {
            pieces.push_bad(at, end, BadReason::MalformedJson)?;
            return Ok(end);
        }
        let is_last = next == self.text.len();
        let reason = if is_last {
            BadReason::RestAfterError
        } else {
            BadReason::MalformedJson
        };
        pieces.push_bad(at, next, reason)?;
        Ok(next)
    }

    /// A string, number or literal; a line that does not consist of such is one bad piece, since it is text.
    fn cut_scalar(&mut self, pieces: &mut Pieces<'_, '_>, at: usize) -> Result<usize, Enough> {
        if at >= self.scalars_until {
            let line_end = line_end(self.text, at);
            match self.skip_scalars(at, line_end) {
                Some(until) => self.scalars_until = until,
                None => {
                    pieces.push_bad(at, line_end, BadReason::NotJson)?;
                    return Ok(line_end);
                }
            }
        }
        let Ok(end) = skip_scalar(self.text, at) else {
            // Not reached: the line was read before. Taken as text all the same, so that nothing is passed over.
            let line_end = line_end(self.text, at);
            pieces.push_bad(at, line_end, BadReason::NotJson)?;
            return Ok(line_end);
        };
        pieces.push_value(at, end)?;
        Ok(end)
    }

    /// The end of the scalars from `at` on: the end of their line, or the first object or array.
    fn skip_scalars(&self, mut at: usize, line_end: usize) -> Option<usize> {
        let line = self.text.get(..line_end)?;
        loop {
            let is_string = line.get(at) == Some(&b'"');
            let end = skip_scalar(line, at).ok()?;
            at = skip_separators(line, skip_delimiter(line, end));
            match line.get(at) {
                None | Some(b'{' | b'[') => return Some(at),
                // `2024-01-02` is no number followed by others.
                Some(next) if at == end && !is_string && *next != b'"' => return None,
                Some(_) => {}
            }
        }
    }

    /// The first place from `from` on where a value can begin after an error, or the end of the text.
    fn next_start(&mut self, from: usize) -> usize {
        if self.next_start >= from {
            return self.next_start;
        }
        let mut at = from;
        loop {
            let end = line_end(self.text, at);
            at = end + 1;
            match (self.text.get(end), self.text.get(at)) {
                (None, _) => {
                    self.next_start = self.text.len();
                    break;
                }
                // Not after white space: there the inner lines of pretty-printed values begin.
                (Some(b'\n'), Some(b'{' | b'[' | b'"' | 0x1e)) | (Some(0 | 0x1e), _) => {
                    self.next_start = at;
                    break;
                }
                _ => {}
            }
        }
        self.next_start
    }
}

/// Skips what may stand between the values of a stream: white space and other control characters, `,` and `;`.
pub(super) fn skip_separators(text: &[u8], mut at: usize) -> usize {
    while let Some(0..=b' ' | b',' | b';') = text.get(at) {
        at += 1;
    }
    at
}

/// Skips one other character that `character_delimited` may have put straight after an object, array or string.
///
/// Not after a number: `2024/01/02` is text.
fn skip_delimiter(text: &[u8], at: usize) -> usize {
    let is_delimited = matches!(text.get(at.wrapping_sub(1)), Some(b'}' | b']' | b'"'));
    match text.get(at) {
        Some(b'{' | b'}' | b'[' | b']' | b'"' | b'-') => at,
        Some(byte) if is_delimited && byte.is_ascii_punctuation() => {
            let next = text.get(skip_separators(text, at + 1));
            if next.is_none_or(|next| begins_value(*next)) {
                at + 1
            } else {
                at
            }
        }
        _ => at,
    }
}

/// Whether a JSON value can begin with `byte`.
pub(super) fn begins_value(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

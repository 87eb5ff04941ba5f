//! Lines of text, one event each: codecs `text`, `raw_message`, `logfmt`, `csv`, `cef`, `syslog`.

use memchr::memchr_iter;

use super::piece::{Enough, Pieces};

/// Cuts the body into lines; empty ones are no events, and one `\r` before the end of a line belongs to it.
///
/// A body that ends in NUL is cut at NUL instead (`character_delimited`), and its line ends are text.
pub(super) fn split_lines(pieces: &mut Pieces<'_, '_>) -> Result<(), Enough> {
    let text = pieces.body().as_bytes();
    let delimiter = if text.last() == Some(&0) { 0 } else { b'\n' };
    let mut from = 0;
    for end in memchr_iter(delimiter, text).chain([text.len()]) {
        let carriage_return = usize::from(delimiter == b'\n' && end > from && text.get(end - 1) == Some(&b'\r'));
        if from < end - carriage_return {
            pieces.push_text(from, end - carriage_return)?;
        }
        from = end + 1;
    }
    Ok(())
}

/// The end of the line that `at` is in; NUL and the record separator of `json-seq` end one too.
pub(super) fn line_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    memchr::memchr3(b'\n', 0, 0x1e, rest).map_or(text.len(), |found| at + found)
}

//! Finds the end of a JSON value, without recursion and without building anything.
//!
//! Two ways: [`skip_value`] accepts exactly RFC 8259 and is the fast path; [`skip_broken_element`] looks only at
//! quotes and brackets, to find where a broken array element ends so that its neighbours survive it.

use crate::event::plain_run;

/// The value at the given place is not valid JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Where reading stopped, in bytes; the length of the text if it ended too early.
    pub(super) at: usize,
}

/// Skips the white space of JSON.
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// The end of the JSON value that begins at `at` (no white space before it).
pub(super) fn skip_value(text: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    let mut open = Open::default();
    loop {
        at = match text.get(at) {
            Some(b'{') => {
                at = skip_space(text, at + 1);
                if text.get(at) == Some(&b'}') {
                    at + 1
                } else {
                    open.push(Bracket::Object);
                    at = skip_name(text, at)?;
                    continue;
                }
            }
            Some(b'[') => {
                at = skip_space(text, at + 1);
                if text.get(at) == Some(&b']') {
                    at + 1
                } else {
                    open.push(Bracket::Array);
                    continue;
                }
            }
            Some(_) => skip_scalar(text, at)?,
            None => return Err(SyntaxError { at }),
        };
        // A value has ended: close what ends with it, until another value must follow.
        loop {
            let Some(bracket) = open.last() else {
                return Ok(at);
            };
            at = skip_space(text, at);
            match (text.get(at), bracket) {
                (Some(b','), Bracket::Array) => {
                    at = skip_space(text, at + 1);
                    break;
                }
                (Some(b','), Bracket::Object) => {
                    at = skip_name(text, skip_space(text, at + 1))?;
                    break;
                }
                (Some(b'}'), Bracket::Object) | (Some(b']'), Bracket::Array) => {
                    open.pop();
                    at += 1;
                }
                _ => return Err(SyntaxError { at }),
            }
        }
    }
}

/// From a member's name to where its value begins.
pub(super) fn skip_name(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    if text.get(at) != Some(&b'"') {
        return Err(SyntaxError { at });
    }
    let at = skip_space(text, skip_string(text, at)?);
    match text.get(at) {
        Some(b':') => Ok(skip_space(text, at + 1)),
        _ => Err(SyntaxError { at }),
    }
}

/// The end of the string, number or literal that begins at `at`.
pub(super) fn skip_scalar(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match text.get(at) {
        Some(b'"') => skip_string(text, at),
        Some(b'-' | b'0'..=b'9') => skip_number(text, at),
        Some(b't') => skip_literal(text, at, b"true"),
        Some(b'f') => skip_literal(text, at, b"false"),
        Some(b'n') => skip_literal(text, at, b"null"),
        _ => Err(SyntaxError { at }),
    }
}

fn skip_literal(text: &[u8], at: usize, literal: &[u8]) -> Result<usize, SyntaxError> {
    let end = at + literal.len();
    match text.get(at..end) {
        Some(found) if found == literal => Ok(end),
        _ => Err(SyntaxError { at }),
    }
}

fn skip_number(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut end = if text.get(at) == Some(&b'-') { at + 1 } else { at };
    end = match text.get(end) {
        Some(b'0') => end + 1,
        _ => skip_digits(text, end)?,
    };
    if text.get(end) == Some(&b'.') {
        end = skip_digits(text, end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        end += 1;
        if let Some(b'+' | b'-') = text.get(end) {
            end += 1;
        }
        end = skip_digits(text, end)?;
    }
    Ok(end)
}

/// At least one digit.
fn skip_digits(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut end = at;
    while let Some(b'0'..=b'9') = text.get(end) {
        end += 1;
    }
    if end == at { Err(SyntaxError { at }) } else { Ok(end) }
}

/// The end of the string whose opening quote is at `at`.
pub(super) fn skip_string(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut at = at + 1;
    loop {
        at += plain_run(text.get(at..).unwrap_or_default());
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = skip_escape(text, at)?,
            _ => return Err(SyntaxError { at }),
        }
    }
}

fn skip_escape(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match text.get(at + 2..at + 6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            _ => Err(SyntaxError { at }),
        },
        _ => Err(SyntaxError { at }),
    }
}

/// Where the array element that begins at `at` ends: at the comma or closing bracket of its array.
///
/// `None` if brackets or quotes do not match up, so that nothing tells.
pub(super) fn skip_broken_element(text: &[u8], at: usize) -> Option<usize> {
    skip_brackets(text, at, |depth, byte| depth == 0 && matches!(byte, b',' | b']'))
}

/// Where the object or array that begins at `at` ends, by its brackets and quotes alone.
pub(super) fn skip_broken_value(text: &[u8], at: usize) -> Option<usize> {
    let last = skip_brackets(text, at, |depth, byte| depth == 1 && matches!(byte, b'}' | b']'))?;
    let matching = match text.get(at) {
        Some(b'{') => b'}',
        Some(b'[') => b']',
        _ => return None,
    };
    (text.get(last) == Some(&matching)).then_some(last + 1)
}

/// The first byte outside strings at which `ends` holds of the depth and the byte.
fn skip_brackets(text: &[u8], mut at: usize, ends: impl Fn(usize, u8) -> bool) -> Option<usize> {
    let mut open = Open::default();
    loop {
        let byte = *text.get(at)?;
        if ends(open.depth, byte) {
            return Some(at);
        }
        match byte {
            b'"' => {
                at = skip_broken_string(text, at)?;
                continue;
            }
            b'{' => open.push(Bracket::Object),
            b'[' => open.push(Bracket::Array),
            b'}' if open.last() == Some(Bracket::Object) => open.pop(),
            b']' if open.last() == Some(Bracket::Array) => open.pop(),
            b'}' | b']' => return None,
            _ => {}
        }
        at += 1;
    }
}

/// The end of a string with any escapes and control characters.
fn skip_broken_string(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += plain_run(text.get(at..).unwrap_or_default());
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

/// The open brackets, one bit each: a body of 100 MiB of `[` takes 12 MiB here and no stack.
#[derive(Debug, Default)]
struct Open {
    depth: usize,
    /// The innermost up to 64.
    top: u64,
    /// Full words of those outside.
    below: Vec<u64>,
}

impl Open {
    fn push(&mut self, bracket: Bracket) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.below.push(self.top);
        }
        self.top = self.top << 1 | u64::from(bracket == Bracket::Object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.top >>= 1;
        self.depth = self.depth.saturating_sub(1);
        if self.depth > 0
            && self.depth.is_multiple_of(64)
            && let Some(word) = self.below.pop()
        {
            self.top = word;
        }
    }

    fn last(&self) -> Option<Bracket> {
        match (self.depth, self.top & 1) {
            (0, _) => None,
            (_, 0) => Some(Bracket::Array),
            _ => Some(Bracket::Object),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::{skip_broken_element, skip_broken_value, skip_space, skip_value};

    /// Whether the whole text is one JSON value.
    fn is_json(text: &str) -> bool {
        let bytes = text.as_bytes();
        skip_value(bytes, skip_space(bytes, 0)).is_ok_and(|end| skip_space(bytes, end) == bytes.len())
    }

    #[test]
    fn brackets_are_remembered_at_every_depth() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 200, 1_000] {
            let nested = format!("{}1{}", "[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert_eq!(skip_value(nested.as_bytes(), 0), Ok(nested.len()));
            let crossed = format!("{}1{}", "[{\"a\":".repeat(depth), "]}".repeat(depth));
            assert!(skip_value(crossed.as_bytes(), 0).is_err());
            let siblings = format!("{}[],{{}},[1,[2]]{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(skip_value(siblings.as_bytes(), 0), Ok(siblings.len()));
        }
    }

    #[test]
    fn a_broken_value_ends_where_its_brackets_do() {
        let text = br#"{"a":nul,"}\"":[}]},{"b""#;
        assert_eq!(skip_broken_value(text, 0), None);
        let text = br#"{"a":nul,"}\"":[{]x[}]},{"b""#;
        assert_eq!(skip_broken_value(text, 0), None);
        let text = br#"{"a":nul,"}\"":[{}]},{"b""#;
        assert_eq!(skip_broken_value(text, 0), Some(20));
        assert_eq!(skip_broken_element(text, 0), Some(20));
        assert_eq!(skip_broken_element(b"nul(a) ]", 0), Some(7));
        assert_eq!(skip_broken_element(b"nul }", 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn json_is_what_serde_json_takes_for_it(
            text in "([\\[\\]{}\",:\\\\ eE.+-]|[0-9]|\\\\[u\"n/x]|\"a\":|\"[a-z\\\\]{0,9}\"|true|null|\t|\n|\u{1}|ü){0,14}",
        ) {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{:?}", text);
        }

        #[test]
        fn a_special_byte_is_found_at_any_place(before in "[ -!#-\\[\\]-~ü\u{7f}]{0,20}", after in "\\PC{0,12}") {
            let text = format!("\"{before}\"{after}");
            prop_assert_eq!(skip_value(text.as_bytes(), 0), Ok(before.len() + 2));
            let broken = format!("\"{before}\n\"");
            prop_assert!(skip_value(broken.as_bytes(), 0).is_err());
        }
    }
}

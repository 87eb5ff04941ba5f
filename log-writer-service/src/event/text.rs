//! Text out of JSON strings and into them, without NUL and lone surrogates, which PostgreSQL refuses.

use std::borrow::Cow;

use super::{
    cursor::{hex_unit, low_surrogate},
    plain::plain_run,
};

/// Most bytes of an indexed column: a btree entry must stay below a third of a page.
pub(super) const INDEXED_BYTES_MAX: usize = 512;

/// Text that may have been changed on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cleaned<'a> {
    pub(super) text: Cow<'a, str>,
    /// A NUL or lone surrogate became U+FFFD.
    pub(super) sanitized: bool,
}

/// Reads what stands between the quotes of a valid JSON string.
pub(super) fn unescape(inner: &str, escaped: bool) -> Cleaned<'_> {
    if !escaped {
        return Cleaned {
            text: Cow::Borrowed(inner),
            sanitized: false,
        };
    }
    let mut out = String::with_capacity(inner.len());
    let mut sanitized = false;
    let mut rest = inner;
    while let Some((plain, tail)) = rest.split_once('\\') {
        out.push_str(plain);
        let (character, used) = escaped_character(tail.as_bytes());
        out.push(character.unwrap_or_else(|| {
            sanitized = true;
            char::REPLACEMENT_CHARACTER
        }));
        rest = tail.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
    Cleaned {
        text: Cow::Owned(out),
        sanitized,
    }
}

/// The character after a backslash (`None` for one that cannot be stored), and how many bytes it took.
fn escaped_character(tail: &[u8]) -> (Option<char>, usize) {
    match tail.first() {
        Some(b'b') => (Some('\u{8}'), 1),
        Some(b'f') => (Some('\u{c}'), 1),
        Some(b'n') => (Some('\n'), 1),
        Some(b'r') => (Some('\r'), 1),
        Some(b't') => (Some('\t'), 1),
        Some(b'u') => match hex_unit(tail.get(1..)) {
            Some(high @ 0xD800..=0xDBFF) => match low_surrogate(tail.get(5..)) {
                Some(low) => (char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 11),
                None => (None, 5),
            },
            Some(unit) => (char::from_u32(unit).filter(|character| *character != '\0'), 5),
            None => (None, 1),
        },
        Some(byte) => (Some(char::from(*byte)), 1),
        None => (None, 0),
    }
}

/// Replaces NUL in plain text.
pub(super) fn without_nul(text: Cow<'_, str>) -> Cleaned<'_> {
    if text.contains('\0') {
        Cleaned {
            text: Cow::Owned(text.replace('\0', "\u{FFFD}")),
            sanitized: true,
        }
    } else {
        Cleaned { text, sanitized: false }
    }
}

/// Cuts at a character's boundary to what an index takes; the second value says whether it did.
pub(super) fn cut_for_index(text: Cow<'_, str>) -> (Cow<'_, str>, bool) {
    if text.len() <= INDEXED_BYTES_MAX {
        return (text, false);
    }
    let end = text.floor_char_boundary(INDEXED_BYTES_MAX);
    let cut = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or_default()),
        // Not truncated in place: the rest of a large text would stay in memory.
        Cow::Owned(text) => Cow::Owned(text.get(..end).unwrap_or_default().to_owned()),
    };
    (cut, true)
}

/// Writes text as a JSON string with its quotes; NUL becomes U+FFFD.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while !rest.is_empty() {
        let (plain, tail) = rest.split_at_checked(plain_run(rest.as_bytes())).unwrap_or((rest, ""));
        out.push_str(plain);
        let mut tail = tail.chars();
        match tail.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\0') => out.push(char::REPLACEMENT_CHARACTER),
            Some(control) => {
                out.push_str("\\u00");
                for digit in [u32::from(control) / 16, u32::from(control) % 16] {
                    out.push(char::from_digit(digit, 16).unwrap_or('0'));
                }
            }
            None => {}
        }
        rest = tail.as_str();
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn between_quotes(json: &str) -> &str {
        json.strip_prefix('"').unwrap().strip_suffix('"').unwrap()
    }

    #[test]
    fn escapes_are_read_and_what_cannot_be_stored_is_replaced() {
        for (inner, text, sanitized) in [
            (r"plain", "plain", false),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t", false),
            (r"\u00e9\ud83d\ude00", "é😀", false),
            (r"a\u0000b", "a\u{FFFD}b", true),
            (r"\ud800", "\u{FFFD}", true),
            (r"\ud800\u0041", "\u{FFFD}A", true),
            (r"\ud800\ud83d\ude00", "\u{FFFD}😀", true),
            (r"\udc00x", "\u{FFFD}x", true),
            (r"\\u0000", "\\u0000", false),
        ] {
            let cleaned = unescape(inner, true);
            assert_eq!((cleaned.text.as_ref(), cleaned.sanitized), (text, sanitized), "{inner}");
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let text = format!("{}é", "x".repeat(INDEXED_BYTES_MAX - 1));
        assert_eq!(
            cut_for_index(Cow::Borrowed(&text)),
            (Cow::Borrowed(text.get(..511).unwrap()), true)
        );
        assert_eq!(cut_for_index(Cow::Borrowed("short")), (Cow::Borrowed("short"), false));
    }

    proptest! {
        #[test]
        fn any_text_but_nul_survives_writing_and_reading(text in any::<String>()) {
            let mut json = String::new();
            write_string(&mut json, &text);
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read, &text.replace('\0', "\u{FFFD}"));
            prop_assert_eq!(unescape(between_quotes(&json), true).text, read);
        }

        #[test]
        fn what_serde_json_writes_is_read_alike(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescape(between_quotes(&json), true).text, text.replace('\0', "\u{FFFD}"));
        }
    }
}

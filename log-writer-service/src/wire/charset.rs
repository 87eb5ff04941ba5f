//! Text in another charset than UTF-8, which is not read: cut as if it were, it would be many broken events.
//!
//! | the body | is other text |
//! | --- | --- |
//! | begins with the byte order mark of UTF-16 or UTF-32 | always |
//! | begins as ASCII characters do in UTF-16 or UTF-32 (RFC 4627, section 3) | always |
//! | is announced in another charset | if it is no UTF-8, or, announced as UTF-16 or UTF-32, has a NUL |
//!
//! An announcement alone counts for nothing: JSON of ASCII characters is the same in nearly all charsets.

/// How much of a body is looked at for the NULs of UTF-16 and UTF-32.
const HEAD_BYTES: usize = 16;

/// Whether the body is text in another charset than UTF-8.
pub(super) fn is_other_text(content_type: Option<&str>, body: &[u8]) -> bool {
    let is_marked = [&[0xff, 0xfe][..], &[0xfe, 0xff], &[0, 0, 0xfe, 0xff]]
        .iter()
        .any(|mark| body.starts_with(mark));
    is_marked || is_wide(body) || is_announced(content_type, body)
}

/// Whether the first characters are ASCII, each with one or three NULs before or after it.
fn is_wide(body: &[u8]) -> bool {
    let head = body.get(..HEAD_BYTES).unwrap_or(body);
    let is_all = |width: usize, at: usize| {
        let units = head.chunks_exact(width);
        let is_character = |unit: &[u8]| {
            let mut bytes = unit.iter().enumerate();
            bytes.all(|(place, byte)| (1..0x80).contains(byte) == (place == at) && *byte < 0x80)
        };
        units.len() >= 2 && units.clone().all(is_character)
    };
    is_all(2, 0) || is_all(2, 1) || is_all(4, 0) || is_all(4, 3)
}

fn is_announced(content_type: Option<&str>, body: &[u8]) -> bool {
    let Some(charset) = content_type.and_then(charset) else {
        return false;
    };
    let is_wide = ["utf-16", "utf16", "utf-32", "utf32", "ucs-", "iso-10646"]
        .iter()
        .any(|name| charset.starts_with(name));
    let is_utf_8 = matches!(&*charset, "utf-8" | "utf8" | "us-ascii" | "ascii");
    !is_utf_8 && (std::str::from_utf8(body).is_err() || is_wide && body.contains(&0))
}

/// The parameter `charset` of a content type, in lower case.
fn charset(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches(['"', '\'']).to_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::is_other_text;

    const JSON: &str = "[{\"message\":\"grün\"}]";

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    fn utf_32(text: &str, bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
        text.chars().flat_map(|character| bytes(character.into())).collect()
    }

    #[test]
    fn wide_text_is_known_by_its_mark_and_without_one() {
        for text in [JSON, "one line\n", "\u{feff}[]", "\u{feff}", "\u{feff}\u{6f22}\u{5b57}"] {
            for body in [
                utf_16(text, u16::to_le_bytes),
                utf_16(text, u16::to_be_bytes),
                utf_32(text, u32::to_le_bytes),
                utf_32(text, u32::to_be_bytes),
            ] {
                for content_type in [None, Some("application/json"), Some("text/plain; charset=utf-8")] {
                    assert!(is_other_text(content_type, &body), "{content_type:?}: {body:?}");
                }
            }
        }
    }

    #[test]
    fn another_charset_counts_where_the_bytes_are_no_utf_8() {
        let latin: Vec<u8> = JSON.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        for (charset, is_other) in [
            ("ISO-8859-1", true),
            ("\"windows-1252\"", true),
            ("utf-8", false),
            ("UTF8", false),
            ("us-ascii", false),
        ] {
            let content_type = format!("application/json; boundary=x; Charset={charset}");
            assert_eq!(is_other_text(Some(&content_type), &latin), is_other, "{charset}");
            assert!(!is_other_text(Some(&content_type), JSON.as_bytes()), "{charset}");
        }
        assert!(
            !is_other_text(Some("application/json"), &latin),
            "replaced, event by event"
        );
        // Without a mark and with no ASCII at its beginning.
        let wide = utf_16("\u{6f22}\u{5b57} [1]", u16::to_le_bytes);
        assert!(is_other_text(Some("text/plain;charset=UTF-16LE"), &wide));
    }

    #[test]
    fn utf_8_is_not_taken_for_anything_else() {
        for body in [
            "",
            "a",
            "ab",
            "a\0b\n",
            "\0\0\0\0",
            "{\"a\":1}\0{\"a\":2}\0",
            "\u{feff}{}",
            "{}",
            "1\0",
        ] {
            for content_type in [None, Some("text/plain"), Some("application/json; charset=utf-8")] {
                assert!(!is_other_text(content_type, body.as_bytes()), "{body:?}");
            }
        }
        assert!(!is_other_text(
            Some("application/json; charset=utf-16"),
            JSON.as_bytes()
        ));
    }
}

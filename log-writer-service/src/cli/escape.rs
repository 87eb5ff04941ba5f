//! Makes what strangers sent safe to look at: nothing in it can move the cursor, change colours or turn text around.

use std::fmt::Write;

use serde::Serialize;

/// Text with everything escaped that is not simply shown, line breaks and tabs too.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        put(&mut out, character);
    }
    out
}

/// Bytes as text: line breaks stay, bytes that are no UTF-8 are `\x..`.
pub(super) fn shown_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\n' {
                out.push('\n');
            } else {
                put(&mut out, character);
            }
        }
        for byte in chunk.invalid() {
            // Writing into a string cannot fail.
            write!(out, "\\x{byte:02x}").ok();
        }
    }
    out
}

/// One line of JSON that is safe on a terminal too.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    let mut out = String::with_capacity(text.len());
    // All that is unsafe stands inside strings, where an escape means the same.
    for character in text.chars() {
        if is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").ok();
            }
        } else {
            out.push(character);
        }
    }
    Ok(out)
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            write!(out, "{byte:02x}").ok();
            out
        })
}

fn put(out: &mut String, character: char) {
    if character == '\\' || is_unsafe(character) {
        out.extend(character.escape_default());
    } else {
        out.push(character);
    }
}

/// Control characters, and those that change the direction or the look of what stands beside them.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let nasty = "\u{1b}[31mred\u{7}\r\u{9b}2J\u{202e}abc\u{2066}\0 \\n ü€";
        let expected = "\\u{1b}[31mred\\u{7}\\r\\u{9b}2J\\u{202e}abc\\u{2066}\\u{0} \\\\n ü€";
        assert_eq!(shown(nasty), expected);
        assert_eq!(shown("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(shown_bytes(nasty.as_bytes()), expected);
        assert_eq!(shown_bytes(b"a\nb\x1f\x8b\xffc"), "a\nb\\u{1f}\\x8b\\xffc");
    }

    #[test]
    fn json_means_the_same_after_escaping() {
        let text = "\u{1b}[31m \u{9b} \u{7f} \u{202e} \u{e0041} \" \\ ü \n";
        let line = json(&text).unwrap();
        assert!(!line.chars().any(is_unsafe), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}

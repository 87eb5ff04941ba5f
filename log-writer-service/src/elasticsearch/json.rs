//! JSON text, written straight into a buffer.

use crate::event::plain_run;

/// Writes a string with its quotes; control characters are escaped, so it never holds a newline.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some((plain, [byte, after @ ..])) = rest.split_at_checked(plain_run(rest)) {
        out.extend_from_slice(plain);
        rest = after;
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.push(hex(other >> 4));
                out.push(hex(other & 0xf));
            }
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes a number, padded with zeros to at least `width` digits.
pub(super) fn push_number(out: &mut Vec<u8>, number: u32, width: u32) {
    let mut divisor = 10_u32.pow(width.clamp(1, 9) - 1);
    while number / divisor > 9 {
        divisor *= 10;
    }
    while divisor > 0 {
        out.push(hex(u8::try_from(number / divisor % 10).unwrap_or_default()));
        divisor /= 10;
    }
}

fn hex(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back_and_is_one_line(text in any::<String>()) {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert!(!out.contains(&b'\n'));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_number_comes_back_padded(number: u32, width in 1_u32..=9) {
            let mut out = Vec::new();
            push_number(&mut out, number, width);
            let expected = format!("{number:0width$}", width = usize::try_from(width).unwrap());
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut out = Vec::new();
        push_string(&mut out, "a\u{1}\u{1f}\u{0}\"\\\n\u{7f}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"a\\u0001\\u001f\\u0000\\\"\\\\\\n\u{7f}\""
        );
    }
}

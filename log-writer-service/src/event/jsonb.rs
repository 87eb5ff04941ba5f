//! JSON text that PostgreSQL's `jsonb` and, later, Elasticsearch accept: valid, no NUL, no lone surrogate, bounded
//! depth, numbers a double can hold.
//!
//! Text without such a hazard, which is nearly all, is copied as it stands.

use super::{
    cursor::Cursor,
    scan::Findings,
    text::{unescape, write_string},
};

/// Appends JSON text (a value, or a member with its name) in a form that can be stored.
///
/// Returns whether a NUL or lone surrogate was replaced. Containers deeper than `depth_max` become strings of their
/// text, as do numbers that a double cannot hold.
pub(super) fn write_json(out: &mut String, text: &str, findings: Findings, depth_max: usize) -> bool {
    if !findings.unsafe_text && !findings.wide_number && findings.depth <= depth_max {
        out.push_str(text);
        return false;
    }
    let mut cursor = Cursor::new(text);
    let mut depth = 0;
    let mut sanitized = false;
    while let Some(byte) = cursor.peek() {
        match byte {
            b'"' => {
                let mut findings = Findings::default();
                let Ok(inner) = cursor.string(&mut findings) else { break };
                if findings.unsafe_text {
                    sanitized = true;
                    write_string(out, &unescape(inner, true).text);
                } else {
                    out.push('"');
                    out.push_str(inner);
                    out.push('"');
                }
            }
            b'{' | b'[' if depth >= depth_max => {
                let Ok(value) = cursor.value() else { break };
                write_string(out, value.text);
            }
            b'-' | b'0'..=b'9' => {
                let Ok(number) = cursor.number(&mut Findings::default()) else {
                    break;
                };
                if can_be_held(number) {
                    out.push_str(number);
                } else {
                    write_string(out, number);
                }
            }
            _ => {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                out.push(char::from(byte));
                cursor.pass();
            }
        }
    }
    sanitized
}

/// Whether a JSON number is within a double's range (1e400 is not), and so within `numeric`'s.
pub(super) fn can_be_held(number: &str) -> bool {
    let mut findings = Findings::default();
    let whole = Cursor::new(number)
        .number(&mut findings)
        .is_ok_and(|read| read.len() == number.len());
    if !whole {
        return false;
    }
    if !findings.wide_number {
        return true;
    }
    // 0 here means rounded to 0, or an exponent that `numeric` refuses even for 0.
    number.len() <= 1000
        && number
            .parse::<f64>()
            .is_ok_and(|value| value.is_finite() && value != 0.0)
}

#[cfg(test)]
mod tests {
    use super::{super::scan::Value, *};

    fn stored(text: &str, depth_max: usize) -> (String, bool) {
        let value = Value::read(text).unwrap();
        let mut out = String::new();
        let sanitized = write_json(&mut out, value.text, value.findings, depth_max);
        serde_json::from_str::<&serde_json::value::RawValue>(&out).unwrap();
        (out, sanitized)
    }

    #[test]
    fn text_without_a_hazard_is_copied_as_it_stands() {
        let text = r#"{ "a" : [1e308, -0.0, 12345678901234567890123456789, "\ud83d\ude00"], "b":null }"#;
        assert_eq!(stored(text, 9), (text.to_owned(), false));
    }

    #[test]
    fn hazards_are_replaced_and_the_rest_is_kept() {
        for (text, expected, sanitized) in [
            (
                r#"{"a":"x\u0000y","b":"\n"}"#,
                "{\"a\":\"x\u{FFFD}y\",\"b\":\"\\n\"}",
                true,
            ),
            (
                r#"{"\ud800":[true,null,"\ud800\ud83d\ude00"]}"#,
                "{\"\u{FFFD}\":[true,null,\"\u{FFFD}😀\"]}",
                true,
            ),
            (
                "[1e400,-1e400,1e-400,1e308,0e999999999]",
                r#"["1e400","-1e400","1e-400",1e308,"0e999999999"]"#,
                false,
            ),
            (r#"[1,[2,[3,"\n"]],{}]"#, r#"[1,[2,"[3,\"\\n\"]"],{}]"#, false),
            (
                r#"{"a":{"b":{"c":"\u0000"}}}"#,
                r#"{"a":{"b":"{\"c\":\"\\u0000\"}"}}"#,
                false,
            ),
        ] {
            assert_eq!(stored(text, 2), (expected.to_owned(), sanitized), "{text}");
        }
    }

    #[test]
    fn a_number_of_a_thousand_digits_is_no_number() {
        assert!(can_be_held(&"9".repeat(300)));
        assert!(!can_be_held(&"9".repeat(400)));
        assert!(!can_be_held(&format!("0.{}1", "0".repeat(20_000))));
        assert!(!can_be_held("1 "));
        assert!(!can_be_held("NaN"));
    }
}

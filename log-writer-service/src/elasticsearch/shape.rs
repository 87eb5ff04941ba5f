//! Free JSON brought into a form that Elasticsearch takes, whatever a sender wrote.
//!
//! Elasticsearch refuses a document for a nesting over the limit of a flattened field, a key that is too long or holds
//! NUL, two members of one name, a number that is too long, and more; all of it was tried on 8.19.2. What PostgreSQL's
//! `jsonb` gives is mostly fine, so one scan decides whether the text can be copied as it is. Else it is rewritten:
//! what is too deep becomes a string of its JSON text, a bad key is changed, no value is dropped.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use super::json;
use crate::event::plain_run;

/// Objects and arrays within each other; the mapping's `depth_limit`.
const DEPTH_MAX: usize = 50;
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 512;
/// Longest number that is sent as one; a double needs 24.
const NUMBER_BYTES_MAX: usize = 40;

/// Members of one object, at all depths; with a million of them a flattened field costs a node its heap.
const MEMBERS_MAX: usize = 10_000;
/// No text shorter than this has more members: `"a":0,` is the shortest one.
const MEMBERS_BYTES_MIN: usize = 6 * MEMBERS_MAX;
/// How much of an object with too many members is sent, as text.
const EXCERPT_BYTES: usize = 8 * 1024;

/// Which keys are fine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Of a flattened field: any of a bounded length without NUL.
    Free,
    /// Of measured numbers, which become names of fields: no part between dots may be empty or blank.
    Names,
}

/// Writes the object for a flattened field.
pub(super) fn push_object(out: &mut Vec<u8>, text: &str) {
    if has_too_many_members(text) {
        let excerpt = text.get(..text.floor_char_boundary(EXCERPT_BYTES)).unwrap_or_default();
        out.extend_from_slice(b"{\"_too_many_members\":");
        json::push_string(out, excerpt);
        out.push(b'}');
    } else if is_plain(text.as_bytes(), Keys::Free) {
        out.extend_from_slice(text.as_bytes());
    } else {
        rewrite(out, text, Keys::Free);
    }
}

/// Writes the object of measured numbers.
pub(super) fn push_metrics(out: &mut Vec<u8>, text: &str) {
    if has_too_many_members(text) {
        out.extend_from_slice(b"{}");
    } else if is_plain(text.as_bytes(), Keys::Names) {
        out.extend_from_slice(text.as_bytes());
    } else {
        rewrite(out, text, Keys::Names);
    }
}

fn has_too_many_members(text: &str) -> bool {
    if text.len() < MEMBERS_BYTES_MIN {
        return false;
    }
    let bytes = text.as_bytes();
    let (mut at, mut members) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b':' => members += 1,
            _ => {}
        }
        at += 1;
    }
    members > MEMBERS_MAX
}

/// Whether the text of a `jsonb` object can be copied: it has no two members of one name by its type, and no white
/// space but blanks.
fn is_plain(text: &[u8], keys: Keys) -> bool {
    if text.first() != Some(&b'{') || text.last() != Some(&b'}') {
        return false;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let (end, is_bare) = pass_string(text, at);
                let string = text.get(at..end).unwrap_or_default();
                if !is_bare && string.iter().any(|&byte| byte < 0x20) {
                    return false;
                }
                let after = text.get(end..).unwrap_or_default();
                let is_key = after.iter().find(|byte| **byte != b' ') == Some(&b':');
                let has_nul = || !is_bare && string.windows(6).any(|six| six == b"\\u0000");
                if is_key && (string.len() > KEY_BYTES_MAX || has_nul()) {
                    return false;
                }
                // One word, which is a name as it stands.
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let name = string.get(1..string.len().saturating_sub(1)).unwrap_or_default();
                if is_key && keys == Keys::Names && (name.is_empty() || !name.iter().all(is_word)) {
                    return false;
                }
                at = end;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(text, at);
                let number = text.get(at..end).unwrap_or_default();
                if number.len() > NUMBER_BYTES_MAX || number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
                    return false;
                }
                at = end;
                continue;
            }
            b',' | b':' | b' ' => {}
            _ => {
                let rest = text.get(at..).unwrap_or_default();
                let words: [&[u8]; 3] = [b"true", b"false", b"null"];
                let Some(word) = words.into_iter().find(|word| rest.starts_with(word)) else {
                    return false;
                };
                at += word.len();
                continue;
            }
        }
        at += 1;
    }
    depth == 0
}

fn rewrite(out: &mut Vec<u8>, text: &str, keys: Keys) {
    // Validates all of it, at any depth, so that the walk below needs no errors.
    let object = serde_json::from_str::<&RawValue>(text)
        .ok()
        .map(RawValue::get)
        .filter(|text| text.starts_with('{'));
    if let Some(object) = object {
        let mut walk = Walk {
            text: object,
            at: 0,
            keys,
        };
        walk.value(out, 0);
    } else if text.trim() == "null" {
        out.extend_from_slice(b"{}");
    } else {
        // An object is expected there, so what is none becomes the value of one member.
        out.extend_from_slice(b"{\"value\":");
        json::push_string(out, text);
        out.push(b'}');
    }
}

/// A walk through valid JSON text.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    keys: Keys,
}

impl Walk<'_> {
    /// Copies one value; `depth` objects and arrays are around it.
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) {
        self.blanks();
        let start = self.at;
        match self.byte() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => {
                self.skip();
                json::push_string(out, self.since(start));
            }
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => {
                self.at = string_end(self.text.as_bytes(), start);
                out.extend_from_slice(self.since(start).as_bytes());
            }
            Some(b'-' | b'0'..=b'9') => {
                self.at = number_end(self.text.as_bytes(), start);
                push_finite(out, self.since(start));
            }
            _ => {
                // true, false, null
                while self.byte().is_some_and(|byte| byte.is_ascii_lowercase()) {
                    self.at += 1;
                }
                out.extend_from_slice(self.since(start).as_bytes());
            }
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) {
        let mut seen = HashSet::new();
        out.push(b'{');
        self.at += 1;
        loop {
            self.blanks();
            match self.byte() {
                Some(b'"') => {}
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                _ => break,
            }
            let start = self.at;
            self.at = string_end(self.text.as_bytes(), start);
            let key = unused(usable(self.since(start), self.keys), &mut seen);
            if seen.len() > 1 {
                out.push(b',');
            }
            json::push_string(out, &key);
            out.push(b':');
            self.blanks();
            self.at += 1;
            self.value(out, depth + 1);
        }
        self.at += 1;
        out.push(b'}');
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) {
        out.push(b'[');
        self.at += 1;
        loop {
            self.blanks();
            match self.byte() {
                None | Some(b']') => break,
                Some(b',') => {
                    out.push(b',');
                    self.at += 1;
                }
                Some(_) => self.value(out, depth + 1),
            }
        }
        self.at += 1;
        out.push(b']');
    }

    /// Goes past an object or array of any depth.
    fn skip(&mut self) {
        let mut open = 0_usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                b'"' => {
                    self.at = string_end(self.text.as_bytes(), self.at);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                break;
            }
        }
    }

    fn blanks(&mut self) {
        while self.byte().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn since(&self, start: usize) -> &str {
        self.text.get(start..self.at).unwrap_or_default()
    }
}

/// Where the string that begins at `start` ends, past its quote.
fn string_end(text: &[u8], start: usize) -> usize {
    let (end, _) = pass_string(text, start);
    end
}

/// The same, and whether there is neither a backslash nor a control character in it.
fn pass_string(text: &[u8], start: usize) -> (usize, bool) {
    let mut at = start + 1;
    let mut is_bare = true;
    while let Some(rest) = text.get(at..) {
        at += plain_run(rest);
        match text.get(at) {
            Some(b'"') => return (at + 1, is_bare),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => break,
        }
        is_bare = false;
    }
    (text.len(), is_bare)
}

fn number_end(text: &[u8], start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    start + rest.iter().take_while(|byte| is_part(byte)).count()
}

/// A number as it is, or as a string if it is no double.
fn push_finite(out: &mut Vec<u8>, number: &str) {
    if number.len() <= NUMBER_BYTES_MAX && number.parse::<f64>().is_ok_and(f64::is_finite) {
        out.extend_from_slice(number.as_bytes());
    } else {
        json::push_string(out, number);
    }
}

/// A key that Elasticsearch takes.
fn usable(quoted: &str, keys: Keys) -> String {
    // A lone surrogate cannot be read: its escape is kept as text.
    let raw = || Cow::Borrowed(quoted.trim_matches('"'));
    let mut key = serde_json::from_str::<String>(quoted)
        .map_or_else(|_| raw(), Cow::Owned)
        .into_owned();
    if key.contains('\0') {
        key = key.replace('\0', "\u{fffd}");
    }
    if keys == Keys::Names {
        key = key
            .split('.')
            .map(|part| if part.trim().is_empty() { "_" } else { part })
            .collect::<Vec<_>>()
            .join(".");
    }
    if key.len() > KEY_BYTES_MAX {
        // Two long keys may differ only at the end.
        let digest = blake3::hash(key.as_bytes()).to_hex();
        key.truncate(key.floor_char_boundary(KEY_BYTES_MAX - 17));
        key.push('~');
        key.push_str(digest.get(..16).unwrap_or_default());
    }
    key
}

/// The key, or the key with a number if the object has one of that name.
fn unused(key: String, seen: &mut HashSet<String>) -> String {
    let mut name = key.clone();
    let mut number = 2_usize;
    while !seen.insert(name.clone()) {
        name = format!("{key}~{number}");
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn shaped(text: &str) -> String {
        let mut out = Vec::new();
        push_object(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn metrics(text: &str) -> String {
        let mut out = Vec::new();
        push_metrics(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn nested(levels: usize) -> String {
        format!("{}1{}", "{\"k\": ".repeat(levels), "}".repeat(levels))
    }

    fn depth_of(value: &Value) -> usize {
        match value {
            Value::Object(members) => 1 + members.values().map(depth_of).max().unwrap_or(0),
            Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    #[test]
    fn what_jsonb_gives_is_copied_byte_for_byte() {
        for text in [
            "{}",
            r#"{"a": 1, "b": [1, 2.50, -3], "c": {"d": null, "e": true}, "f\"g": "x\\\"y{[", "": "v"}"#,
            &nested(50),
        ] {
            assert!(is_plain(text.as_bytes(), Keys::Free), "{text}");
            assert_eq!(shaped(text), text);
        }
    }

    #[test]
    fn what_is_too_deep_becomes_a_string_of_its_text() {
        let value: Value = serde_json::from_str(&shaped(&nested(1100))).unwrap();
        assert_eq!(depth_of(&value), DEPTH_MAX);
        assert!(shaped(&nested(51)).contains(r#""{\"k\": 1}""#));
        let arrays = format!("{{\"a\": {}{}}}", "[".repeat(300), "]".repeat(300));
        assert_eq!(depth_of(&serde_json::from_str(&shaped(&arrays)).unwrap()), DEPTH_MAX);
    }

    #[test]
    fn long_keys_and_keys_with_nul_are_changed_and_stay_apart() {
        let long = "x".repeat(40_000);
        let text = format!(r#"{{"{long}a" : 1, "{long}b": 2, "n\u0000": 3}}"#);
        let value: Value = serde_json::from_str(&shaped(&text)).unwrap();
        let members = value.as_object().unwrap();
        assert_eq!(members.len(), 3);
        assert!(
            members
                .keys()
                .all(|key| key.len() <= KEY_BYTES_MAX && !key.contains('\0'))
        );
        assert_eq!(value["n\u{fffd}"], 3);
    }

    #[test]
    fn members_of_one_name_are_told_apart() {
        // A tab, so that the text is not taken for jsonb's.
        assert_eq!(
            shaped("{\t\"a\":1,\"a\":2,\"a\":{\"b\":1,\"b\":1}}"),
            r#"{"a":1,"a~2":2,"a~3":{"b":1,"b~2":1}}"#
        );
    }

    #[test]
    fn numbers_that_are_no_doubles_become_strings() {
        let digits = "9".repeat(400);
        assert_eq!(
            shaped(&format!("{{\"a\": {digits}}}")),
            format!("{{\"a\":\"{digits}\"}}")
        );
        assert_eq!(
            shaped(r#"{"a": 1e400, "b": 1e3, "c": -0.5}"#),
            r#"{"a":"1e400","b":1e3,"c":-0.5}"#
        );
    }

    #[test]
    fn white_space_between_tokens_is_dropped() {
        assert_eq!(shaped("{\n  \"a\": [\n1,\r\n2\t]\n}"), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn what_is_no_object_becomes_a_member_of_one() {
        assert_eq!(shaped("[1, 2]"), r#"{"value":"[1, 2]"}"#);
        assert_eq!(shaped("\"text\""), r#"{"value":"\"text\""}"#);
        assert_eq!(
            shaped("{\"a\": NaN\n}"),
            r#"{"value":"{\"a\": NaN\n}"}"#.replace('\n', "\\n")
        );
        assert_eq!(shaped("{\"a\":NaN}"), r#"{"value":"{\"a\":NaN}"}"#);
        assert_eq!(shaped("null"), "{}");
    }

    #[test]
    fn names_of_measured_numbers_have_no_empty_parts() {
        assert_eq!(
            metrics(r#"{"": 1, ".": 2, "a..b": 3, " ": 4, "db.ms": 5, ".a": {"": 6}}"#),
            r#"{"_":1,"_._":2,"a._.b":3,"_~2":4,"db.ms":5,"_.a":{"_":6}}"#
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[^\0]{0,20}", any_json(), 0..6)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    #[test]
    fn one_bad_byte_in_a_string_is_seen_wherever_it_stands() {
        for (bad, is_fine) in [
            ("\n", false),
            ("\\\n", false),
            ("\\n", true),
            ("\\u0000", true),
            ("x", true),
        ] {
            for before in 0..20 {
                let string = format!("\"{}{bad}{}\"", "x".repeat(before), "y".repeat(20 - before));
                let value = format!("{{\"k\": {string}}}");
                assert_eq!(is_plain(value.as_bytes(), Keys::Free), is_fine, "{value:?}");
                let key = format!("{{{string}: 1}}");
                assert_eq!(
                    is_plain(key.as_bytes(), Keys::Free),
                    is_fine && bad != "\\u0000",
                    "{key:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_value_is_lost_and_it_is_one_line(object in any_object(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let out = shaped(&text);
            prop_assert!(!out.contains('\n'));
            let back: Value = serde_json::from_str(&out).unwrap();
            if !text.contains("\\u0000") {
                prop_assert_eq!(back, serde_json::from_str::<Value>(&text).unwrap());
            }
        }

        #[test]
        fn any_text_becomes_an_object_on_one_line(text in "[\\PC\n{}\\[\\]\",:0-9eE.+-]{0,60}") {
            for out in [shaped(&text), metrics(&text)] {
                prop_assert!(!out.contains('\n'));
                if !is_plain(text.as_bytes(), Keys::Free) {
                    prop_assert!(serde_json::from_str::<Value>(&out).unwrap().is_object());
                }
            }
        }
    }

    #[test]
    fn an_object_with_too_many_members_is_sent_as_an_excerpt() {
        let object = |members: usize| {
            let all: Vec<String> = (0..members)
                .map(|number| format!("\"k{number:06}\": {number}"))
                .collect();
            format!("{{{}}}", all.join(", "))
        };
        let shaped = |text: &str| {
            let mut out = Vec::new();
            push_object(&mut out, text);
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        let most = shaped(&object(MEMBERS_MAX));
        assert_eq!(most.as_object().unwrap().len(), MEMBERS_MAX);
        let text = object(MEMBERS_MAX + 1);
        let excerpt = shaped(&text);
        assert_eq!(excerpt["_too_many_members"].as_str(), text.get(..EXCERPT_BYTES));
        let long_text = format!("{{\"a\": \"{}\"}}", ":".repeat(MEMBERS_BYTES_MIN));
        assert_eq!(shaped(&long_text)["a"].as_str().unwrap().len(), MEMBERS_BYTES_MIN);
    }
}

//! Columns that hold more than one value: tags, and objects of which a column takes all or a part.

use std::borrow::Cow;

use super::{
    jsonb::{can_be_held, write_json},
    scan::{Broken, Elements, Kind, Members, Value},
    text::{unescape, write_string},
};

/// Tags and whether a NUL or lone surrogate was replaced in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadTags<'a> {
    pub(super) tags: Vec<Cow<'a, str>>,
    pub(super) sanitized: bool,
}

/// Reads an array of scalars, text with commas, or an object of scalars (each `name:value`).
///
/// `None` for everything else, such as an array with an object in it: that stays in `fields`.
pub(super) fn read_tags<'a>(value: &Value<'a>) -> Option<ReadTags<'a>> {
    let mut read = ReadTags::default();
    match value.kind {
        Kind::String => {
            let cleaned = unescape(value.inner()?, value.findings.escaped);
            read.sanitized = cleaned.sanitized;
            match cleaned.text {
                Cow::Borrowed(text) => read.tags.extend(split_tags(text).map(Cow::Borrowed)),
                Cow::Owned(text) => read
                    .tags
                    .extend(split_tags(&text).map(|tag| Cow::Owned(tag.to_owned()))),
            }
        }
        Kind::Array if value.findings.depth == 1 => {
            let mut elements = Elements::of(value.text).ok()?;
            while let Some(element) = elements.next().ok()? {
                if let Some(tag) = read_scalar(&element, &mut read.sanitized) {
                    read.tags.push(tag);
                }
            }
        }
        Kind::Object if value.findings.depth == 1 => {
            let mut members = Members::of(value.text).ok()?;
            while let Some(member) = members.next().ok()? {
                let name = unescape(member.key, member.key_escaped);
                read.sanitized |= name.sanitized;
                let tag = read_scalar(&member.value, &mut read.sanitized).unwrap_or_default();
                read.tags.push(Cow::Owned(format!("{}:{tag}", name.text)));
            }
        }
        Kind::Null | Kind::Bool | Kind::Number | Kind::Array | Kind::Object => {}
    }
    (!read.tags.is_empty()).then_some(read)
}

fn split_tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

/// A scalar as text; `None` for null.
fn read_scalar<'a>(value: &Value<'a>, sanitized: &mut bool) -> Option<Cow<'a, str>> {
    match value.kind {
        Kind::Null => None,
        Kind::String => {
            let cleaned = unescape(value.inner()?, value.findings.escaped);
            *sanitized |= cleaned.sanitized;
            Some(cleaned.text)
        }
        Kind::Bool | Kind::Number | Kind::Array | Kind::Object => Some(Cow::Borrowed(value.text)),
    }
}

/// An object cut in two: members that are numbers or read as numbers, and the others. Either may be empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SplitMetrics {
    pub(super) numbers: String,
    pub(super) others: String,
    /// A NUL or lone surrogate was replaced.
    pub(super) sanitized: bool,
}

/// Cuts an object of measurements; numbers that a double cannot hold are no numbers.
pub(super) fn split_metrics(object: &str, depth_max: usize) -> Result<SplitMetrics, Broken> {
    let mut split = SplitMetrics::default();
    let mut members = Members::of(object)?;
    while let Some(member) = members.next()? {
        let number = as_number(&member.value);
        let out = if number.is_some() {
            &mut split.numbers
        } else {
            &mut split.others
        };
        if out.is_empty() {
            out.reserve(object.len());
        }
        out.push(if out.is_empty() { '{' } else { ',' });
        let Some(number) = number else {
            split.sanitized |= write_json(out, member.whole, member.findings, depth_max);
            continue;
        };
        let name = unescape(member.key, member.key_escaped);
        split.sanitized |= name.sanitized;
        write_string(out, &name.text);
        out.push(':');
        out.push_str(number);
    }
    for out in [&mut split.numbers, &mut split.others] {
        if !out.is_empty() {
            out.push('}');
        }
    }
    Ok(split)
}

/// Whether any member of an object reads as a number.
pub(super) fn has_number(object: &str) -> bool {
    let Ok(mut members) = Members::of(object) else {
        return false;
    };
    while let Ok(Some(member)) = members.next() {
        if as_number(&member.value).is_some() {
            return true;
        }
    }
    false
}

/// The JSON number that a value is or holds as text.
fn as_number<'a>(value: &Value<'a>) -> Option<&'a str> {
    let number = match value.kind {
        Kind::Number if !value.findings.wide_number => return Some(value.text),
        Kind::Number => value.text,
        Kind::String => value.inner()?.trim_ascii(),
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => return None,
    };
    can_be_held(number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(json: &str) -> Option<Vec<String>> {
        read_tags(&Value::read(json).unwrap()).map(|read| read.tags.into_iter().map(Cow::into_owned).collect())
    }

    #[test]
    fn tags_come_as_array_text_or_object() {
        for (json, expected) in [
            (r#"["web","a\nb",7,true,null]"#, Some(vec!["web", "a\nb", "7", "true"])),
            (r#""env:prod, web,,""#, Some(vec!["env:prod", "web"])),
            (r#""a\u002cb""#, Some(vec!["a", "b"])),
            (r#"{"env":"prod","n":1,"x":null}"#, Some(vec!["env:prod", "n:1", "x:"])),
            ("[]", None),
            (r#""""#, None),
            ("[null]", None),
            (r#"["a",{"b":1}]"#, None),
            (r#"{"a":["b"]}"#, None),
            ("7", None),
        ] {
            assert_eq!(
                tags(json),
                expected.map(|tags| tags.into_iter().map(str::to_owned).collect()),
                "{json}"
            );
        }
    }

    #[test]
    fn numbers_are_told_from_what_only_looks_like_them() {
        let split = split_metrics(
            r#"{"a":1,"b":"12.5","c":" -3e2 ","d":"fast","e":{"f":1},"g":true,"h":null,"i":1e400,"j":"NaN","k":"0x1","l":"007","m":""}"#,
            50,
        )
        .unwrap();
        assert_eq!(split.numbers, r#"{"a":1,"b":12.5,"c":-3e2}"#);
        assert_eq!(
            split.others,
            r#"{"d":"fast","e":{"f":1},"g":true,"h":null,"i":"1e400","j":"NaN","k":"0x1","l":"007","m":""}"#
        );
    }
}

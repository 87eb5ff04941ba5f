//! Members of `fields` that get a typed field of their own, so that they can be sorted, ranged and aggregated.
//!
//! They stay in `fields` too. A value that the type cannot hold is left out here: an object in a typed field would
//! refuse the document.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use memchr::{memchr, memmem::Finder};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{error::SearchError, json};

/// Promoted in every installation, as keywords.
const BUILT_IN: [&str; 3] = ["error_code", "request_id", "environment"];

/// Names that the document's own struct writes.
const RESERVED: [&str; 17] = [
    "@timestamp",
    "event",
    "level",
    "service",
    "host",
    "message",
    "correlation_id",
    "user_id",
    "trace_id",
    "span_id",
    "tenant",
    "tags",
    "fields",
    "error_details",
    "performance_metrics",
    "ai_analysis",
    "data_stream",
];

/// Type of a promoted field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    Keyword,
    Long,
    Double,
    Boolean,
    Ip,
}

/// The promoted fields, by name.
#[derive(Debug, Clone)]
pub(super) struct Promoted {
    fields: Vec<Field>,
    /// The names that a member must have to matter, in their quotes.
    quoted: Vec<Finder<'static>>,
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    /// What comes before the first dot, and after it.
    path: Option<(String, String)>,
    field_type: FieldType,
}

impl FieldType {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "keyword" => Self::Keyword,
            "long" => Self::Long,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "ip" => Self::Ip,
            _ => return None,
        })
    }

    /// The type's name in a mapping.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Ip => "ip",
        }
    }
}

impl Promoted {
    /// The built-in ones and those of the configuration, which may give a built-in one another type.
    pub(super) fn new(configured: &BTreeMap<String, String>) -> Result<Self, SearchError> {
        let mut types: BTreeMap<&str, FieldType> = BUILT_IN.iter().map(|name| (*name, FieldType::Keyword)).collect();
        for (name, type_name) in configured {
            let refuse = |why: &str| SearchError::Settings(format!("elasticsearch.promote: `{name}` {why}"));
            let Some(field_type) = FieldType::parse(type_name) else {
                return Err(refuse("is one of keyword, long, double, boolean, ip"));
            };
            let first = name.split('.').next().unwrap_or_default();
            if RESERVED.contains(&first) || name.starts_with('_') {
                return Err(refuse("is a field that documents have already"));
            }
            if name.split('.').any(|part| part.trim().is_empty()) || name.len() > 256 {
                return Err(refuse("cannot be the name of a field"));
            }
            types.insert(name, field_type);
        }
        for name in types.keys() {
            let below = format!("{name}.");
            if let Some(other) = types.keys().find(|other| other.starts_with(&below)) {
                let message = format!("elasticsearch.promote: `{name}` cannot be a value and hold `{other}`");
                return Err(SearchError::Settings(message));
            }
        }
        let whole = types.keys().copied();
        let first = types.keys().filter_map(|name| Some(name.split_once('.')?.0));
        let keys: BTreeSet<&str> = whole.chain(first).collect();
        let quoted = keys
            .into_iter()
            .map(|key| Finder::new(&format!("\"{key}\"")).into_owned())
            .collect();
        let fields = types.into_iter().map(|(name, field_type)| Field {
            name: name.to_owned(),
            path: name
                .split_once('.')
                .map(|(first, rest)| (first.to_owned(), rest.to_owned())),
            field_type,
        });
        Ok(Self {
            fields: fields.collect(),
            quoted,
        })
    }

    /// Names and types.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, FieldType)> {
        self.fields.iter().map(|field| (field.name.as_str(), field.field_type))
    }

    /// Writes `,"name":value` for each one found in the text of the object `fields`.
    pub(super) fn push(&self, out: &mut Vec<u8>, fields: &str) {
        if !self.may_be_in(fields.as_bytes()) {
            return;
        }
        let mut deserializer = serde_json::Deserializer::from_str(fields);
        let mut found: Vec<Option<&RawValue>> = vec![None; self.fields.len()];
        let collect = Collect {
            promoted: self,
            found: &mut found,
        };
        // Text that is no object has no members to promote.
        if deserializer.deserialize_map(collect).is_err() {
            return;
        }
        for (field, value) in self.fields.iter().zip(found) {
            let Some(value) = value else { continue };
            let length = out.len();
            out.push(b',');
            json::push_string(out, &field.name);
            out.push(b':');
            if !push_value(out, field.field_type, value.get()) {
                out.truncate(length);
            }
        }
    }

    /// Whether the text of an object may have a member of one of the names; most often it is plain that it has none. In
    /// text without a backslash every name stands as it is, and one that JSON would have to escape cannot stand there.
    fn may_be_in(&self, fields: &[u8]) -> bool {
        memchr(b'\\', fields).is_some() || self.quoted.iter().any(|key| key.find(fields).is_some())
    }
}

/// Takes the wanted members and passes over the others.
struct Collect<'p, 'f, 'de> {
    promoted: &'p Promoted,
    found: &'f mut Vec<Option<&'de RawValue>>,
}

impl<'de> Visitor<'de> for Collect<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let whole = |field: &Field| field.name == key;
            let first = |field: &Field| field.path.as_ref().is_some_and(|(first, _)| *first == key);
            if !self.promoted.fields.iter().any(|field| whole(field) || first(field)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<&'de RawValue>()?;
            for (field, found) in self.promoted.fields.iter().zip(self.found.iter_mut()) {
                if whole(field) {
                    *found = Some(value);
                } else if let Some((_, rest)) = field.path.as_ref().filter(|_| first(field)) {
                    *found = found.or_else(|| member(value.get(), rest));
                }
            }
        }
        Ok(())
    }
}

/// The member of an object at a dotted path, whether nested or under a dotted name.
fn member<'a>(object: &'a str, path: &str) -> Option<&'a RawValue> {
    let members: BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue> = serde_json::from_str(object).ok()?;
    if let Some(value) = members.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    member(members.get(first)?.get(), rest)
}

/// Writes a JSON value as the type; `false` if it does not fit.
fn push_value(out: &mut Vec<u8>, field_type: FieldType, value: &str) -> bool {
    let text: Option<String> = value
        .starts_with('"')
        .then(|| serde_json::from_str(value).ok())
        .flatten();
    let plain = text.as_deref().unwrap_or(value).trim();
    match field_type {
        FieldType::Keyword => match text {
            Some(text) => json::push_string(out, &text),
            None if value == "null" || value.starts_with(['{', '[', '"']) => return false,
            None => json::push_string(out, value),
        },
        FieldType::Long => match plain.parse::<i64>() {
            Ok(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Err(_) => return false,
        },
        FieldType::Double => match plain.parse::<f64>() {
            Ok(number) if number.is_finite() => out.extend_from_slice(number.to_string().as_bytes()),
            _ => return false,
        },
        FieldType::Boolean => match plain {
            "true" | "false" => out.extend_from_slice(plain.as_bytes()),
            _ => return false,
        },
        FieldType::Ip => match plain.parse::<IpAddr>() {
            Ok(address) if text.is_some() => json::push_string(out, &address.to_string()),
            _ => return false,
        },
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn promoted(types: &[(&str, &str)]) -> Result<Promoted, SearchError> {
        let configured = types
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()));
        Promoted::new(&configured.collect())
    }

    fn pushed(types: &[(&str, &str)], fields: &str) -> String {
        let mut out = Vec::new();
        promoted(types).unwrap().push(&mut out, fields);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_built_in_ones_are_keywords() {
        let fields =
            r#"{"a": {"error_code": "no"}, "error_code": "PRICE_MISSING", "request_id": 42, "environment": true}"#;
        assert_eq!(
            pushed(&[], fields),
            r#","environment":"true","error_code":"PRICE_MISSING","request_id":"42""#
        );
    }

    #[test]
    fn a_value_that_the_type_cannot_hold_is_left_out() {
        for (kind, taken, left) in [
            ("keyword", r#""a""#, &["{}", "[1]", "null"][..]),
            (
                "long",
                "-7",
                &["1.5", "\"x\"", "{}", "123456789012345678901234567890", "null", "true"],
            ),
            ("double", "1.5", &["\"x\"", "1e400", "\"NaN\"", "\"inf\"", "[]", "null"]),
            ("boolean", "true", &["1", "\"yes\"", "null", "{}"]),
            ("ip", "\"10.0.0.1\"", &["\"10.0.0.999\"", "1", "null", "[\"10.0.0.1\"]"]),
        ] {
            assert_eq!(
                pushed(&[("x", kind)], &format!("{{\"x\": {taken}}}")),
                format!(",\"x\":{taken}")
            );
            for value in left {
                assert_eq!(
                    pushed(&[("x", kind)], &format!("{{\"x\": {value}}}")),
                    "",
                    "{kind} {value}"
                );
            }
        }
    }

    #[test]
    fn text_that_is_a_number_is_one() {
        assert_eq!(pushed(&[("x", "long")], r#"{"x": "42"}"#), r#","x":42"#);
        assert_eq!(pushed(&[("x", "double")], r#"{"x": "1e3"}"#), r#","x":1000"#);
    }

    #[test]
    fn a_dotted_name_is_found_nested_and_dotted() {
        let types = [("http.response.status", "long")];
        for fields in [
            r#"{"http": {"response": {"status": 200}}}"#,
            r#"{"http.response.status": 200}"#,
            r#"{"http": {"response.status": 200}}"#,
        ] {
            assert_eq!(pushed(&types, fields), r#","http.response.status":200"#, "{fields}");
        }
        assert_eq!(pushed(&types, r#"{"http": 1}"#), "");
    }

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let promoted = |name: &str, fields: &str| pushed(&[(name, "long")], fields);
        assert_eq!(promoted("code", r#"{"c\u006fde": 1}"#), r#","code":1"#);
        assert_eq!(promoted("a.b", r#"{"\u0061": {"b": 1}}"#), r#","a.b":1"#);
        assert_eq!(promoted("a.b", r#"{"a": {"\u0062": 1}}"#), r#","a.b":1"#);
        assert_eq!(promoted("a\"b", r#"{"a\"b": 1}"#), r#","a\"b":1"#);
        assert_eq!(promoted("a\\b", r#"{"a\\b": 1}"#), r#","a\\b":1"#);
        assert_eq!(promoted("a\nb", r#"{"a\nb": 1}"#), r#","a\nb":1"#);
        assert_eq!(promoted("größe", r#"{"größe": 1}"#), r#","größe":1"#);
        assert_eq!(promoted("größe", r#"{"gr\u00f6\u00dfe": 1}"#), r#","größe":1"#);
        assert_eq!(
            promoted("code", r#"{"text": "code", "other": {"code": 1}, "codes": 2}"#),
            ""
        );
    }

    proptest! {
        #[test]
        fn what_is_passed_over_at_once_has_nothing_to_promote(
            members in prop::collection::vec((r#"[ab."\\é\x01]{1,3}|a|a\.b|b\.a\.a"#, -1_i64..9, any::<bool>()), 0..5),
            name in r#"[ab"\\é\x01]{1,2}(\.[ab]{1,2}){0,2}"#,
        ) {
            let promoted = promoted(&[(&name, "long")]).unwrap();
            let mut fields = serde_json::Map::new();
            for (key, number, is_nested) in members {
                let (first, rest) = key.split_once('.').unwrap_or((&key, "a"));
                let (key, value) = if is_nested { (first, json!({rest: number})) } else { (&*key, json!(number)) };
                fields.insert(key.to_owned(), value);
            }
            let text = serde_json::Value::Object(fields).to_string();
            let mut found = vec![None; promoted.fields.len()];
            let collect = Collect { promoted: &promoted, found: &mut found };
            serde_json::Deserializer::from_str(&text).deserialize_map(collect).unwrap();
            prop_assert!(promoted.may_be_in(text.as_bytes()) || found.iter().all(Option::is_none), "{text}");
        }
    }

    #[test]
    fn names_that_documents_have_and_names_in_each_other_are_refused() {
        for types in [
            &[("level", "keyword")][..],
            &[("host.name", "keyword")],
            &[("fields.a", "long")],
            &[("_id", "keyword")],
            &[("a..b", "long")],
            &[("a", "text")],
            &[("a", "long"), ("a.b", "long")],
            &[("error_code.x", "long")],
        ] {
            assert!(promoted(types).is_err(), "{types:?}");
        }
        assert!(promoted(&[("error_code", "long"), ("ab", "long"), ("a", "long")]).is_ok());
    }
}

//! What keys there are: read from the embedded default file, so that the file cannot lack one.
//!
//! A line `#key = value` is a key without a default; the value says only of what kind it is.

use std::{collections::BTreeMap, sync::LazyLock};

use toml::Value;

/// The embedded default file.
pub const DEFAULT_FILE: &str = include_str!("../../config.default.toml");

/// How a value given as text (environment, flag) is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Truth,
    List,
    Table,
}

/// One key.
#[derive(Debug)]
pub(super) struct Known {
    /// `section.key`.
    pub(super) key: String,
    pub(super) kind: Kind,
    /// `None` for a key that is optional.
    pub(super) default: Option<Value>,
}

/// Where a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A key; for a table the rest of the path is the name in it.
    Key(&'static str, Kind),
    /// A section, which has no value of its own.
    Section,
    Nowhere,
}

static ALL: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let with_optional: String = DEFAULT_FILE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let mut keys = Vec::new();
    flatten(String::new(), &parse(DEFAULT_FILE), &mut |key, value| {
        keys.push((key, value.clone()));
    });
    let defaults: BTreeMap<String, Value> = keys.into_iter().collect();
    let mut all = Vec::new();
    flatten(String::new(), &parse(&with_optional), &mut |key, value| {
        let default = defaults.get(&key).cloned();
        all.push(Known {
            kind: kind_of(value),
            default,
            key,
        });
    });
    all
});

/// Every key, by name.
pub(super) fn all() -> &'static [Known] {
    &ALL
}

/// The sections' names, in the order in which the default file has them.
pub(super) fn sections() -> Vec<&'static str> {
    DEFAULT_FILE
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
        .collect()
}

/// Keys of one section in the order of the default file.
pub(super) fn keys_of(section: &str) -> Vec<&'static Known> {
    let mut keys: Vec<_> = all()
        .iter()
        .filter(|known| known.key.rsplit_once('.').is_some_and(|(parent, _)| parent == section))
        .collect();
    keys.sort_by_key(|known| position(&known.key));
    keys
}

/// Finds what a path names.
pub(super) fn find(path: &[String]) -> Place {
    let full = path.join(".");
    for known in all() {
        let within =
            known.kind == Kind::Table && full.strip_prefix(&known.key).is_some_and(|rest| rest.starts_with('.'));
        if known.key == full || within {
            return Place::Key(&known.key, known.kind);
        }
    }
    let prefix = format!("{full}.");
    if all().iter().any(|known| known.key.starts_with(&prefix)) {
        Place::Section
    } else {
        Place::Nowhere
    }
}

/// The line of a key or section in a TOML text, counted from 1; the nearest parent's if it stands in an inline table.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut header = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        let found = if let Some(rest) = line.strip_prefix('[') {
            header = bare(rest.split(']').next().unwrap_or_default());
            header == key
        } else if let Some((name, _)) = line.split_once('=') {
            let name = bare(name);
            if header.is_empty() {
                name == key
            } else {
                format!("{header}.{name}") == key
            }
        } else {
            false
        };
        if found {
            return Some(number);
        }
    }
    line_of(text, key.rsplit_once('.')?.0)
}

fn bare(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '"' | '\'' | '[')).collect()
}

fn position(key: &str) -> usize {
    let name = key.rsplit('.').next().unwrap_or(key);
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let mut current = "";
    for (number, line) in DEFAULT_FILE.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            current = header;
        }
        let line = line.strip_prefix('#').unwrap_or(line);
        if current == section && line.split_once(" = ").is_some_and(|(left, _)| left == name) {
            return number;
        }
    }
    usize::MAX
}

fn kind_of(value: &Value) -> Kind {
    match value {
        Value::Integer(_) | Value::Float(_) => Kind::Number,
        Value::Boolean(_) => Kind::Truth,
        Value::Array(_) => Kind::List,
        Value::Table(_) => Kind::Table,
        Value::String(_) | Value::Datetime(_) => Kind::Text,
    }
}

fn flatten(prefix: String, table: &toml::Table, each: &mut impl FnMut(String, &Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value.as_table() {
            Some(inner) if !inner.is_empty() => flatten(key, inner, each),
            Some(_) | None => each(key, value),
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "the text is compiled in, and every test of this module parses it"
)]
fn parse(text: &str) -> toml::Table {
    toml::from_str(text).expect("the embedded default file is TOML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_keys_are_known_and_have_no_default() {
        let password = all()
            .iter()
            .find(|known| known.key == "elasticsearch.password")
            .unwrap();
        assert_eq!((password.kind, &password.default), (Kind::Text, &None));
        let replicas = all()
            .iter()
            .find(|known| known.key == "elasticsearch.replicas")
            .unwrap();
        assert_eq!(
            (replicas.kind, &replicas.default),
            (Kind::Number, &Some(Value::Integer(1)))
        );
    }

    #[test]
    fn every_key_of_the_default_file_has_a_comment_above_it() {
        let lines: Vec<&str> = DEFAULT_FILE.lines().collect();
        let mut keys = 0;
        for (number, line) in lines.iter().enumerate() {
            let line = line.strip_prefix('#').unwrap_or(line);
            if line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" = ") {
                keys += 1;
                assert!(
                    lines[number - 1].starts_with("# "),
                    "no comment above line {}: {line}",
                    number + 1
                );
            }
        }
        assert_eq!(keys, all().len());
    }

    #[test]
    fn a_table_takes_any_name_and_a_section_none() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            find(&path("elasticsearch.promote.order_id")),
            Place::Key("elasticsearch.promote", Kind::Table)
        );
        assert_eq!(
            find(&path("events.aliases.id")),
            Place::Key("events.aliases.id", Kind::List)
        );
        assert_eq!(find(&path("events.aliases")), Place::Section);
        assert_eq!(find(&path("http.listen.port")), Place::Nowhere);
    }

    #[test]
    fn a_key_is_found_in_its_section_and_not_in_another() {
        let text = "[http]\nlisten = 'a'\n[other]\nlisten = 'b'\n[ elasticsearch ]\n  \"urls\"=[]\n";
        assert_eq!(line_of(text, "other.listen"), Some(4));
        assert_eq!(line_of(text, "elasticsearch.urls"), Some(6));
        assert_eq!(line_of(text, "elasticsearch.promote.x"), Some(5));
        assert_eq!(line_of("http = { listen = 'x' }", "http.listen"), Some(1));
        assert_eq!(line_of(text, "absent.key"), None);
    }
}

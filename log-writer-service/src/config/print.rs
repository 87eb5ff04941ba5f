//! Prints the merged configuration as TOML, each value with where it came from, secrets hidden.

use toml::Value;

use super::{
    known::{self, Kind},
    load::Merge,
    secret,
};

/// Width that the comments are aligned to where values are shorter.
const COMMENT_COLUMN: usize = 56;

/// The whole configuration.
pub(super) fn configuration(merge: &Merge) -> String {
    let mut out = String::new();
    for section in known::sections() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("[{section}]\n"));
        for known in known::keys_of(section) {
            let name = known.key.rsplit('.').next().unwrap_or(&known.key);
            let line = if known.kind == Kind::Table {
                table(merge, &known.key, name)
            } else {
                key(merge, &known.key, name)
            };
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

fn key(merge: &Merge, key: &str, name: &str) -> String {
    match merge.winner(key) {
        Some(setting) => commented(
            &format!("{name} = {}", value(&secret::shown(key, &setting.value))),
            &setting.origin.to_string(),
        ),
        None => format!("# {name} is not set"),
    }
}

fn table(merge: &Merge, key: &str, name: &str) -> String {
    let members = merge.members(key);
    let mut origins: Vec<String> = members.iter().map(|setting| setting.origin.to_string()).collect();
    origins.dedup();
    if origins.is_empty() {
        origins.push("default".to_owned());
    }
    let inner = members
        .iter()
        .filter_map(|setting| Some((setting.path.last()?.clone(), setting.value.clone())))
        .collect::<toml::Table>();
    commented(
        &format!("{name} = {}", value(&Value::Table(inner))),
        &origins.join("; "),
    )
}

fn commented(line: &str, comment: &str) -> String {
    let comment: String = comment
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    format!("{line:COMMENT_COLUMN$} # {comment}")
}

/// One value as TOML on one line.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(self::value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let members: Vec<String> = table
                .iter()
                .map(|(name, v)| format!("{} = {}", quoted(name), self::value(v)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_printed_as_toml_that_reads_back() {
        for text in [
            "plain",
            "with \"quotes\" and \\",
            "line\nend\ttab\u{1b}[31m\u{7f}\u{9b}",
            "\u{e4}\u{1f600}",
        ] {
            let line = format!("x = {}", quoted(text));
            assert!(!line.chars().any(char::is_control), "{line:?}");
            let table: toml::Table = toml::from_str(&line).unwrap();
            assert_eq!(table["x"].as_str(), Some(text));
        }
    }
}

//! Holds `docs/CONFIGURATION.md` against the default file: every key, its default, and nothing else.

use std::{collections::BTreeMap, fs, path::Path};

use super::{known, print};

/// Key → the default as the document writes it.
fn documented(text: &str) -> BTreeMap<String, String> {
    let mut section = "";
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("## ") {
            section = header
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .unwrap_or_default();
        }
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let Some(name) = cells[0].strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
            continue;
        };
        assert!(
            !section.is_empty() && line.starts_with("| "),
            "a key outside a section's table: {line}"
        );
        assert!(
            cells.len() == 5 && cells.iter().all(|cell| !cell.is_empty()),
            "not five cells: {line}"
        );
        let before = keys.insert(format!("{section}.{name}"), cells[2].to_owned());
        assert_eq!(before, None, "{section}.{name} stands twice");
    }
    keys
}

#[test]
fn the_document_has_every_key_with_its_default_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    let documented = documented(&fs::read_to_string(path).unwrap());
    let expected: BTreeMap<String, String> = known::all()
        .iter()
        .map(|known| {
            let default = known.default.as_ref().map(|value| format!("`{}`", print::value(value)));
            (known.key.clone(), default.unwrap_or_else(|| "none".to_owned()))
        })
        .collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|(key, default)| documented.get(*key) != Some(*default))
        .collect();
    let surplus: Vec<_> = documented.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "docs/CONFIGURATION.md lacks these keys or has another default:\n{missing:#?}\nand has keys that do not exist: {surplus:?}"
    );
}

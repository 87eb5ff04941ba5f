//! Every row of the table "Hostile input" has its test, and every test of the suite its row.

use std::{collections::BTreeSet, fs, path::Path};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// `module::test` in the last column of each row.
fn named() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/DELIVERY.md")).unwrap();
    let (_, section) = text
        .split_once("\n## Hostile input\n")
        .expect("no section \"Hostile input\"");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let names: Vec<String> = rows
        .map(|row| {
            let column = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
            column.trim().trim_matches('`').to_owned()
        })
        .collect();
    let set: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "a test stands in two rows");
    set
}

/// `module::test` of each test in tests/hostile.
fn written() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for file in fs::read_dir(root().join("tests/hostile")).unwrap() {
        let path = file.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("test]\n").skip(1) {
            let (_, rest) = part.split_once("fn ").unwrap();
            let name = rest.split('(').next().unwrap_or_default();
            tests.insert(format!("{module}::{name}"));
        }
    }
    tests
}

#[test]
fn every_row_of_the_table_has_its_test_and_every_test_its_row() {
    let (named, written) = (named(), written());
    let without_test: Vec<_> = named.difference(&written).collect();
    let without_row: Vec<_> = written.difference(&named).collect();
    assert!(without_test.is_empty(), "rows without a test: {without_test:#?}");
    assert!(without_row.is_empty(), "tests without a row: {without_row:#?}");
    assert!(!written.is_empty());
}

//! Every action that the audit trail may hold stands in the table of `docs/SECURITY.md`, and no other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Names between backticks in the first column; in parentheses stands by what they are done.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let (_, section) = text
        .split_once("\n## Audit trail\n")
        .expect("no section \"Audit trail\"");
    let rows = section.lines().skip_while(|line| !line.starts_with("| action |"));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.flat_map(|row| {
        let column = row.split('|').nth(1).unwrap_or_default();
        let names = column.split('(').next().unwrap_or_default();
        names.split('`').skip(1).step_by(2).map(str::to_owned)
    })
    .collect()
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path, ending)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .collect()
}

/// The first text between these quotes in each call.
fn recorded_in(folder: &str, ending: &str, call: &str, quote: char) -> BTreeSet<String> {
    let mut actions = BTreeSet::new();
    for path in files(&root().join(folder), ending) {
        let text = fs::read_to_string(&path).unwrap();
        let mut before = "";
        for rest in text.split(call) {
            let arguments = rest.split(';').next().unwrap_or_default();
            if !before.is_empty() && !before.ends_with("fn") {
                actions.extend(arguments.split(quote).nth(1).map(str::to_owned));
            }
            before = rest;
        }
    }
    actions
}

#[test]
fn every_action_that_is_recorded_is_documented_and_none_else() {
    let mut recorded = recorded_in("log-writer-service/src", "rs", " record(", '"');
    recorded.extend(recorded_in("log-writer-service/src", "rs", "::record(", '"'));
    recorded.extend(recorded_in("log-writer-service/src", "rs", "::record_in(", '"'));
    recorded.extend(recorded_in(
        "migrations",
        "sql",
        "perform log_writer.record_action(",
        '\'',
    ));
    for known in ["dead-letters purge", "run_sql", "search", "annotate", "grant_tenant"] {
        assert!(
            recorded.contains(known),
            "the calls are written in another way: {recorded:?}"
        );
    }
    assert_eq!(recorded, documented());
}

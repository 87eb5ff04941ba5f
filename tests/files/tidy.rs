//! Rules of the layout that a compiler does not check: who imports whom, how long a file is, which words name nothing.

#![expect(clippy::unwrap_used, reason = "a file that can't be read fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Module → modules of the service that it may import, besides itself and `config`.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("event", &[]),
    ("auth", &[]),
    ("wire", &["event"]),
    ("config", &[]),
    ("timescale", &["event"]),
    ("elasticsearch", &["event"]),
    ("telemetry", &["ingest", "timescale", "elasticsearch", "event"]),
    (
        "ingest",
        &["timescale", "elasticsearch", "wire", "event", "shutdown", "telemetry"],
    ),
    (
        "delivery",
        &["timescale", "elasticsearch", "event", "shutdown", "telemetry"],
    ),
    ("ask", &["timescale", "elasticsearch", "event"]),
    ("verify", &["timescale", "elasticsearch", "event"]),
    ("archive", &["timescale", "elasticsearch", "event"]),
    ("http", &["ask", "auth", "ingest", "timescale", "event", "telemetry"]),
    (
        "cli",
        &[
            "app",
            "archive",
            "ask",
            "auth",
            "ingest",
            "timescale",
            "elasticsearch",
            "event",
            "telemetry",
            "verify",
        ],
    ),
];

/// Crates that the pure modules must not touch.
const IMPURE: [&str; 6] = ["tokio", "sqlx", "axum", "reqwest", "hyper", "tower"];

/// Lines of a file before its tests.
const LINES_MAX: usize = 400;

/// Names that say nothing of what is inside.
const EMPTY_WORDS: [&str; 5] = ["utils", "common", "helpers", "types", "manager"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(below: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "no Rust file below {}", below.display());
    files
}

fn code_before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn imports_go_one_way() {
    let source = root().join("log-writer-service/src");
    let modules: Vec<&str> = MAY_IMPORT
        .iter()
        .map(|(module, _)| *module)
        .chain(["app", "shutdown"])
        .collect();
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        for (path, text) in rust_files(&source.join(module)) {
            let code = code_before_tests(&text);
            for other in modules
                .iter()
                .filter(|other| **other != module && **other != "config" && !allowed.contains(other))
            {
                let direct = format!("crate::{other}::");
                let grouped = code.contains("use crate::{")
                    && code
                        .lines()
                        .any(|line| line.trim_start().starts_with(&format!("{other}::")));
                if code.contains(&direct) || grouped {
                    wrong.push(format!("{} imports {other}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn event_and_wire_are_pure() {
    let source = root().join("log-writer-service/src");
    for module in ["event", "wire"] {
        for (path, text) in rust_files(&source.join(module)) {
            for name in IMPURE {
                assert!(!text.contains(&format!("{name}::")), "{} uses {name}", path.display());
            }
        }
    }
}

#[test]
fn files_are_of_a_size_that_can_be_read() {
    for folder in ["log-writer-service/src", "tests/src"] {
        for (path, text) in rust_files(&root().join(folder)) {
            if path.file_stem().is_some_and(|stem| stem == "tests")
                || path.parent().is_some_and(|folder| folder.ends_with("tests"))
            {
                continue;
            }
            let lines = code_before_tests(&text).lines().count();
            assert!(
                lines <= LINES_MAX,
                "{} has {lines} lines before its tests, more than {LINES_MAX}",
                path.display()
            );
            assert!(
                text.starts_with("//!"),
                "{} does not open with what it does (//!)",
                path.display()
            );
        }
    }
}

#[test]
fn each_migration_has_a_version_of_its_own() {
    let mut versions = BTreeSet::new();
    for entry in fs::read_dir(root().join("migrations")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".sql") else {
            continue;
        };
        let version = stem.split('_').next().unwrap().to_owned();
        assert!(versions.insert(version), "{name}: another migration has this version");
    }
    assert!(versions.len() > 1, "no migrations were found");
}

#[test]
fn names_say_what_is_inside() {
    for folder in ["log-writer-service/src", "tests"] {
        for (path, _) in rust_files(&root().join(folder)) {
            for part in path
                .iter()
                .map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned())
            {
                assert!(
                    !EMPTY_WORDS.contains(&part.as_str()),
                    "{}: `{part}` names nothing",
                    path.display()
                );
            }
        }
    }
}

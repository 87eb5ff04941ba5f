//! The process dies at a failpoint, is started again, and its sender sends again what was not acknowledged.
//!
//! `one_process`: committing, delivering, housekeeping. `replicas`: what needs a second process on the same outbox.
//! `commands`: migration, bootstrap, redrive, repair, archive, restore. Each proves that it died where it should, by SIGABRT, and that afterwards
//! acknowledged = in SQL = in Elasticsearch or a dead letter, each once, nothing open, books balanced.
//!
//! `FAULT_ROUNDS=N` runs the loop of `one_process` N times, the point being passed now more and now less often first.

mod bodies;
mod commands;
mod one_process;
mod replicas;
mod sender;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a failpoint is armed with: passed so many times, then the process dies.
fn dies_at(point: &str, passes: u32) -> String {
    match passes {
        0 => format!("{point}=1*return(abort)"),
        passes => format!("{point}={passes}*off->1*return(abort)"),
    }
}

/// Times that the loop is run.
fn rounds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "the suites are configured by the environment")]
    let rounds = std::env::var("FAULT_ROUNDS");
    rounds.map_or(1, |rounds| rounds.parse().expect("FAULT_ROUNDS is a number"))
}

/// All names in `….rs` below a folder that stand between `before` and a quotation mark.
fn names_below(folder: &Path, before: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(names_below(&path, before));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let after = text.split(before).skip(1);
            names.extend(after.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    names
}

#[test]
fn a_normal_build_has_no_failpoints() {
    #[expect(clippy::disallowed_methods, reason = "the suites are configured by the environment")]
    let has_points = |variable: &str| {
        let binary = std::env::var(variable).expect(variable);
        let bytes = fs::read(binary).expect("a binary");
        let name = b"commit::before_commit";
        bytes.windows(name.len()).any(|bytes| bytes == name)
    };
    assert!(has_points("LOG_WRITER_FAILPOINTS_BINARY"));
    assert!(!has_points("LOG_WRITER_TEST_BINARY"));
}

#[test]
fn every_failpoint_of_the_service_has_a_scenario() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let points = names_below(&here.join("../log-writer-service/src"), "failpoint!(\"");
    assert!(points.len() > 20, "{points:?}");
    let scenarios = here.join("faults/crash_points");
    let without: Vec<&String> = points
        .iter()
        .filter(|point| {
            let armed = format!("\"{point}\"");
            !["one_process.rs", "replicas.rs", "commands.rs"].iter().any(|file| {
                fs::read_to_string(scenarios.join(file))
                    .expect("a source file")
                    .contains(&armed)
            })
        })
        .collect();
    assert!(without.is_empty(), "no scenario dies at {without:?}");
}

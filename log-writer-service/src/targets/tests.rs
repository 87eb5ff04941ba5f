//! The targets on stable: every seed and regression as it is, then bounded numbers of changed and of random inputs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use super::ALL;

/// Changed and random inputs for each target.
const CASES: u32 = 1_500;

/// Where `make fuzz` takes its seeds from, and where it puts what it finds.
fn folders(target: &str) -> [PathBuf; 4] {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    ["fixtures/vector", "fixtures/vector-events", "fixtures/elasticsearch"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("fuzz/corpus/{target}")])
        .map(|folder| tests.join(folder))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(fs::read(&path).unwrap());
        }
    }
}

static RECORDED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut found = Vec::new();
    folders("").iter().take(3).for_each(|folder| files(folder, &mut found));
    assert!(found.len() > 300, "{} recordings", found.len());
    found
});

/// Parts that mean something somewhere.
const WORDS: [&[u8]; 24] = [
    b"{\"log\":{",
    b"{\"message\":\"",
    b"\"timestamp\":",
    b"\"level\":",
    b"\"tags\":[",
    b"\"error\":{",
    b"\"metrics\":{",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"1e400",
    b"-0",
    b"}",
    b"]",
    b"\"",
    b",",
    b"\n",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"\"status\":201",
    b"{\"items\":[",
];

#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Double(Index, u8),
    Insert(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Change::Double(at, length)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, word)| Change::Insert(at, word)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            return bytes;
        }
        match change {
            Change::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Remove(at, length) => {
                let from = at.index(bytes.len());
                let to = bytes.len().min(from + usize::from(*length));
                bytes.drain(from..to);
            }
            Change::Double(at, length) => {
                let from = at.index(bytes.len());
                let part = bytes[from..bytes.len().min(from + usize::from(*length))].to_vec();
                bytes.splice(from..from, part);
            }
            Change::Insert(at, word) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, WORDS[word.index(WORDS.len())].iter().copied());
            }
        }
    }
    bytes
}

fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let text = r#"([\[\]{}:,"\\ua0-9eE.\+\-ntrslogmf \x00\n]|"message"|"level"|"tags"|null){0,60}"#;
    prop_oneof![
        8 => (prop::sample::select(seeds), prop::collection::vec(change(), 1..6))
            .prop_map(|(seed, changes)| changed(seed, &changes)),
        3 => text.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn holds_of(target: &str) {
    let (_, run) = ALL.into_iter().find(|(name, _)| *name == target).unwrap();
    let mut regressions = Vec::new();
    files(&folders(target)[3], &mut regressions);
    let seeds: Vec<Vec<u8>> = RECORDED.iter().cloned().chain(regressions).collect();
    seeds.iter().for_each(|seed| run(seed));
    // Large ones were read once; changed, a few hundred of them would take minutes.
    let small = seeds.into_iter().filter(|seed| seed.len() < 16 * 1024).collect();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&inputs(small), |input| {
        run(&input);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{target}: {failure}"));
}

#[test]
fn every_target_is_fuzzed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/fuzz_targets");
    let fuzzed = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let fuzzed: BTreeSet<String> = fuzzed
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(fuzzed, ALL.map(|(name, _)| name.to_owned()).into());
}

#[test]
fn any_compressed_body_is_read_as_its_formats_own_decoder_reads_it() {
    holds_of("decompress");
}

#[test]
fn any_body_is_cut_without_losing_a_byte() {
    holds_of("split");
}

#[test]
fn any_event_becomes_what_postgresql_takes() {
    holds_of("normalise");
}

#[test]
fn any_event_is_carried_by_copy_unchanged() {
    holds_of("copy");
}

#[test]
fn any_stored_event_becomes_a_document_that_the_mapping_takes() {
    holds_of("document");
}

#[test]
fn any_answer_gives_a_verdict_for_each_document_or_none() {
    holds_of("bulk_answer");
}

#[test]
fn any_two_requests_have_two_digests_and_any_two_rows_two_documents() {
    holds_of("identity");
}

//! `docs/METRICS.md`: every metric of the service, and none that is not there.

use std::{collections::BTreeSet, fs};

use log_writer_tests::vector_programs::repository;

/// Names and kinds as the service describes them.
fn described() -> BTreeSet<(String, String)> {
    let code = fs::read_to_string(repository().join("log-writer-service/src/telemetry/metric.rs")).unwrap();
    code.split("describe_")
        .filter_map(|call| {
            let (kind, rest) = call.split_once("!(")?;
            let name = rest.split('"').nth(1)?;
            ["counter", "gauge", "histogram"]
                .contains(&kind)
                .then(|| (name.to_owned(), kind.to_owned()))
        })
        .collect()
}

#[test]
fn every_metric_is_in_the_document_with_its_kind() {
    let document = fs::read_to_string(repository().join("docs/METRICS.md")).unwrap();
    let documented: BTreeSet<(String, String)> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let name = cells.next()?.strip_suffix('`')?;
            Some((name.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    let described = described();
    assert!(described.len() > 30, "{described:?}");
    assert_eq!(documented, described);
}

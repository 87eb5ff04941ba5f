//! Every recording of a real Vector over HTTP into both stores, compared event by event, then sent again.

use std::collections::BTreeSet;

use log_writer_tests::{
    client::{Receipt, Request},
    expectation::{differences, time_us},
    recordings::{Recorded, cases_with_log_events, events, has_time, requests},
    rows::StoredRow,
};
use serde_json::Value;

use crate::RealStores;

/// One test for each case: they share ids, so each has a database and a data stream of its own.
macro_rules! every_recording_is_stored_once_with_its_fields {
    ($($test:ident: $case:literal,)*) => {
        mod every_recording_is_stored_once_with_its_fields {
            $(
                #[tokio::test]
                async fn $test() {
                    Box::pin(super::stored_once_with_its_fields($case)).await;
                }
            )*
        }

        const TESTED: &[&str] = &[$($case),*];
    };
}

every_recording_is_stored_once_with_its_fields! {
    basic_prefix_suffix: "basic-prefix-suffix",
    healthcheck: "healthcheck",
    json_array: "json-array",
    json_array_gzip: "json-array-gzip",
    json_array_snappy: "json-array-snappy",
    json_array_zstd: "json-array-zstd",
    json_ndjson: "json-ndjson",
    json_ndjson_gzip: "json-ndjson-gzip",
    native_json: "native-json",
    put_bearer_headers: "put-bearer-headers",
    retry_400: "retry-400",
    retry_401: "retry-401",
    retry_404: "retry-404",
    retry_413: "retry-413",
    retry_429: "retry-429",
    retry_500: "retry-500",
    retry_503: "retry-503",
    source_demo_apache_common: "source-demo-apache_common",
    source_demo_apache_error: "source-demo-apache_error",
    source_demo_json: "source-demo-json",
    source_demo_json_vector_namespace: "source-demo-json-vector-namespace",
    source_demo_syslog: "source-demo-syslog",
    source_file: "source-file",
    source_http_server: "source-http-server",
    source_otlp: "source-otlp",
    text: "text",
}

#[test]
fn no_recording_is_left_out() {
    assert_eq!(cases_with_log_events(), TESTED);
}

async fn stored_once_with_its_fields(case: &str) {
    let stores = RealStores::start_with(|settings| settings.any_time()).await;
    let recorded = requests(case);
    let mut seen = BTreeSet::new();
    let mut expected = Vec::new();
    for Recorded { name, request } in &recorded {
        let events = events(request);
        assert!(!events.is_empty(), "{name} carries no events");
        let receipt = stores.service.send(request).await.receipt();
        // Some recordings hold a request twice, as Vector sent it again.
        if seen.insert(request.body.to_vec()) || !events.iter().all(has_time) {
            assert_eq!(receipt, Receipt::all_committed(events.len()), "{name}");
            expected.extend(events);
        } else {
            assert_eq!(receipt, Receipt::all_duplicates(events.len()), "{name}");
        }
    }
    let rows = stores.assert_delivered_exactly_once(expected.len() as u64).await;
    assert_each_event_has_its_row(&expected, rows);

    let again = send_again(&stores, &recorded).await;
    let rows = stores
        .assert_delivered_exactly_once((expected.len() + again) as u64)
        .await;
    assert_eq!(rows.len(), expected.len() + again);
}

/// Sends everything once more, and what has neither time nor id twice with a key; counts what was stored again.
async fn send_again(stores: &RealStores, recorded: &[Recorded]) -> usize {
    let mut stored_again = 0;
    let mut with_key = BTreeSet::new();
    for Recorded { name, request } in recorded {
        let events = events(request);
        let receipt = stores.service.send(request).await.receipt();
        if events.iter().all(has_time) {
            assert_eq!(receipt, Receipt::all_duplicates(events.len()), "{name} sent again");
            continue;
        }
        assert_eq!(receipt, Receipt::all_committed(events.len()), "{name} sent again");
        stored_again += events.len();
        if with_key.insert(request.body.to_vec()) {
            let keyed: Request = request.clone().header("idempotency-key", name);
            let first = stores.service.send(&keyed).await.receipt();
            let second = stores.service.send(&keyed).await.receipt();
            assert_eq!(first, Receipt::all_committed(events.len()), "{name} with a key");
            assert_eq!(
                second,
                Receipt::all_duplicates(events.len()),
                "{name} with the same key"
            );
            stored_again += events.len();
        }
    }
    stored_again
}

/// Pairs events and rows by time and message, and wants each pair to agree.
fn assert_each_event_has_its_row(expected: &[Value], mut rows: Vec<StoredRow>) {
    for event in expected {
        let best = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| time_us(&event["timestamp"]).is_none_or(|time| time == row.timestamp_us))
            .map(|(position, row)| (differences(event, row), position))
            .min_by_key(|(differences, _)| differences.len());
        let (differences, position) = best.unwrap_or_else(|| panic!("no row has the time of {event}"));
        assert!(
            differences.is_empty(),
            "sent: {event}\nstored: {:?}\n{}",
            rows[position],
            differences.join("\n")
        );
        rows.swap_remove(position);
    }
    assert!(rows.is_empty(), "rows that no event asked for: {rows:?}");
}

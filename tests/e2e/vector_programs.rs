//! What the programs in `vector/*.toml` make of the samples of each source is stored and found, once.

use log_writer_tests::{
    client::{Receipt, Request},
    vector_programs::run_programs,
};
use serde_json::Value;

use crate::RealStores;

#[tokio::test]
async fn what_every_vector_configuration_sends_is_stored_once_under_its_event_id() {
    let programs = run_programs();
    assert!(!programs.is_empty());
    for (name, events) in programs {
        // A store of its own: samples with an id of their own come in several configurations.
        let stores = RealStores::start_with(|settings| settings.any_time()).await;
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        let request = Request::new("POST", "/ingest", lines.join("\n")).header("content-type", "application/x-ndjson");
        let first = stores.service.send(&request).await.receipt();
        assert_eq!(first, Receipt::all_committed(events.len()), "{name}");
        let again = stores.service.send(&request).await.receipt();
        assert_eq!(again, Receipt::all_duplicates(events.len()), "{name}");
        let rows = stores.assert_delivered_exactly_once(first.committed).await;
        let mut stored: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
        let mut sent: Vec<String> = events
            .iter()
            .filter_map(|event| event["event_id"].as_str().map(str::to_owned))
            .collect();
        stored.sort();
        sent.sort();
        assert_eq!(
            stored, sent,
            "{name}: every event is stored under the id that Vector gave it"
        );
    }
}

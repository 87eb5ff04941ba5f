//! What stops a stream stops neither ingest nor, once it is over, the stream.

use log_writer_tests::{
    client::Receipt,
    conditions::{SOON, eventually},
    fake_elasticsearch::{Behaviour, Gate},
    invariants::assert_books_balance,
};
use serde_json::json;

use crate::{FakeStores, STREAM, fresh};

/// Ingests while `fault` is on, then takes it away: everything is delivered, nothing became a dead letter.
async fn ingest_goes_on_while(fault: Behaviour) {
    let stores = FakeStores::start().await;
    stores.fake.always(Some(fault.clone()));
    for _ in 0..20 {
        assert_eq!(
            stores.service.ingest(&fresh(20)).await,
            Receipt::all_committed(20),
            "{fault:?}"
        );
    }
    eventually("delivery to have met the fault", SOON, || async {
        (!stores.fake.bulks().is_empty()).then_some(())
    })
    .await;
    let status = stores.service.known_status().await;
    assert_eq!(
        status["books"]["outstanding"], 400,
        "{fault:?}: the backlog is kept: {status}"
    );
    assert_eq!(status["ready"], true, "{fault:?}: {status}");
    assert!(stores.refused().await.is_empty(), "{fault:?}");
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(400).await;
    assert!(stores.refused().await.is_empty(), "{fault:?}");
}

#[tokio::test]
async fn elasticsearch_that_answers_503_stops_no_ingest() {
    ingest_goes_on_while(Behaviour::Reject(503, "unavailable_shards_exception")).await;
}

#[tokio::test]
async fn elasticsearch_that_is_full_stops_no_ingest() {
    ingest_goes_on_while(Behaviour::Reject(429, "es_rejected_execution_exception")).await;
}

#[tokio::test]
async fn elasticsearch_that_closes_every_connection_stops_no_ingest() {
    ingest_goes_on_while(Behaviour::Cut).await;
}

#[tokio::test]
async fn a_wrong_credential_stops_the_stream_and_keeps_the_backlog() {
    ingest_goes_on_while(Behaviour::Reject(401, "security_exception")).await;
}

#[tokio::test]
async fn a_missing_right_stops_the_stream_and_keeps_the_backlog() {
    ingest_goes_on_while(Behaviour::Reject(403, "security_exception")).await;
}

#[tokio::test]
async fn a_stopped_stream_is_named_in_the_status() {
    let stores = FakeStores::start().await;
    stores.fake.always(Some(Behaviour::Reject(403, "security_exception")));
    stores.service.ingest(&fresh(5)).await;
    stores
        .service
        .until_status("the status to name the refusal", |status| {
            let shown = status["elasticsearch"].to_string();
            shown.contains("403") || shown.contains("security_exception")
        })
        .await;
}

#[tokio::test]
async fn a_template_that_was_removed_is_applied_again_and_no_plain_index_is_made() {
    let stores = FakeStores::start().await;
    let template = stores
        .fake
        .object("_index_template/logs_template")
        .expect("it was applied");
    stores.fake.remove("_index_template/logs_template");
    stores.service.ingest(&fresh(10)).await;
    stores.assert_delivered_exactly_once(10).await;
    assert_eq!(stores.fake.object("_index_template/logs_template"), Some(template));
    assert!(
        stores
            .fake
            .bulks()
            .iter()
            .all(|bulk| bulk.path.contains("require_data_stream=true")),
        "without it a plain index would be made"
    );
}

#[tokio::test]
async fn a_bulk_longer_than_its_lease_is_not_sent_a_second_time() {
    let stores = FakeStores::start_with(|settings| {
        settings
            // Far longer than the time between two renewals: a slow machine is not to end it.
            .set("delivery.lease", "12s")
            .set("delivery.renew_every", "200ms")
    })
    .await;
    let gate = Gate::new();
    stores.fake.script([Behaviour::Hold(gate.clone())]);
    stores.service.ingest(&fresh(30)).await;
    eventually("the claim to be sent", SOON, || async {
        (!stores.fake.bulks().is_empty()).then_some(())
    })
    .await;
    let ends = "select extract(epoch from claimed_until)::bigint from log_writer.outbox";
    let first_end = stores.database.number(ends).await;
    eventually("it to be renewed after the first lease", SOON, || async {
        (stores.database.number(ends).await > first_end + 12).then_some(())
    })
    .await;
    assert_eq!(stores.fake.bulks().len(), 1, "the lease is renewed");
    let attempts = "select max(attempts)::bigint from log_writer.outbox";
    assert_eq!(stores.database.number(attempts).await, 1, "nobody claimed it anew");
    gate.open();
    stores.assert_delivered_exactly_once(30).await;
}

#[tokio::test]
async fn a_backlog_is_in_sql_and_not_in_memory() {
    let stores = FakeStores::start().await;
    stores.service.ingest(&fresh(10)).await;
    stores.service.until_delivered().await;
    let gate = Gate::new();
    stores.fake.always(Some(Behaviour::Hold(gate.clone())));
    let text = "x".repeat(2_000);
    for _ in 0..100 {
        let mut events = fresh(100);
        for event in events.as_array_mut().expect("an array") {
            event["filler"] = json!(text);
        }
        assert_eq!(stores.service.ingest(&events).await, Receipt::all_committed(100));
    }
    let (now, _) = stores.service.memory();
    assert!(now < 250 * 1024 * 1024, "{now} bytes with a backlog of 20 MB");
    gate.open();
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(10_010).await;
    assert_eq!(stores.fake.documents(STREAM).len(), 10_010);
}

#[tokio::test]
async fn a_stream_whose_look_ups_are_refused_keeps_no_other_waiting() {
    let stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.workers", "1")
            .set("delivery.retry_min", "120s")
            .set("delivery.retry_max", "120s")
            .set("events.body_tenants", "[\"other\"]")
    })
    .await;
    stores.service.ingest(&fresh(1)).await;
    stores.service.until_delivered().await;
    stores.fake.refuse_look_ups(Some(STREAM));
    // A change is looked up before it is sent.
    let annotate = "select annotate_log(id, \"timestamp\", '{\"summary\": \"new\"}', tenant) from application_logs";
    stores.database.execute(annotate).await;
    stores
        .service
        .until_status("the status to name the look-up", |status| {
            status["elasticsearch"].to_string().contains("looking documents up")
        })
        .await;
    let mut others = fresh(2);
    for event in others.as_array_mut().expect("an array") {
        event["tenant"] = "other".into();
    }
    stores.service.ingest(&others).await;
    eventually("the other stream's events to be delivered", SOON, || async {
        (stores.fake.documents("logs-app-other").len() == 2).then_some(())
    })
    .await;
    let status = stores.service.status().await;
    let named = format!("{STREAM}: looking documents up");
    assert!(status["elasticsearch"].to_string().contains(&named), "{status}");
    assert_books_balance(&stores.service, &stores.database).await;
}

#[tokio::test]
async fn a_stream_whose_documents_are_all_found_is_not_paused_any_more() {
    let stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.retry_min", "500ms")
            .set("delivery.retry_max", "500ms")
    })
    .await;
    stores.fake.script([Behaviour::ApplyThenCut]);
    stores.fake.refuse_look_ups(Some(STREAM));
    stores.service.ingest(&fresh(3)).await;
    stores
        .service
        .until_status("the status to name the look-up", |status| {
            status["elasticsearch"].to_string().contains("looking documents up")
        })
        .await;
    stores.fake.refuse_look_ups(None);
    let status = stores.service.until_delivered().await;
    assert_eq!(status["elasticsearch"]["problem"], json!(null), "{status}");
    assert_eq!(stores.fake.bulks().len(), 1, "nothing was left to send");
}

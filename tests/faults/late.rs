//! Bulks that are applied after their documents were settled: what they bring, under a dead letter or a second time, is found
//! without anybody's help, and what is only the old document of a change that was refused is not taken for it.

use log_writer_tests::{
    conditions::{SOON, eventually},
    proxy::{Mode, Proxy},
    service::{Service, Settings, run_command},
    stack::{Database, Stream},
};
use serde_json::{Value, json};

use crate::stage::{Stage, event};

const LETTERS: &str = "select count(*) from log_writer.dead_letters where stage = 'index'";

/// A stage whose service talks to Elasticsearch by way of a proxy.
async fn behind_a_proxy() -> (Stage, Proxy) {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let proxy = Proxy::start(&stream.address()).await;
    let settings = Settings::new(database.url(), &format!("http://{}", proxy.address()), &stream.tenant);
    let stage = Stage {
        service: Service::start(settings.clone()).await,
        settings,
        database,
        stream,
    };
    (stage, proxy)
}

/// Names the stream's pipeline; with one that is not there every document is refused for good.
async fn set_pipeline(stage: &Stage, pipeline: Value) {
    let path = format!("/{}/_settings", stage.stream.name());
    let settings = json!({ "index.default_pipeline": pipeline });
    stage.stream.search.ok("PUT", &path, Some(&settings)).await;
}

async fn until_letters(stage: &Stage, letters: i64) {
    eventually(&format!("{letters} dead letters"), SOON, || async {
        (stage.database.number(LETTERS).await == letters).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bulk_that_arrives_after_its_documents_were_refused_takes_their_letters_back() {
    let (stage, proxy) = behind_a_proxy().await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    set_pipeline(&stage, json!("absent")).await;
    proxy.set(Mode::Keep("POST /_bulk"));
    stage.service.ingest(&json!([event(0), event(1)])).await;
    proxy.until_kept().await;
    until_letters(&stage, 2).await;

    set_pipeline(&stage, Value::Null).await;
    let answer = proxy.send_kept().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until_letters(&stage, 0).await;
    stage.assert_nothing_lost_or_doubled(3).await;
    let status = stage.service.known_status().await;
    assert_eq!(status["books"]["requeued"], 2, "{status}");
    assert_eq!(
        status["metrics"]["log_writer_dead_letters_taken_back_total"], 2.0,
        "{status}"
    );
}

#[tokio::test]
async fn a_bulk_that_arrives_after_its_documents_were_sent_again_and_a_rollover_leaves_one_copy() {
    let (stage, proxy) = behind_a_proxy().await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    proxy.set(Mode::Keep("POST /_bulk"));
    stage.service.ingest(&json!([event(1), event(2)])).await;
    proxy.until_kept().await;
    stage.service.until_delivered().await;
    let path = format!("/{}/_rollover", stage.stream.name());
    stage.stream.search.ok("POST", &path, None).await;

    let answer = proxy.send_kept().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    eventually("one copy of each", SOON, || async {
        let removed = &stage.service.status().await["metrics"]["log_writer_doubles_removed_total"];
        (*removed == 2.0).then_some(())
    })
    .await;
    stage.assert_nothing_lost_or_doubled(3).await;
}

/// The analysis that the document of an event has.
async fn analysis(stage: &Stage, id: &Value) -> Value {
    let documents = stage.stream.search.documents(&stage.stream.name()).await;
    let of_event = documents.iter().find(|document| document.source["event"]["id"] == *id);
    of_event.expect("its document").source["ai_analysis"].clone()
}

#[tokio::test]
async fn a_refused_change_stays_a_letter_beside_its_old_document_and_a_redrive_brings_the_change() {
    let stage = Stage::start(|settings| settings).await;
    let events = json!([event(0), event(1)]);
    stage.service.ingest(&events).await;
    stage.service.until_delivered().await;
    let changed = &events[0]["event_id"];
    set_pipeline(&stage, json!("absent")).await;
    let annotate = format!(
        "select annotate_log(id, \"timestamp\", '{{\"summary\": \"new\"}}', tenant) from application_logs where id = '{}'",
        changed.as_str().expect("an id")
    );
    stage.database.execute(&annotate).await;
    until_letters(&stage, 1).await;

    // Another letter, of no change, whose document comes late: it shows that letters were looked at since.
    let documents = stage.stream.search.documents(&stage.stream.name()).await;
    let late = documents
        .iter()
        .find(|document| document.source["event"]["id"] != *changed);
    let late = late.expect("the other document");
    let path = format!("/{}/_doc/{}?refresh=true", late.index, late.id);
    stage.stream.search.ok("DELETE", &path, None).await;
    let verify = ["verify", "--tenant", &stage.stream.tenant];
    run_command(&[&verify[..], &["--repair"]].concat(), &stage.settings).await;
    until_letters(&stage, 2).await;
    set_pipeline(&stage, Value::Null).await;
    let path = format!("/{}/_create/{}?refresh=true", stage.stream.name(), late.id);
    stage.stream.search.ok("PUT", &path, Some(&late.source)).await;
    until_letters(&stage, 1).await;

    let left = "select event_id::text || ' ' || kind from log_writer.dead_letters where redriven_at is null";
    let expected = format!("{} replace", changed.as_str().expect("an id"));
    assert_eq!(stage.database.text(left).await, expected);
    assert_eq!(analysis(&stage, changed).await, Value::Null);
    let said = run_command(&verify, &stage.settings).await;
    assert_eq!(
        said.status.code(),
        Some(0),
        "a known refusal is no difference: {said:?}"
    );

    let redriven = run_command(&["dead-letters", "redrive", "--all"], &stage.settings).await;
    assert!(redriven.status.success(), "{redriven:?}");
    until_letters(&stage, 0).await;
    assert_eq!(analysis(&stage, changed).await["summary"], "new");
    stage.assert_nothing_lost_or_doubled(2).await;
}

#[tokio::test]
async fn an_event_that_is_changed_while_it_is_a_dead_letter_leaves_it_by_the_change() {
    let stage = Stage::start(|settings| settings).await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    set_pipeline(&stage, json!("absent")).await;
    let refused = event(0);
    stage.service.ingest(&json!([refused])).await;
    until_letters(&stage, 1).await;
    set_pipeline(&stage, Value::Null).await;
    let annotate =
        "select annotate_log(event_id, event_time, '{\"summary\": \"new\"}', tenant) from log_writer.dead_letters";
    stage.database.execute(annotate).await;
    until_letters(&stage, 0).await;
    assert_eq!(analysis(&stage, &refused["event_id"]).await["summary"], "new");
    stage.assert_nothing_lost_or_doubled(2).await;
}

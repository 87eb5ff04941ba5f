//! Outbox rows of the kind `replace`: what changed in SQL is written over the copy that Elasticsearch has.

use log_writer_tests::{
    conditions::{SOON, eventually},
    service::{Service, Settings, run_command},
    stack::Database,
};
use serde_json::json;

use crate::{RealStores, events::fresh};

/// Adds an analysis to the event of this message, as a person or an agent does it.
async fn annotate(stores: &RealStores, message: &str, analysis: &str) {
    annotate_in(&stores.database, message, analysis).await;
}

/// The same in any database.
pub(crate) async fn annotate_in(database: &Database, message: &str, analysis: &str) {
    let statement = "select annotate_log(id, \"timestamp\", jsonb_build_object('summary', $2::text), tenant)
        from application_logs where message = $1";
    let whole: serde_json::Value = sqlx::query_scalar(statement)
        .bind(message)
        .bind(analysis)
        .fetch_one(database.pool())
        .await
        .expect("annotated");
    assert_eq!(whole["summary"], analysis);
}

/// Waits until the service has taken annotated events off their queue.
pub(crate) async fn until_taken(database: &Database) {
    eventually("the service to take annotated events", SOON, || async {
        let waiting = database.number("select count(*) from log_writer.annotations").await;
        (waiting == 0).then_some(())
    })
    .await;
}

/// Compares both stores once that is done.
async fn assert_delivered_exactly_once(stores: &RealStores) {
    until_taken(&stores.database).await;
    stores.assert_delivered_exactly_once(5).await;
}

/// The analysis that Elasticsearch has of the event of this message.
async fn analysis(stores: &RealStores, message: &str) -> serde_json::Value {
    let documents = stores.stream.search.documents(&stores.stream.name()).await;
    let mut of_message = documents
        .into_iter()
        .filter(|document| document.source["message"] == message);
    let document = of_message.next().expect("a document");
    assert!(of_message.next().is_none(), "a second copy of {message}");
    document.source["ai_analysis"]["summary"].clone()
}

async fn with_five_delivered() -> RealStores {
    let stores = RealStores::start().await;
    stores.service.ingest(&fresh(5)).await;
    stores.service.until_delivered().await;
    stores
}

#[tokio::test]
async fn a_changed_event_goes_over_its_copy_in_whichever_index_that_stands() {
    let stores = with_five_delivered().await;
    annotate(&stores, "event 1", "in the write index").await;
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 1").await, "in the write index");

    let rollover = format!("/{}/_rollover", stores.stream.name());
    stores.stream.search.ok("POST", &rollover, None).await;
    annotate(&stores, "event 2", "in an older index").await;
    annotate(&stores, "event 1", "once more").await;
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 1").await, "once more");
    assert_eq!(analysis(&stores, "event 2").await, "in an older index");
    let documents = stores.stream.search.documents(&stores.stream.name()).await;
    let oldest = stores
        .stream
        .search
        .backing_indices(&stores.stream.name())
        .await
        .remove(0);
    assert!(
        documents.iter().all(|document| document.index == oldest),
        "none was made anew"
    );
}

#[tokio::test]
async fn a_change_of_a_document_in_a_blocked_index_stops_nothing_and_a_redrive_brings_it_after_the_block() {
    let set = |settings: Settings| {
        settings
            .set("delivery.retry_min", "1ms")
            .set("delivery.retry_max", "5ms")
            .set("delivery.linger", "0s")
    };
    let stores = RealStores::start_with(set).await;
    stores.service.ingest(&fresh(5)).await;
    stores.service.until_delivered().await;
    let (search, stream) = (&stores.stream.search, stores.stream.name());
    search.ok("POST", &format!("/{stream}/_rollover"), None).await;
    let oldest = format!("/{}/_settings", search.backing_indices(&stream).await.remove(0));
    search
        .ok("PUT", &oldest, Some(&json!({ "index.blocks.write": true })))
        .await;
    annotate(&stores, "event 2", "behind the block").await;
    until_taken(&stores.database).await;
    let mut others = 0;
    let letters = "select count(*) from log_writer.dead_letters where kind = 'replace'";
    while stores.database.number(letters).await == 0 {
        assert!(others < 1_000, "no dead letter");
        stores.service.ingest(&fresh(1)).await;
        others += 1;
        let status = stores
            .service
            .until_status("the stream to go on", |status| {
                status["books"]["outstanding"].as_u64() <= Some(1)
            })
            .await;
        assert_eq!(status["elasticsearch"]["problem"], json!(null), "{status}");
    }
    assert!(others >= 59, "{others}");
    stores.service.until_delivered().await;
    let letter = "select reason || ' ' || detail from log_writer.dead_letters";
    let letter = stores.database.text(letter).await;
    assert!(
        letter.starts_with("cluster_block_exception status 403: the change can't go over its copy in .ds-"),
        "{letter}"
    );
    assert_eq!(analysis(&stores, "event 2").await, json!(null));

    search
        .ok("PUT", &oldest, Some(&json!({ "index.blocks.write": null })))
        .await;
    let settings = Settings::new(stores.database.url(), search.url(), &stores.stream.tenant);
    let redriven = run_command(&["dead-letters", "redrive", "--all"], &settings).await;
    assert!(redriven.status.success(), "{redriven:?}");
    stores.assert_delivered_exactly_once(5 + others).await;
    assert_eq!(stores.database.number(letters).await, 0);
    assert_eq!(analysis(&stores, "event 2").await, "behind the block");
}

#[tokio::test]
async fn a_second_copy_in_a_blocked_index_keeps_no_change_waiting_and_goes_when_it_can() {
    let stores = with_five_delivered().await;
    let (search, stream) = (&stores.stream.search, stores.stream.name());
    let rollover = format!("/{stream}/_rollover");
    let path = path_of(&stores, "event 2").await;
    let copy = search.ok("GET", &path, None).await;
    search.ok("POST", &rollover, None).await;
    let second = format!("/{stream}/_create/{}", copy["_id"].as_str().expect("an id"));
    search.ok("PUT", &second, Some(&copy["_source"])).await;
    search.ok("POST", &rollover, None).await;
    let blocked = format!("/{}/_settings", search.backing_indices(&stream).await.remove(1));
    search
        .ok("PUT", &blocked, Some(&json!({ "index.blocks.write": true })))
        .await;
    annotate(&stores, "event 2", "over the copy that stays").await;
    until_taken(&stores.database).await;
    stores.service.until_delivered().await;
    let status = stores.service.status().await;
    assert_eq!(status["elasticsearch"]["problem"], json!(null), "{status}");
    search
        .ok("PUT", &blocked, Some(&json!({ "index.blocks.write": null })))
        .await;
    eventually("the second copy to go", SOON * 2, || async {
        (search.documents(&stream).await.len() == 5).then_some(())
    })
    .await;
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 2").await, "over the copy that stays");
    assert_eq!(path_of(&stores, "event 2").await, path, "the oldest one stayed");
}

#[tokio::test]
async fn a_changed_event_that_elasticsearch_lacks_is_created() {
    let stores = with_five_delivered().await;
    let path = path_of(&stores, "event 3").await;
    stores.stream.search.ok("DELETE", &path, None).await;
    annotate(&stores, "event 3", "created").await;
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 3").await, "created");
}

#[tokio::test]
async fn of_many_changes_at_once_by_two_replicas_the_last_is_shown() {
    let stores = with_five_delivered().await;
    let settings = Settings::new(stores.database.url(), stores.stream.search.url(), &stores.stream.tenant);
    let _other = Service::start(settings).await;
    for number in 1..=40 {
        annotate(&stores, "event 4", &format!("number {number}")).await;
    }
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 4").await, "number 40");
}

#[tokio::test]
async fn a_copy_that_changed_since_it_was_located_is_located_again() {
    let mut stores = with_five_delivered().await;
    let settings = Settings::new(stores.database.url(), stores.stream.search.url(), &stores.stream.tenant);
    stores.service.kill();
    let point = "delivery::after_look_up";
    let armed = settings.failpoints(&format!("{point}=1*return(stop)"));
    stores.service.restart_with(armed).await;
    annotate(&stores, "event 0", "first").await;
    stores.service.until_stopped_at(point).await;
    // Another sequence number, as of one who was faster.
    let path = path_of(&stores, "event 0").await;
    let other = json!({ "@timestamp": "2026-11-21T00:00:00Z", "message": "event 0" });
    stores
        .stream
        .search
        .ok("PUT", &guarded(&stores, &path).await, Some(&other))
        .await;
    stores.service.signal("CONT");
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 0").await, "first");
}

#[tokio::test]
async fn another_default_tenant_makes_no_second_documents_of_stored_events() {
    let mut stores = with_five_delivered().await;
    let other = stores.stream.beside();
    let settings = Settings::new(stores.database.url(), other.search.url(), &other.tenant);
    stores.service.kill();
    stores.service.restart_with(settings.clone()).await;
    annotate(&stores, "event 1", "by the id that it had").await;
    assert_delivered_exactly_once(&stores).await;
    assert_eq!(analysis(&stores, "event 1").await, "by the id that it had");

    let lost = path_of(&stores, "event 2").await;
    stores
        .stream
        .search
        .ok("DELETE", &format!("{lost}?refresh=true"), None)
        .await;
    stores.service.ingest(&fresh(3)).await;
    stores.service.until_delivered().await;
    for (tenant, missing) in [(&stores.stream.tenant, 1), (&other.tenant, 0)] {
        let output = run_command(&["verify", "--json", "--repair", "--tenant", tenant], &settings).await;
        let found = String::from_utf8_lossy(&output.stdout).lines().count() - 1;
        assert_eq!(found, missing, "{output:?}");
    }
    stores.service.until_delivered().await;
    assert_eq!(path_of(&stores, "event 2").await, lost, "it is back under its id");
    assert_eq!(other.search.documents(&other.name()).await.len(), 3);
    assert_eq!(stores.stream.search.documents(&stores.stream.name()).await.len(), 5);
}

/// Where the document of the event of this message stands.
async fn path_of(stores: &RealStores, message: &str) -> String {
    let documents = stores.stream.search.documents(&stores.stream.name()).await;
    let document = documents
        .into_iter()
        .find(|document| document.source["message"] == message);
    let document = document.expect("a document");
    format!("/{}/_doc/{}", document.index, document.id)
}

/// The path to write there: a backing index takes nothing without the sequence number.
async fn guarded(stores: &RealStores, path: &str) -> String {
    let now = stores.stream.search.ok("GET", path, None).await;
    format!(
        "{path}?if_seq_no={}&if_primary_term={}",
        now["_seq_no"], now["_primary_term"]
    )
}

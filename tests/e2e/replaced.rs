//! Outbox rows of the kind `replace`: what changed in SQL is written over the copy that Elasticsearch has.

use log_writer_tests::service::{Service, Settings};
use serde_json::json;

use crate::{RealStores, events::fresh};

/// Stores an analysis of the event of this message and asks for its document to be replaced, in one transaction.
async fn annotate(stores: &RealStores, message: &str, analysis: &str) {
    let target = stores.stream.name();
    // As the commands do: what goes into the outbox again is taken from where it stood in the books.
    let statement = "with changed as (
          update public.application_logs set ai_analysis = jsonb_build_object('summary', $2::text) where message = $1
          returning id, \"timestamp\", tenant, batch_id
        ), booked as (
          insert into log_writer.books (worker, indexed, requeued) values ('test', -1, 1)
          on conflict (worker) do update set
            indexed = log_writer.books.indexed - 1, requeued = log_writer.books.requeued + 1
        )
        insert into log_writer.outbox
          (batch_id, target, tenants, first_time, last_time, events, bytes, kind, open_ids, open_times, attempts)
        select batch_id, $3, array[tenant], \"timestamp\", \"timestamp\", 1, 100, 'replace', array[id], array[\"timestamp\"], 1
        from changed";
    let done = sqlx::query(statement)
        .bind(message)
        .bind(analysis)
        .bind(target)
        .execute(stores.database.pool())
        .await
        .expect("annotated");
    assert_eq!(done.rows_affected(), 1);
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
    stores.assert_delivered_exactly_once(5).await;
    assert_eq!(analysis(&stores, "event 1").await, "in the write index");

    let rollover = format!("/{}/_rollover", stores.stream.name());
    stores.stream.search.ok("POST", &rollover, None).await;
    annotate(&stores, "event 2", "in an older index").await;
    annotate(&stores, "event 1", "once more").await;
    stores.assert_delivered_exactly_once(5).await;
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
async fn a_changed_event_that_elasticsearch_lacks_is_created() {
    let stores = with_five_delivered().await;
    let path = path_of(&stores, "event 3").await;
    stores.stream.search.ok("DELETE", &path, None).await;
    annotate(&stores, "event 3", "created").await;
    stores.assert_delivered_exactly_once(5).await;
    assert_eq!(analysis(&stores, "event 3").await, "created");
}

#[tokio::test]
async fn of_many_changes_at_once_by_two_replicas_the_last_is_shown() {
    let stores = with_five_delivered().await;
    let settings = Settings::new(stores.database.url(), stores.stream.search.url(), &stores.stream.tenant);
    let other = Service::start(settings).await;
    for number in 1..=40 {
        annotate(&stores, "event 4", &format!("number {number}")).await;
    }
    other.until_delivered().await;
    stores.assert_delivered_exactly_once(5).await;
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
    stores.assert_delivered_exactly_once(5).await;
    assert_eq!(analysis(&stores, "event 0").await, "first");
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

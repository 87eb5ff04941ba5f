//! Items and requests that Elasticsearch refuses: again, in halves, or as a dead letter, but only what must be.

use std::{collections::BTreeSet, sync::Arc};

use log_writer_tests::{
    conditions::{SOON, eventually},
    fake_elasticsearch::{Behaviour, Item, ItemFault},
    service::Settings,
};
use serde_json::json;

use crate::{FakeStores, STREAM, fresh, numbered};

fn refused_mapping(reason: &str) -> ItemFault {
    ItemFault::new(400, "document_parsing_exception", reason)
}

fn number(item: &Item) -> u64 {
    item.source["fields"]["number"]
        .as_u64()
        .expect("every event has its number")
}

#[tokio::test]
async fn only_the_items_that_failed_are_sent_again() {
    let stores = FakeStores::start().await;
    let full = || ItemFault::new(429, "es_rejected_execution_exception", "rejected execution");
    stores
        .fake
        .script([Behaviour::partial(move |position, _| (position % 2 == 1).then(full))]);
    stores.service.ingest(&fresh(40)).await;
    stores.assert_delivered_exactly_once(40).await;
    let bulks = stores.fake.bulks();
    let failed: BTreeSet<&str> = bulks[0]
        .items
        .iter()
        .skip(1)
        .step_by(2)
        .map(|item| item.id.as_str())
        .collect();
    let again: BTreeSet<&str> = bulks[1..]
        .iter()
        .flat_map(|bulk| &bulk.items)
        .map(|item| item.id.as_str())
        .collect();
    assert_eq!(again, failed);
}

#[tokio::test]
async fn every_passing_fault_of_an_item_is_tried_again() {
    let stores = FakeStores::start().await;
    let faults = [
        (429, "es_rejected_execution_exception"),
        (429, "cluster_block_exception"),
        (403, "cluster_block_exception"),
        (503, "unavailable_shards_exception"),
        (400, "index_closed_exception"),
    ];
    for (status, kind) in faults {
        stores.fake.script([Behaviour::partial(move |position, _| {
            (position == 3).then(|| ItemFault::new(status, kind, "passes"))
        })]);
        stores.service.ingest(&fresh(10)).await;
        stores.service.until_delivered().await;
    }
    stores.assert_delivered_exactly_once(50).await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
}

#[tokio::test]
async fn a_permanent_refusal_becomes_a_dead_letter_with_id_and_reason() {
    let stores = FakeStores::start().await;
    stores.fake.always(Some(Behaviour::partial(|_, item| {
        (number(item) == 7).then(|| refused_mapping("failed to parse field [user_id]"))
    })));
    let events = fresh(20);
    stores.service.ingest(&events).await;
    stores.assert_delivered_exactly_once(20).await;
    assert_eq!(stores.fake.documents(STREAM).len(), 19, "its neighbours are indexed");
    let refused = stores.refused().await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    let id = events[7]["event_id"].as_str().expect("an id");
    for part in [id, "document_parsing_exception", "failed to parse field [user_id]"] {
        assert!(refused[0].whole.contains(part), "{part} is not in {}", refused[0].whole);
    }
}

#[tokio::test]
async fn a_bulk_that_is_too_large_is_split_and_nothing_is_lost() {
    let stores = FakeStores::start().await;
    stores.fake.limit_bodies(16_000);
    stores.service.ingest(&fresh(300)).await;
    stores.assert_delivered_exactly_once(300).await;
    assert!(stores.fake.bulks().len() > 1, "one body was over the limit");
}

#[tokio::test]
async fn a_document_that_is_too_large_alone_is_a_dead_letter_and_its_neighbours_are_indexed() {
    let stores = FakeStores::start().await;
    stores.fake.limit_bodies(16_000);
    let mut events = fresh(20);
    events[4]["message"] = json!("x".repeat(20_000));
    stores.service.ingest(&events).await;
    stores.assert_delivered_exactly_once(20).await;
    assert_eq!(stores.refused().await.len(), 1);
    assert_eq!(stores.fake.documents(STREAM).len(), 19);
}

#[tokio::test]
async fn a_whole_request_that_is_refused_is_halved_until_the_culprit_stands_alone() {
    let stores = FakeStores::start().await;
    stores
        .fake
        .always(Some(Behaviour::RejectIf(Arc::new(|item| number(item) == 13))));
    stores.service.ingest(&fresh(64)).await;
    stores.assert_delivered_exactly_once(64).await;
    assert_eq!(stores.refused().await.len(), 1);
    assert_eq!(stores.fake.documents(STREAM).len(), 63);
}

#[tokio::test]
async fn when_nearly_all_items_fail_alike_the_stream_pauses_and_the_backlog_is_kept() {
    let stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.breaker_bulks", "3")
            .set("elasticsearch.bulk_documents_max", "60")
    })
    .await;
    stores.fake.always(Some(Behaviour::partial(|_, _| {
        Some(refused_mapping("a broken mapping"))
    })));
    for _ in 0..30 {
        stores.service.ingest(&fresh(20)).await;
    }
    let status = stores
        .service
        .until_status("the status to say that the stream is paused", |status| {
            status["elasticsearch"].to_string().contains(STREAM)
        })
        .await;
    assert_eq!(status["ready"], true, "{status}");
    let lost = stores.refused().await.len();
    assert!(lost < 300, "{lost} of 600 events were poured into the dead letters");
    // Mended: what was kept is delivered.
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(600).await;
    let lost = stores.refused().await.len();
    assert_eq!(stores.fake.documents(STREAM).len(), 600 - lost);
}

#[tokio::test]
async fn a_document_that_breaks_every_connection_is_a_dead_letter_and_its_neighbours_are_indexed() {
    let stores = FakeStores::start_with(|settings| settings.set("delivery.retry_max", "100ms")).await;
    stores
        .fake
        .always(Some(Behaviour::CutIf(Arc::new(|item| number(item) == 13))));
    stores.service.ingest(&fresh(64)).await;
    stores.assert_delivered_exactly_once(64).await;
    let refused = stores.refused().await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].reason, "breaks_the_connection");
    assert_eq!(stores.fake.documents(STREAM).len(), 63);
}

#[tokio::test]
async fn where_every_bulk_breaks_nothing_becomes_a_dead_letter() {
    let stores = FakeStores::start_with(|settings| settings.set("delivery.retry_max", "100ms")).await;
    stores.fake.always(Some(Behaviour::Cut));
    stores.service.ingest(&fresh(4)).await;
    // Far more than one document that stands alone would be given, if others were taken.
    eventually("many attempts", SOON, || async {
        let alone = stores.fake.bulks().iter().filter(|bulk| bulk.items.len() == 1).count();
        (alone >= 12).then_some(())
    })
    .await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(4).await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
}

fn broken() -> ItemFault {
    ItemFault::new(500, "null_pointer_exception", "Cannot invoke")
}

fn full() -> ItemFault {
    ItemFault::new(429, "es_rejected_execution_exception", "rejected execution")
}

/// Tries again at once, and lets no stream rest.
fn hasty(settings: Settings) -> Settings {
    settings
        .set("delivery.retry_min", "1ms")
        .set("delivery.retry_max", "5ms")
        .set("delivery.poll_every", "10ms")
        .set("delivery.linger", "0s")
}

/// Bulks that brought the document of this number and nothing else.
fn bulks_alone(stores: &FakeStores, culprit: u64) -> usize {
    let bulks = stores.fake.bulks();
    let alone = bulks
        .iter()
        .filter(|bulk| matches!(&bulk.items[..], [item] if number(item) == culprit));
    alone.count()
}

/// Ingests one event after the other until something is a dead letter; how many.
async fn ingest_until_refused(stores: &FakeStores) -> u64 {
    let mut ingested = 0;
    while stores.refused().await.is_empty() {
        assert!(ingested < 1_000, "{:?}", stores.fake.bulks().len());
        stores
            .service
            .ingest(&numbered(1_000 + ingested..1_001 + ingested))
            .await;
        ingested += 1;
        stores
            .service
            .until_status("the others to be delivered", |status| {
                status["books"]["outstanding"].as_u64() <= Some(2)
            })
            .await;
    }
    ingested
}

#[tokio::test]
async fn a_document_that_alone_is_put_off_each_time_is_a_dead_letter_and_its_neighbours_are_indexed() {
    let stores = FakeStores::start_with(hasty).await;
    stores
        .fake
        .always(Some(Behaviour::partial(|_, item| (number(item) == 13).then(broken))));
    stores.service.ingest(&fresh(20)).await;
    let ingested = ingest_until_refused(&stores).await;
    stores.assert_delivered_exactly_once(20 + ingested).await;
    let refused = stores.refused().await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].reason, "null_pointer_exception");
    for part in ["status 500", "put off", "redrive"] {
        assert!(refused[0].whole.contains(part), "{part} is not in {}", refused[0].whole);
    }
}

#[tokio::test]
async fn a_document_without_room_is_a_dead_letter_only_if_it_is_large() {
    let stores = FakeStores::start_with(hasty).await;
    stores
        .fake
        .always(Some(Behaviour::partial(|_, item| (number(item) < 2).then(full))));
    let mut events = numbered(0..2);
    events[1]["large"] = json!("x".repeat(1_100_000));
    stores.service.ingest(&events).await;
    let mut ingested = ingest_until_refused(&stores).await;
    // As many again for the small one.
    for number in 2_000..2_000 + ingested {
        stores.service.ingest(&numbered(number..number + 1)).await;
    }
    ingested *= 2;
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(2 + ingested).await;
    let refused = stores.refused().await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].whole.contains("status 429"), "{}", refused[0].whole);
}

#[tokio::test]
async fn where_a_stream_takes_nothing_what_is_put_off_never_becomes_a_dead_letter() {
    let stores = FakeStores::start_with(|settings| hasty(settings).set("events.body_tenants", "[\"other\"]")).await;
    stores.fake.always(Some(Behaviour::partial(|_, item| {
        (item.target == STREAM).then(|| ItemFault::new(429, "cluster_block_exception", "index [x] blocked"))
    })));
    stores.service.ingest(&fresh(2)).await;
    // Far more often than is enough where others are taken; another stream is none of them.
    let mut others = 0;
    eventually("very many attempts", SOON * 2, || {
        others += 1;
        let (stores, others) = (&stores, others);
        async move {
            let mut event = numbered(others..others + 1);
            event[0]["tenant"] = json!("other");
            stores.service.ingest(&event).await;
            let bulks = stores.fake.bulks();
            let attempts = bulks.iter().filter(|bulk| bulk.items[0].target == STREAM).count();
            (attempts >= 150).then_some(())
        }
    })
    .await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
    stores.fake.always(None);
    stores.service.until_delivered().await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
    assert_eq!(stores.fake.documents(STREAM).len(), 2);
}

#[tokio::test]
async fn a_document_that_is_put_off_each_time_does_not_pause_its_stream_once_others_were_taken() {
    let stores = FakeStores::start_with(|settings| settings.set("delivery.linger", "0s")).await;
    stores
        .fake
        .always(Some(Behaviour::partial(|_, item| (number(item) == 0).then(full))));
    stores.service.ingest(&numbered(0..1)).await;
    stores
        .service
        .until_status("the stream to pause, as one that nobody knows", |status| {
            status["elasticsearch"].to_string().contains(STREAM)
        })
        .await;
    stores.service.ingest(&numbered(1..2)).await;
    stores
        .service
        .until_status("the other one to be taken", |status| status["books"]["indexed"] == 1)
        .await;
    let before = bulks_alone(&stores, 0);
    eventually("it to be sent alone several times", SOON, || async {
        (bulks_alone(&stores, 0) >= before + 4).then_some(())
    })
    .await;
    let status = stores.service.status().await;
    assert!(!status["elasticsearch"].to_string().contains(STREAM), "{status}");
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(2).await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
}

/// A service whose two events are in an older index, one of them changed; what is to go over its copy meets the fault.
async fn with_a_change_that_meets(fault: ItemFault) -> FakeStores {
    let stores = FakeStores::start_with(hasty).await;
    stores.service.ingest(&numbered(0..2)).await;
    stores.service.until_delivered().await;
    stores.fake.roll_over(STREAM);
    stores.fake.always(Some(Behaviour::partial(move |_, item| {
        (item.operation == "index").then(|| fault.clone())
    })));
    let annotate = "select annotate_log(id, \"timestamp\", '{\"summary\": \"new\"}', tenant) from application_logs
        where message = 'event 0'";
    stores.database.execute(annotate).await;
    eventually("the change to be sent several times", SOON, || async {
        let bulks = stores.fake.bulks();
        let over = bulks.iter().filter(|bulk| bulk.items[0].operation == "index").count();
        (over >= 4).then_some(())
    })
    .await;
    let status = stores.service.status().await;
    assert!(!status["elasticsearch"].to_string().contains(STREAM), "{status}");
    stores
}

#[tokio::test]
async fn a_change_whose_copy_goes_with_its_index_does_not_pause_its_stream() {
    let gone = ItemFault::new(404, "index_not_found_exception", "no such index [x]");
    let stores = with_a_change_that_meets(gone).await;
    stores.service.ingest(&numbered(2..3)).await;
    stores
        .service
        .until_status("another one to be taken", |status| status["books"]["indexed"] == 2)
        .await;
    assert!(stores.refused().await.is_empty(), "{:?}", stores.refused().await);
}

#[tokio::test]
async fn a_change_that_does_not_go_over_its_copy_waits_alone_and_becomes_a_dead_letter() {
    let stores = with_a_change_that_meets(ItemFault::new(403, "cluster_block_exception", "index [x] blocked")).await;
    ingest_until_refused(&stores).await;
    stores.service.until_delivered().await;
    let refused = stores.refused().await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].reason, "cluster_block_exception");
    for part in ["status 403", "put off", "lift the block", "redrive"] {
        assert!(refused[0].whole.contains(part), "{part} is not in {}", refused[0].whole);
    }
}

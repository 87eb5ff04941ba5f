//! Small claims are gathered, and nothing waits for it that need not.

use std::time::Duration;

use log_writer_tests::{
    client::Receipt,
    conditions::{SOON, eventually},
    service::Settings,
};

use crate::{FakeStores, fresh};

#[tokio::test]
async fn a_stream_that_rests_keeps_no_other_waiting() {
    let stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.linger", "60s")
            .set("events.body_tenants", "[\"other\"]")
    })
    .await;
    // After a quiet time: at once.
    stores.service.ingest(&fresh(5)).await;
    stores.service.until_delivered().await;

    stores.service.ingest(&fresh(7)).await;
    let mut others = fresh(2);
    for event in others.as_array_mut().expect("an array") {
        event["tenant"] = "other".into();
    }
    stores.service.ingest(&others).await;
    let status = stores
        .service
        .until_status("the other tenant's events to be delivered", |status| {
            status["books"]["indexed"] == 7
        })
        .await;
    assert_eq!(status["books"]["outstanding"], 7, "{status}");
    assert_eq!(stores.fake.documents("logs-app-other").len(), 2);
}

#[tokio::test]
async fn what_comes_while_a_stream_rests_goes_into_one_bulk() {
    let linger = Duration::from_secs(40);
    let stores = FakeStores::start_with(|settings| settings.set("delivery.linger", "40s")).await;
    stores.service.ingest(&fresh(5)).await;
    stores.service.until_delivered().await;
    for _ in 0..10 {
        assert_eq!(stores.service.ingest(&fresh(5)).await, Receipt::all_committed(5));
    }
    eventually("the rest to end", linger + SOON, || async {
        (stores.fake.bulks().len() > 1).then_some(())
    })
    .await;
    stores.assert_delivered_exactly_once(55).await;
    let sizes: Vec<usize> = stores.fake.bulks().iter().map(|bulk| bulk.items.len()).collect();
    assert_eq!(sizes, [5, 50]);
}

#[tokio::test]
async fn a_backlog_does_not_rest_though_its_rows_do_not_fill_a_claim() {
    let mut stores = FakeStores::start().await;
    let lingering = Settings::new(stores.database.url(), &stores.fake.url(), "default")
        .set("delivery.linger", "60s")
        .set("delivery.claim_events_max", "20");
    let away = lingering.clone().set("elasticsearch.urls", "[\"http://127.0.0.1:1\"]");
    stores.service.kill();
    stores.service.restart_with(away).await;
    for count in [8, 20, 8, 20] {
        stores.service.ingest(&fresh(count)).await;
    }
    stores.service.kill();
    stores.service.restart_with(lingering).await;
    stores.assert_delivered_exactly_once(56).await;
}

#[tokio::test]
async fn a_stream_with_a_backlog_keeps_no_other_waiting_and_gives_its_newest_events_first() {
    let mut stores = FakeStores::start().await;
    let one_claim_a_bulk = Settings::new(stores.database.url(), &stores.fake.url(), "default")
        .set("delivery.workers", "1")
        .set("delivery.claim_events_max", "10")
        .set("events.body_tenants", "[\"other\"]");
    let away = one_claim_a_bulk
        .clone()
        .set("elasticsearch.urls", "[\"http://127.0.0.1:1\"]");
    stores.service.kill();
    stores.service.restart_with(away).await;
    let mut others = fresh(3);
    for event in others.as_array_mut().expect("an array") {
        event["tenant"] = "other".into();
    }
    stores.service.ingest(&others).await;
    for count in 5..11 {
        stores.service.ingest(&fresh(count)).await;
    }
    stores.service.kill();
    stores.service.restart_with(one_claim_a_bulk).await;
    stores.service.until_delivered().await;
    let sizes: Vec<usize> = stores.fake.bulks().iter().map(|bulk| bulk.items.len()).collect();
    // The other's three at its first turn: the backlog has every second one.
    assert_eq!(sizes, [10, 9, 3, 8, 7, 6, 5]);
}

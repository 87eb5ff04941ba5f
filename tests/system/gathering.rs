//! Small claims are gathered, and nothing waits for it that need not.

use log_writer_tests::client::Receipt;

use crate::{FakeStores, fresh};

#[tokio::test]
async fn a_stream_that_rests_keeps_no_other_waiting() {
    let stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.linger", "1h")
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
    let stores = FakeStores::start_with(|settings| settings.set("delivery.linger", "5s")).await;
    stores.service.ingest(&fresh(5)).await;
    stores.service.until_delivered().await;
    for _ in 0..10 {
        assert_eq!(stores.service.ingest(&fresh(5)).await, Receipt::all_committed(5));
    }
    stores.assert_delivered_exactly_once(55).await;
    let sizes: Vec<usize> = stores.fake.bulks().iter().map(|bulk| bulk.items.len()).collect();
    assert_eq!(sizes, [5, 50]);
}

#[tokio::test]
async fn a_backlog_does_not_rest() {
    let stores = FakeStores::start_with(|settings| {
        let settings = settings.set("delivery.linger", "1h");
        settings
            .set("delivery.claim_events_max", "20")
            .set("delivery.workers", "1")
    })
    .await;
    for _ in 0..10 {
        stores.service.ingest(&fresh(20)).await;
    }
    stores.assert_delivered_exactly_once(200).await;
}

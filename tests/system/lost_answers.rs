//! A `_bulk` that was applied and whose answer never came, came in half, or counts wrong.

use log_writer_tests::{
    conditions::{SOON, eventually},
    fake_elasticsearch::Behaviour,
};

use crate::{FakeStores, STREAM, fresh};

/// Delivers 50 events of which the first `_bulk` has this fault; the times that it was sent.
async fn sent_with(fault: Behaviour) -> (FakeStores, usize) {
    let stores = FakeStores::start().await;
    stores.fake.script([fault]);
    stores.service.ingest(&fresh(50)).await;
    stores.assert_delivered_exactly_once(50).await;
    let sent = stores.fake.bulks().len();
    (stores, sent)
}

/// What was applied is found by a look-up, and so need not be sent again.
fn assert_found(stores: &FakeStores, sent: usize) {
    assert!(lookups(stores) > 0, "nobody knew that it is there");
    assert_eq!(sent, 1);
}

fn lookups(stores: &FakeStores) -> usize {
    let requests = stores.fake.requests();
    requests.iter().filter(|request| request.contains("_mget")).count()
}

#[tokio::test]
async fn a_lost_bulk_response_does_not_index_twice() {
    let (stores, sent) = sent_with(Behaviour::ApplyThenCut).await;
    assert_found(&stores, sent);
}

#[tokio::test]
async fn a_bulk_response_that_breaks_off_does_not_index_twice() {
    let (stores, sent) = sent_with(Behaviour::Truncate).await;
    assert_found(&stores, sent);
}

#[tokio::test]
async fn an_answer_with_too_few_items_is_no_answer() {
    let (stores, sent) = sent_with(Behaviour::WrongItemCount).await;
    assert_found(&stores, sent);
}

#[tokio::test]
async fn a_connection_closed_before_the_answer_is_tried_again() {
    let (_stores, sent) = sent_with(Behaviour::Cut).await;
    assert!(sent >= 2, "it has to be sent again");
}

#[tokio::test]
async fn a_lost_bulk_response_and_a_rollover_do_not_index_twice() {
    let stores = FakeStores::start().await;
    stores.fake.script([Behaviour::ApplyThenCut]);
    stores.fake.always(Some(Behaviour::Cut));
    stores.service.ingest(&fresh(50)).await;
    eventually("the bulk to be applied", SOON, || async {
        (stores.fake.documents(STREAM).len() == 50).then_some(())
    })
    .await;
    stores.fake.roll_over(STREAM);
    stores.fake.always(None);
    stores.assert_delivered_exactly_once(50).await;
    assert!(lookups(&stores) > 0, "the older index has to be asked");
}

#[tokio::test]
async fn a_lost_response_of_one_bulk_among_many_costs_the_others_nothing() {
    let stores = FakeStores::start_with(|settings| settings.set("elasticsearch.bulk_documents_max", "20")).await;
    stores.fake.script([
        Behaviour::Apply,
        Behaviour::ApplyThenCut,
        Behaviour::WrongItemCount,
        Behaviour::Truncate,
        Behaviour::Cut,
    ]);
    for _ in 0..4 {
        stores.service.ingest(&fresh(100)).await;
    }
    stores.assert_delivered_exactly_once(400).await;
    assert!(
        stores.fake.bulks().iter().all(|bulk| bulk.items.len() <= 20),
        "at most as configured"
    );
}

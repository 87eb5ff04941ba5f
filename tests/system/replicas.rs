//! Two services on one database: a dead or frozen one's work is taken over, and its return doubles nothing.

use std::{sync::Arc, time::Duration};

use log_writer_tests::{
    conditions::{SOON, eventually},
    fake_elasticsearch::{Behaviour, FaultOf, Gate, ItemFault},
    service::{Service, Settings},
};

use crate::{FakeStores, STREAM, fresh};

const LETTERS: &str = "select count(*) from log_writer.dead_letters";

fn settings_of_second(stores: &FakeStores) -> Settings {
    Settings::new(stores.database.url(), &stores.fake.url(), "default")
        .set("delivery.lease", "1s")
        .set("delivery.renew_every", "200ms")
}

async fn second(stores: &FakeStores) -> Service {
    Service::start(settings_of_second(stores)).await
}

async fn first() -> FakeStores {
    FakeStores::start_with(|settings| {
        settings
            .set("delivery.lease", "1s")
            .set("delivery.renew_every", "200ms")
    })
    .await
}

#[tokio::test]
async fn what_a_killed_replica_had_claimed_is_delivered_by_the_other() {
    let mut stores = first().await;
    let gate = Gate::new();
    stores.fake.script([Behaviour::Hold(gate)]);
    stores.service.ingest(&fresh(40)).await;
    until_sent(&stores).await;
    let other = second(&stores).await;
    stores.service.kill();
    other.until_delivered().await;
    stores.service.restart().await;
    stores.assert_delivered_exactly_once(40).await;
}

#[tokio::test]
async fn a_frozen_replica_that_wakes_after_its_lease_doubles_nothing() {
    wakes_after_its_lease(0).await;
}

#[tokio::test]
async fn a_second_copy_whose_deletion_is_refused_at_first_is_deleted_later() {
    wakes_after_its_lease(2).await;
}

async fn until_sent(stores: &FakeStores) {
    eventually("the claim to be sent", SOON, || async {
        (!stores.fake.bulks().is_empty()).then_some(())
    })
    .await;
}

/// A replica frozen while it sends forty events; what it sent arrives in a newer index than what the other one sent meanwhile.
async fn forty_arrive_twice(stores: &FakeStores) {
    let gate = Gate::new();
    stores.fake.script([Behaviour::Hold(gate.clone())]);
    stores.service.ingest(&fresh(40)).await;
    until_sent(stores).await;
    stores.service.signal("STOP");
    second(stores).await.until_delivered().await;
    // Else whoever looks for late bulks would delete the second copies.
    let later = "update log_writer.late_bulks set look_at = now() + interval '1 hour'";
    stores.database.execute(later).await;
    // What the frozen one had sent arrives only now, in a new write index.
    stores.fake.roll_over(STREAM);
    gate.open();
    eventually("the late bulk to be applied", SOON, || async {
        (stores.fake.documents(STREAM).len() == 80).then_some(())
    })
    .await;
}

/// The frozen one wakes, and its deletions are refused so many times.
async fn wakes_after_its_lease(deletions_refused: usize) {
    let stores = first().await;
    forty_arrive_twice(&stores).await;
    stores.fake.refuse_deletions(deletions_refused);
    stores.service.signal("CONT");
    eventually("no copy to be left over", SOON, || async {
        (stores.fake.documents(STREAM).len() == 40).then_some(())
    })
    .await;
    stores.assert_delivered_exactly_once(40).await;
}

/// The frozen one wakes, and its first attempt at the second copies is refused, as all others are.
async fn wakes_and_cannot_delete(stores: &FakeStores) {
    stores.fake.refuse_deletions(usize::MAX);
    stores.service.signal("CONT");
    eventually("the first look to fail", SOON, || async {
        stores.service.log().contains("second copies now").then_some(())
    })
    .await;
}

#[tokio::test]
async fn second_copies_that_cannot_be_deleted_for_long_keep_no_worker_from_new_events() {
    let stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.workers", "1")
            .set("delivery.lease", "1s")
            .set("delivery.renew_every", "200ms")
    })
    .await;
    forty_arrive_twice(&stores).await;
    wakes_and_cannot_delete(&stores).await;
    stores.service.ingest(&fresh(7)).await;
    eventually("new events to be delivered", SOON, || async {
        (stores.fake.documents(STREAM).len() == 87).then_some(())
    })
    .await;
    stores.fake.refuse_deletions(0);
    eventually("no copy to be left over", SOON, || async {
        (stores.fake.documents(STREAM).len() == 47).then_some(())
    })
    .await;
    stores.assert_delivered_exactly_once(47).await;
}

#[tokio::test]
async fn a_replica_that_stops_says_what_it_could_not_check_for_second_copies() {
    let mut stores = first().await;
    forty_arrive_twice(&stores).await;
    wakes_and_cannot_delete(&stores).await;
    stores.service.terminate();
    stores.service.until_ended(Duration::from_secs(40)).await;
    let log = stores.service.log();
    assert!(log.contains("were not checked for second copies"), "{log}");
}

#[tokio::test]
async fn a_replica_that_stops_with_an_unanswered_bulk_and_no_lost_claim_speaks_of_none() {
    let mut stores = first().await;
    stores.fake.script([Behaviour::Hold(Gate::new())]);
    stores.service.ingest(&fresh(4)).await;
    until_sent(&stores).await;
    stores.service.terminate();
    stores.service.until_ended(Duration::from_secs(40)).await;
    assert!(
        !stores.service.log().contains("lost claims"),
        "{}",
        stores.service.log()
    );
}

/// A replica frozen while it sends four events. Another bulk of them, by whomever, has three refused for good.
async fn frozen_and_then_refused() -> (FakeStores, Gate) {
    let stores = first().await;
    let gate = Gate::new();
    let refuse: Arc<FaultOf> = Arc::new(|position, _| {
        (position > 0).then(|| ItemFault::new(400, "document_parsing_exception", "it had no room at that time"))
    });
    stores
        .fake
        .script([Behaviour::Hold(gate.clone()), Behaviour::PartialFailure(refuse)]);
    stores.service.ingest(&fresh(4)).await;
    until_sent(&stores).await;
    stores.service.signal("STOP");
    (stores, gate)
}

async fn until_late_bulk_is_applied(stores: &FakeStores, gate: &Gate) {
    gate.open();
    eventually("the late bulk to be applied", SOON, || async {
        (stores.fake.documents(STREAM).len() >= 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn documents_of_a_frozen_replica_that_arrive_after_they_were_refused_to_another_take_their_letters_back() {
    let (stores, gate) = frozen_and_then_refused().await;
    second(&stores).await.until_delivered().await;
    assert_eq!(stores.database.number(LETTERS).await, 3);
    until_late_bulk_is_applied(&stores, &gate).await;
    stores.service.signal("CONT");
    eventually("the dead letters to be taken back", SOON, || async {
        (stores.database.number(LETTERS).await == 0).then_some(())
    })
    .await;
    stores.assert_delivered_exactly_once(4).await;
}

#[tokio::test]
async fn documents_of_a_frozen_replica_that_arrive_before_they_are_refused_to_another_get_no_letters() {
    let (stores, gate) = frozen_and_then_refused().await;
    let armed = settings_of_second(&stores).failpoints("delivery::before_bulk=1*return(stop)");
    let other = Service::start(armed).await;
    other.until_stopped_at("delivery::before_bulk").await;
    until_late_bulk_is_applied(&stores, &gate).await;
    // Else it was told that they are there.
    stores.fake.roll_over(STREAM);
    other.signal("CONT");
    other.until_delivered().await;
    assert_eq!(stores.database.number(LETTERS).await, 0);
    assert_eq!(stores.fake.documents(STREAM).len(), 4, "no copy in the newer index");
    stores.service.signal("CONT");
    stores.assert_delivered_exactly_once(4).await;
}

#[tokio::test]
async fn two_replicas_deliver_each_event_once() {
    // Nobody dies here: no lease is to end before its bulk is answered.
    let patient = |settings: Settings| settings.set("delivery.lease", "10m").set("delivery.renew_every", "1m");
    let stores = FakeStores::start_with(patient).await;
    let other = Service::start(patient(settings_of_second(&stores))).await;
    for _ in 0..20 {
        stores.service.ingest(&fresh(30)).await;
        other.ingest(&fresh(30)).await;
    }
    stores.assert_delivered_exactly_once(1200).await;
    let doubled = stores.fake.bulks().iter().map(|bulk| bulk.items.len()).sum::<usize>();
    assert_eq!(doubled, 1200, "no claim overlaps another");
}

#[tokio::test]
async fn a_terminated_replica_gives_its_claims_back_at_once() {
    // A lease far longer than the test: only a release can explain that the other one delivers.
    let mut stores = FakeStores::start_with(|settings| {
        settings
            .set("delivery.lease", "10m")
            .set("delivery.renew_every", "1m")
            .set("http.drain_timeout", "2s")
    })
    .await;
    stores
        .fake
        .always(Some(Behaviour::Reject(503, "unavailable_shards_exception")));
    stores.service.ingest(&fresh(40)).await;
    until_sent(&stores).await;
    stores.service.terminate();
    stores.service.until_ended(Duration::from_secs(40)).await;
    stores.fake.always(None);
    let other = second(&stores).await;
    other.until_delivered().await;
    stores.service.restart().await;
    stores.assert_delivered_exactly_once(40).await;
}

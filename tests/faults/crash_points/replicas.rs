//! What needs a second process on the same outbox: one freezes while it sends, the other takes its claim over.

use std::collections::BTreeMap;

use log_writer_tests::{
    conditions::{SOON, eventually},
    proxy::Mode,
    search::Document,
    service::{Service, Settings},
};

use super::{bodies::Kind, sender::Sender};

/// Three events are acknowledged, claimed by the sender's service, and not sent: it is frozen with their bulk made.
async fn frozen_before_sending(then: &str) -> Sender {
    frozen_at("delivery::before_bulk", then).await
}

/// The same, frozen at this point.
async fn frozen_at(point: &str, then: &str) -> Sender {
    let mut sender = Sender::start().await;
    sender.service.until_delivered().await;
    sender.service.kill();
    sender.proxy.set(Mode::Refuse);
    let armed = format!("{point}=1*return(stop){then}");
    sender.service.respawn_with(sender.settings.clone().failpoints(&armed));
    sender.deliver(Kind::Plain).await;
    sender.proxy.set(Mode::Forward);
    sender.service.until_stopped_at(point).await;
    sender
}

/// For a replica that shall not find what the sender is to find: it looks for late bulks once in its lease.
fn looks_seldom(sender: &Sender) -> Settings {
    let settings = sender.settings.clone().set("delivery.lease", "10m");
    settings.set("delivery.renew_every", "1m")
}

async fn roll_over(sender: &Sender) {
    let path = format!("/{}/_rollover", sender.stream.name());
    sender.stream.search.ok("POST", &path, None).await;
}

async fn documents(sender: &Sender) -> Vec<Document> {
    sender.stream.search.documents(&sender.stream.name()).await
}

/// The indices that hold documents, and how many.
async fn by_index(sender: &Sender) -> Vec<usize> {
    let mut found = BTreeMap::<String, usize>::new();
    for document in documents(sender).await {
        *found.entry(document.index).or_default() += 1;
    }
    found.into_values().collect()
}

async fn until_logged(sender: &Sender, line: &str) {
    eventually(line, SOON, || {
        std::future::ready(sender.service.log().contains(line).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn frozen_while_sending_and_resumed_after_another_has_delivered_it_doubles_nothing() {
    for rolls_over in [false, true] {
        let sender = frozen_before_sending("").await;
        let other = Service::start(looks_seldom(&sender)).await;
        other.until_delivered().await;
        if rolls_over {
            roll_over(&sender).await;
        }
        sender.service.signal("CONT");
        until_logged(&sender, "claims were lost while their documents were sent").await;
        if rolls_over {
            until_logged(&sender, "removed second copies").await;
        }
        sender.assert_nothing_lost_or_doubled().await;
    }
}

#[tokio::test]
async fn frozen_beyond_its_lease_before_its_bulk_is_made_it_sends_nothing() {
    let sender = frozen_at("delivery::after_read_back", "").await;
    let other = Service::start(sender.settings.clone()).await;
    other.until_delivered().await;
    roll_over(&sender).await;
    sender.service.signal("CONT");
    until_logged(&sender, "the lease of a claim ended before all of it was sent").await;
    until_logged(&sender, "claims were lost while their documents were sent").await;
    sender.assert_nothing_lost_or_doubled().await;
    assert_eq!(by_index(&sender).await, [4], "as the other has sent them");
    assert!(
        !sender.service.log().contains("removed second copies"),
        "there were none"
    );
}

#[tokio::test]
async fn a_death_between_a_second_copy_and_its_removal_leaves_none_after_the_next_claim() {
    for point in ["delivery::before_repair", "delivery::before_delete"] {
        // Its bulk arrives before the rollover, and it dies before it hears of it.
        let mut sender = frozen_before_sending(";delivery::after_bulk=1*return(abort)").await;
        let armed = format!("delivery::after_look_up=1*return(stop);{point}=1*return(abort)");
        // Its claim outlives all that is done until it dies.
        let mut other = Service::start_unasked(looks_seldom(&sender).failpoints(&armed));
        other.until_stopped_at("delivery::after_look_up").await;
        sender.service.signal("CONT");
        sender.service.until_died_at("delivery::after_bulk").await;
        assert_eq!(by_index(&sender).await, [4], "{point}: its bulk arrived");
        roll_over(&sender).await;
        other.signal("CONT");
        other.until_died_at(point).await;
        assert_eq!(by_index(&sender).await, [4, 3], "{point}: the second copies are there");
        let end_of_lease = "update log_writer.outbox set claimed_until = now(), next_attempt_at = now()";
        sender.database.execute(end_of_lease).await;
        sender.restart().await;
        sender.assert_nothing_lost_or_doubled().await;
        assert_eq!(by_index(&sender).await, [4], "{point}: the oldest stay");
    }
}

#[tokio::test]
async fn a_second_copy_of_one_who_lost_its_claim_and_died_is_removed_by_whoever_lives() {
    let mut sender = frozen_before_sending(";delivery::after_lost_claim=1*return(abort)").await;
    let mut other = Service::start(sender.settings.clone()).await;
    other.until_delivered().await;
    // What it knows of the other's bulk must outlive it.
    other.kill();
    // Nobody looks before they are there and the sender is dead.
    let look = |at: &str| format!("update log_writer.late_bulks set look_at = {at}");
    sender.database.execute(&look("now() + interval '1 hour'")).await;
    roll_over(&sender).await;
    sender.service.signal("CONT");
    sender.service.until_died_at("delivery::after_lost_claim").await;
    assert_eq!(by_index(&sender).await, [4, 3], "the second copies are there");
    sender.database.execute(&look("now()")).await;
    // Whoever looks for them may die as well.
    for point in ["delivery::before_delete", "delivery::before_noting_a_look"] {
        sender.respawn_armed(point, 0);
        sender.service.until_died_at(point).await;
    }
    assert_eq!(by_index(&sender).await, [4], "the last one had removed them");
    sender.restart().await;
    sender.assert_nothing_lost_or_doubled().await;
    assert_eq!(by_index(&sender).await, [4], "the oldest stay");
}

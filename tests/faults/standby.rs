//! A COMMIT that waits for a synchronous standby that is gone: PostgreSQL accepts everything and answers nothing.

use std::sync::atomic::{AtomicI64, Ordering};

use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    conservation::OwnPostgres,
    stack::Database,
};
use serde_json::json;

use crate::stage::{Stage, event};

/// Committers that wait for the standby.
const WAITING: &str = "select count(*) from pg_stat_activity
    where application_name like 'log-writer committer%' and wait_event = 'SyncRep'";

impl Stage {
    async fn set_standby(&self, statement: &str) {
        self.execute(statement).await;
        self.execute("select pg_reload_conf()").await;
    }
}

#[tokio::test]
async fn a_standby_that_is_gone_costs_no_event_and_leaves_no_sessions() {
    let postgres = OwnPostgres::start("standby").await;
    // The test itself does not wait for it.
    let url = format!("{}?options=-c%20synchronous_commit%3Dlocal", postgres.url());
    let stage = Stage::on(Database::create_on(&url).await, |settings| {
        settings
            .set("http.answer_timeout", "2s")
            .set("database.transaction_timeout", "1s")
            .set("database.lock_timeout", "500ms")
    })
    .await;
    stage.service.ingest_until_taken(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    let before = stage.service.log().len();
    stage
        .set_standby("alter system set synchronous_standby_names = 'nobody'")
        .await;
    // One, so that there is always a committer that has not found out by itself.
    let senders = stage.traffic(1, || event(0));
    stage.until_not_ready("synchronous_standby_names").await;
    // By the first COMMIT that is not answered, though the others have their connections.
    let log = stage.service.log().split_off(before);
    let (before, _) = log.split_once("not ready: nothing can be committed").expect("an alarm");
    assert!(!before.contains("a committer lost PostgreSQL"), "{before}");
    let request = Request::json(&json!([event(0)]));
    let refused = stage.service.send(&request).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let most = AtomicI64::new(0);
    eventually("sessions of the pool to be ended, too", SOON * 2, || async {
        most.fetch_max(stage.database.number(WAITING).await, Ordering::Relaxed);
        assert_eq!(stage.service.send(&Request::get("/ready")).await.status, 503);
        let ended = "ended sessions of this service that hung in PostgreSQL";
        stage.service.log().contains(ended).then_some(())
    })
    .await;
    let most = most.into_inner();
    assert!((1..=3).contains(&most), "{most} sessions of three committers");
    stage.set_standby("alter system reset synchronous_standby_names").await;
    stage.service.until_ready().await;
    let seen = senders.stop().await;
    assert!(seen.refused > 0, "{seen:?}");
    assert_eq!(stage.letters().await, []);
    stage.service.send_until_taken(&request).await;
    stage.assert_nothing_lost_or_doubled(2 + seen.acknowledged).await;
}

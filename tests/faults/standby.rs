//! A COMMIT that waits for a synchronous standby that is gone: PostgreSQL accepts everything and answers nothing.

use std::time::Duration;

use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    conservation::OwnPostgres,
    stack::Database,
};
use serde_json::json;

use crate::stage::{Stage, event, pass};

/// Of the service, those that wait for the standby.
const WAITING: &str = "select count(*) from pg_stat_activity
    where application_name like 'log-writer%' and wait_event = 'SyncRep'";

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
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    stage
        .set_standby("alter system set synchronous_standby_names = 'nobody'")
        .await;
    // One, so that there is always a committer that has not found out by itself.
    let senders = stage.traffic(1, || event(0));
    stage.until_not_ready("synchronous_standby_names").await;
    // By the first COMMIT that is not answered, though the others have their connections.
    let log = stage.service.log();
    let (before, _) = log.split_once("not ready: nothing can be committed").expect("an alarm");
    assert!(!before.contains("a committer lost PostgreSQL"), "{before}");
    let refused = stage.service.send(&Request::json(&json!([event(0)]))).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    // Each committer tries again and again.
    for _ in 0..10 {
        pass(Duration::from_secs(1)).await;
        assert_eq!(stage.service.send(&Request::get("/ready")).await.status, 503);
        let committers = format!("{WAITING} and application_name like 'log-writer committer%'");
        let waiting = stage.database.number(&committers).await;
        assert!(waiting <= 3, "{waiting} sessions of three committers");
    }
    // Of the pool.
    eventually("sessions of others to be ended", SOON, || async {
        stage
            .service
            .log()
            .contains("ended sessions of this service that hung in PostgreSQL")
            .then_some(())
    })
    .await;
    stage.set_standby("alter system reset synchronous_standby_names").await;
    stage.service.until_ready().await;
    let seen = senders.stop().await;
    assert!(seen.refused > 0, "{seen:?}");
    assert_eq!(stage.letters().await, []);
    // The request that was refused is not sent again; it was committed all the same, or not.
    stage.service.until_delivered().await;
    let committed = stage.database.number("select count(*) from application_logs").await;
    let acknowledged = i64::try_from(1 + seen.acknowledged).expect("few");
    assert!(
        (acknowledged..=acknowledged + 1).contains(&committed),
        "{committed} of {acknowledged}"
    );
    stage
        .assert_nothing_lost_or_doubled(u64::try_from(committed).expect("few"))
        .await;
    drop(stage);
    drop(postgres);
}

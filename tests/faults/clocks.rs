//! Replicas whose time of day is wrong, or jumps: PostgreSQL's clock decides what is late, in the future, leased or kept.

use std::{path::PathBuf, process::Command, time::Duration};

use chrono::{DateTime, Utc};
use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    proxy::{Mode, Proxy},
    service::{Service, Settings},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::{Stage, event, event_at, pass};

const HOUR: i64 = 3_600;

/// The wall clock of processes that are started with it.
#[derive(Debug)]
struct WallClock {
    folder: TempDir,
}

impl WallClock {
    fn new() -> Self {
        let folder = TempDir::with_prefix("log-writer-clock-").expect("a folder");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/wall_clock.c");
        // Whoever links Rust has it.
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("wall_clock.so"))
            .arg(source)
            .status()
            .expect("cc can be run");
        assert!(built.success(), "{source} can't be built");
        let clock = Self { folder };
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Seconds that it is ahead.
    fn set(&self, seconds: i64) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, seconds.to_string()).expect("written");
        std::fs::rename(new, self.file()).expect("in force");
    }

    fn lent_to(&self, settings: Settings) -> Settings {
        let library = self.folder.path().join("wall_clock.so");
        settings
            .environment("LD_PRELOAD", &library.to_string_lossy())
            .environment("WALL_CLOCK_OFFSET_FILE", &self.file().to_string_lossy())
    }
}

/// Claims that the process lives by its own clock: what it logs says so.
fn assert_is_off(service: &Service, seconds: i64) {
    let log = service.log();
    let last = log
        .lines()
        .rev()
        .find_map(|line| line.split_whitespace().next()?.parse::<DateTime<Utc>>().ok());
    let off = last.expect("a line with a time") - Utc::now();
    assert!((off.num_seconds() - seconds).abs() < 120, "it logs {last:?}");
}

async fn stored(stage: &Stage, event: &Value) -> (DateTime<Utc>, DateTime<Utc>) {
    let id = event["event_id"].as_str().expect("an id");
    sqlx::query_as("select \"timestamp\", ingested_at from application_logs where id = $1::uuid")
        .bind(id)
        .fetch_one(stage.database.pool())
        .await
        .expect("it is stored")
}

fn is_now(time: DateTime<Utc>) -> bool {
    (Utc::now() - time).num_seconds().abs() < 60
}

#[tokio::test]
async fn a_replica_whose_clock_is_hours_off_judges_times_as_the_others_do() {
    for hours in [2, -2] {
        let clock = WallClock::new();
        clock.set(hours * HOUR);
        let stage = Stage::start(|settings| clock.lent_to(settings)).await;
        let others = Service::start(stage.settings.clone().environment("LD_PRELOAD", "")).await;
        for (minutes, is_taken) in [(0, true), (50, true), (90, false), (-90, true)] {
            let time = Utc::now() + chrono::Duration::minutes(minutes);
            let event = event_at(time);
            assert_eq!(stage.service.ingest(&json!([event])).await, Receipt::all_committed(1));
            let (timestamp, ingested_at) = stored(&stage, &event).await;
            let expected = (timestamp - time).num_milliseconds() == 0;
            assert_eq!(expected, is_taken, "{hours} h off, {minutes} min ahead: {timestamp}");
            assert!(is_taken || is_now(timestamp), "it came now, not at {timestamp}");
            assert!(is_now(ingested_at), "it came now, not at {ingested_at}");
            if is_taken {
                // In another request, to a replica whose clock is right: one identity.
                let again = others.ingest(&json!([event, event_at(Utc::now())])).await;
                assert_eq!(
                    (again.committed, again.duplicates),
                    (1, 1),
                    "{hours} h off, {minutes} min"
                );
            }
        }
        assert_is_off(&stage.service, hours * HOUR);
        stage.assert_nothing_lost_or_doubled(7).await;
    }
}

#[tokio::test]
async fn a_replica_whose_clock_is_ahead_takes_no_claim_before_its_lease_ends() {
    let clock = WallClock::new();
    // Longer than any machine takes to renew it, which is tried each second; less than the clock is ahead.
    let stage = Stage::start(|settings| settings.set("delivery.lease", "10m")).await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    // The owner's documents do not arrive, and its lease is renewed.
    let proxy = Proxy::start(&stage.stream.address()).await;
    let url = format!("[\"http://{}\"]", proxy.address());
    let owner = Service::start(stage.settings.clone().set("elasticsearch.urls", &url)).await;
    eventually("the bootstrap", SOON, || async {
        (owner.status().await["elasticsearch"]["bootstrapped"] == true).then_some(())
    })
    .await;
    let mut stage = stage;
    stage.service.kill();
    proxy.set(Mode::Stall);
    owner.ingest(&json!([event(0)])).await;
    let attempts = "select coalesce(max(attempts), 0)::bigint from log_writer.outbox";
    eventually("the claim", SOON, || async {
        (stage.database.number(attempts).await == 1).then_some(())
    })
    .await;
    clock.set(HOUR);
    stage.service.restart_with(clock.lent_to(stage.settings.clone())).await;
    pass(Duration::from_secs(10)).await;
    assert_is_off(&stage.service, HOUR);
    assert_eq!(stage.database.number(attempts).await, 1, "nobody else took it");
    proxy.set(Mode::Forward);
    stage.assert_nothing_lost_or_doubled(2).await;
}

#[tokio::test]
async fn a_clock_that_jumps_loses_doubles_and_forgets_nothing() {
    let clock = WallClock::new();
    let stage = Stage::start(|settings| clock.lent_to(settings)).await;
    let first = Request::json(&json!([event(0), event(30)]));
    assert_eq!(stage.service.send(&first).await.receipt(), Receipt::all_committed(2));
    let others = stage.traffic(3, || event(0));
    for seconds in [HOUR, -HOUR, 100 * 24 * HOUR, -100 * 24 * HOUR, 0, 7 * HOUR] {
        clock.set(seconds);
        // Longer than a lease, and at last longer than a round of housekeeping.
        pass(Duration::from_secs(if seconds == 7 * HOUR { 6 } else { 3 })).await;
    }
    let others = others.stop().await;
    assert_is_off(&stage.service, 7 * HOUR);
    assert_eq!(others.refused, 0, "{others:?}");
    // Digests are kept for six hours: of PostgreSQL's.
    assert_eq!(stage.service.send(&first).await.receipt(), Receipt::all_duplicates(2));
    let moved = "select count(*) from application_logs where fields -> '_log_writer' ? 'timestamp'";
    assert_eq!(stage.database.number(moved).await, 0, "every event kept its own time");
    stage.assert_nothing_lost_or_doubled(2 + others.acknowledged).await;
}

//! Replicas exchanged one after the other under load, and a schema that a newer version has gone over.
//!
//! With `LOG_WRITER_OLD_BINARY` the rolling restart begins with that version, goes on to this one, back, and forward
//! again; without it, it is this version throughout.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use log_writer_tests::{
    client::{Receipt, Request, send},
    conditions::eventually,
    service::{Service, Settings, run_command},
};
use serde_json::json;

use super::{Stores, fresh};

/// Senders as Vector is one: a request goes out with the same bytes until it is taken, to whoever answers.
#[derive(Debug, Default)]
struct Load {
    is_over: AtomicBool,
    requests: AtomicU64,
    resends: AtomicU64,
    /// Most attempts that one request needed.
    worst: AtomicU64,
}

const EVENTS: u64 = 10;

impl Load {
    async fn send(self: Arc<Self>, replicas: [SocketAddr; 2], first: usize) {
        let mut turn = first;
        while !self.is_over.load(Ordering::Relaxed) {
            let request = Request::json(&fresh(10));
            let mut attempts = 0;
            eventually("a request to be taken", Duration::from_secs(60), || {
                turn += 1;
                attempts += 1;
                let (address, request) = (replicas[turn % 2], request.clone());
                async move {
                    let answer = send(address, &request).await.ok()?;
                    assert!(
                        matches!(answer.status, 200 | 429 | 503),
                        "{}: {}",
                        answer.status,
                        answer.text()
                    );
                    (answer.status == 200).then(|| assert_eq!(answer.receipt().received, EVENTS))
                }
            })
            .await;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.resends.fetch_add(attempts - 1, Ordering::Relaxed);
            self.worst.fetch_max(attempts, Ordering::Relaxed);
        }
    }

    /// Waits for so many more requests.
    async fn more(&self, count: u64) {
        let until = self.requests.load(Ordering::Relaxed) + count;
        eventually("the load to go on", Duration::from_secs(60), || async {
            (self.requests.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    }
}

/// Ends each replica in turn and starts it again, as another version perhaps.
async fn roll(replicas: &mut [Service; 2], settings: &Settings, load: &Load) {
    for replica in replicas {
        load.more(30).await;
        replica.terminate();
        let status = replica.until_ended(Duration::from_secs(60)).await;
        assert!(status.success(), "{status}");
        load.more(30).await;
        replica.restart_with(settings.clone()).await;
    }
    load.more(30).await;
}

#[tokio::test]
async fn replicas_exchanged_under_load_lose_and_double_nothing() {
    let stores = Stores::create().await;
    let new = stores.direct().set("http.shutdown_delay", "300ms");
    let old_binary = std::env::var_os("LOG_WRITER_OLD_BINARY").map(PathBuf::from);
    let old = match &old_binary {
        Some(binary) => stores.direct().program(binary),
        None => new.clone(),
    };
    let mut replicas = [Service::start(old.clone()).await, Service::start(old.clone()).await];
    let load = Arc::new(Load::default());
    let addresses = [replicas[0].address(), replicas[1].address()];
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let senders: Vec<_> = (0..4)
        .map(|first| tokio::spawn(Arc::clone(&load).send(addresses, first)))
        .collect();
    roll(&mut replicas, &new, &load).await;
    // And back: nothing of what the new one did is undone.
    roll(&mut replicas, &old.set("database.migrate_on_start", "false"), &load).await;
    // And forward again, over a schema that is there already.
    roll(&mut replicas, &new, &load).await;
    load.is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("no sender panics");
    }
    let requests = load.requests.load(Ordering::Relaxed);
    stores
        .assert_delivered_exactly_once(&replicas[0], requests * EVENTS)
        .await;
    let worst = load.worst.load(Ordering::Relaxed);
    #[expect(clippy::print_stdout, reason = "the figures of docs/RELIABILITY.md")]
    {
        println!(
            "rolling restart{}: {requests} requests, {} resends, at most {worst} attempts for one, 0 lost, 0 doubled",
            if old_binary.is_some() {
                " from the old version to this one, back and forward again"
            } else {
                ""
            },
            load.resends.load(Ordering::Relaxed),
        );
    }
    // One replica answers at any time, so whoever asks both in turn needs a few attempts and no patience.
    assert!(worst <= 20, "{worst} attempts for one request");
}

/// What a later version may do to the schema: it adds, and leaves defaults.
const EXPANDED: [&str; 8] = [
    "insert into log_writer._sqlx_migrations values (20990101000000, 'later', now(), true, '', 0)",
    "alter table public.application_logs add column later text not null default 'x'",
    "alter table log_writer.outbox add column later integer not null default 1",
    "alter table log_writer.dead_letters add column later integer not null default 1",
    "alter table log_writer.books add column later bigint not null default 0",
    "alter table log_writer.requests add column later bigint not null default 0",
    "create table log_writer.later (id bigint primary key)",
    "create index on public.application_logs (ingested_at)",
];

#[tokio::test]
async fn a_replica_works_on_and_starts_again_while_a_newer_version_has_expanded_the_schema() {
    let stores = Stores::create().await;
    let mut service = Service::start(stores.settings()).await;
    let taken_before = Request::json(&fresh(10));
    assert_eq!(service.send(&taken_before).await.receipt(), Receipt::all_committed(10));
    for statement in EXPANDED {
        stores.database.execute(statement).await;
    }
    for round in ["running", "started again"] {
        assert_eq!(service.ingest(&fresh(20)).await, Receipt::all_committed(20), "{round}");
        // A known digest, and the staging table: one event is there already.
        assert_eq!(service.send(&taken_before).await.receipt().duplicates, 10, "{round}");
        let mut half_known: serde_json::Value = serde_json::from_slice(&taken_before.body).expect("JSON");
        let list = half_known.as_array_mut().expect("an array");
        list.truncate(1);
        list.push(fresh(1)[0].clone());
        let receipt = service.ingest(&half_known).await;
        assert_eq!((receipt.committed, receipt.duplicates), (1, 1), "{round}");
        let unreadable =
            Request::new("POST", "/ingest", format!("{{{round}")).header("content-type", "application/json");
        let receipt = service.send(&unreadable).await.receipt();
        assert_eq!(
            (receipt.committed, receipt.dead_lettered),
            (0, 1),
            "{round}: kept as a dead letter"
        );
        service.until_delivered().await;
        if round == "running" {
            service.terminate();
            assert!(service.until_ended(Duration::from_secs(30)).await.success());
            service.restart().await;
        }
    }
    stores.assert_delivered_exactly_once(&service, 52).await;
    assert!(
        !service.log().contains("cached plan"),
        "no statement depends on the columns that were there"
    );
    let migrated = run_command(&["migrate"], &stores.settings()).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let redriven = run_command(&["dead-letters", "list", "--json"], &stores.settings()).await;
    assert!(redriven.status.success(), "{redriven:?}");
}

#[tokio::test]
async fn a_migration_under_way_holds_writers_up_and_nobody_is_refused_for_it() {
    let stores = Stores::create().await;
    let service = Service::start(stores.settings()).await;
    service.ingest(&fresh(10)).await;
    // What the newest version's migrator does: an alteration, lock and all, in one transaction with its record.
    let mut migrator = stores.database.pool().begin().await.expect("a connection");
    for statement in [
        "set local lock_timeout = '5s'",
        "alter table public.application_logs add column later text default 'x'",
    ] {
        sqlx::query(statement).execute(&mut *migrator).await.expect("done");
    }
    let (event, ready) = (json!([fresh(1)[0]]), Request::get("/ready"));
    let waiting = service.ingest(&event);
    tokio::pin!(waiting);
    let held = std::time::Instant::now();
    while held.elapsed() < Duration::from_secs(2) {
        tokio::select! {
            receipt = &mut waiting => panic!("committed under an exclusive lock: {receipt:?}"),
            ready = service.send(&ready) => assert_eq!(ready.status, 200, "{}", ready.text()),
        }
    }
    migrator.commit().await.expect("migrated");
    assert_eq!(waiting.await, Receipt::all_committed(1));
    stores.assert_delivered_exactly_once(&service, 11).await;
}

//! A server that vanishes in the middle of a statement: nothing comes any more, not even an end of the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use log_writer_service::timescale::{
    ActionOutcome, Actor, ClaimOrder, ClaimRequest, Monitor, Outbox, Requeued, Rest, Settlement, StoreError,
    StoreErrorKind, housekeep, record, upkeep_letters,
};
use serde_json::json;
use sqlx::{Executor, PgPool, postgres::PgPoolOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use uuid::Uuid;

use crate::timescale_database::{MODE, TestDatabase, event, request, with_database};

const LEASE: Duration = Duration::from_secs(60);
/// Calls that wait at once, each on a connection of its own.
const CALLS: u8 = 11;

/// A pool whose connections are all made and, once frozen, hold every byte back.
async fn freezable_pool(database: &TestDatabase, frozen: &Arc<AtomicBool>) -> PgPool {
    let options = database.pool.connect_options();
    let server = (options.get_host().to_owned(), options.get_port());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let frozen = Arc::clone(frozen);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&server).await else {
                continue;
            };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(pass_on(from_client, to_server, Arc::clone(&frozen)));
            tokio::spawn(pass_on(from_server, to_client, Arc::clone(&frozen)));
        }
    });
    let pool = PgPoolOptions::new()
        .max_connections(CALLS.into())
        .acquire_timeout(Duration::from_secs(30))
        .connect_lazy_with((*options).clone().host("127.0.0.1").port(port));
    // All at once, a slow machine would not make them within that time.
    let mut connected = Vec::new();
    for _ in 0..CALLS {
        connected.push(pool.acquire().await.expect("connected"));
    }
    drop(connected);
    pool
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, frozen: Arc<AtomicBool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut bytes).await {
        if frozen.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if to.write_all(bytes.get(..len).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

fn kind<T>(outcome: &Result<T, StoreError>) -> Option<StoreErrorKind> {
    outcome.as_ref().err().map(StoreError::kind)
}

#[tokio::test]
async fn a_server_that_vanishes_is_not_waited_for_for_ever() {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("one", &[event(1)])], &MODE)
            .await
            .expect("committed");
        let claim = ClaimRequest {
            owner: Uuid::from_u128(1),
            lease: LEASE,
            events_max: 5_000,
            bytes_max: 8_000_000,
            order: ClaimOrder::OldestFirst,
            left_alone: &[],
        };
        let rows = database.outbox.claim(&claim).await.expect("claimed");
        let held: Vec<_> = rows.iter().map(|row| (row.id, row.attempts)).collect();
        let settled = [Settlement {
            id: rows[0].id,
            attempts: 1,
            indexed: 1,
            dead: Vec::new(),
            expired: 0,
            awaited: Vec::new(),
            rest: Rest::Done,
        }];

        let frozen = Arc::new(AtomicBool::new(false));
        let pool = freezable_pool(database, &frozen).await;
        let (outbox, monitor) = (Outbox::new(pool.clone()), Monitor::new(pool.clone()));
        let mut locker = database.bystander().await;
        locker
            .execute(
                "begin; lock table log_writer.outbox, log_writer.books, log_writer.dead_letters, log_writer.audit,
                   application_logs in access exclusive mode",
            )
            .await
            .expect("locked");

        let (actor, target) = (Actor::of_process(), json!({}));
        let calls: [BoxFuture<'_, Option<StoreErrorKind>>; CALLS as usize] = [
            Box::pin(async { kind(&outbox.claim(&claim).await) }),
            Box::pin(async { kind(&outbox.renew(claim.owner, &held, LEASE).await) }),
            Box::pin(async { kind(&outbox.release(claim.owner).await) }),
            Box::pin(async { kind(&outbox.settle(claim.owner, "worker", &settled).await) }),
            Box::pin(async { kind(&outbox.read_back(&rows).await) }),
            Box::pin(async { kind(&monitor.snapshot(LEASE / 2).await) }),
            Box::pin(async { kind(&housekeep(&pool, &database.settings, Duration::ZERO).await) }),
            Box::pin(async { kind(&outbox.claimed_otherwise(&held).await) }),
            Box::pin(async { kind(&upkeep_letters(&pool, &database.settings).await) }),
            Box::pin(async { kind(&Requeued::requeue(&pool, "worker", None, &[1], 1, 1).await) }),
            Box::pin(async { kind(&record(&pool, &actor, "a test", &target, 0, ActionOutcome::Running).await) }),
        ];
        let vanish = async {
            let all_wait = format!(
                "select count(*) = {CALLS} from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and backend_type = 'client backend'"
            );
            database.until(&all_wait).await;
            frozen.store(true, Ordering::Relaxed);
            locker.execute("rollback").await.expect("released");
        };
        let (kinds, ()) = tokio::join!(tokio::time::timeout(LEASE, join_all(calls)), vanish);
        assert_eq!(
            kinds.expect("every call has an end"),
            [Some(StoreErrorKind::Timeout); CALLS as usize]
        );

        // Nothing of the pool is stuck with what was lost.
        frozen.store(false, Ordering::Relaxed);
        monitor.snapshot(LEASE).await.expect("new connections are made");
    })
    .await;
}

#[tokio::test]
async fn the_server_is_asked_to_notice_when_we_vanish() {
    with_database(async |database| {
        for (setting, value) in [
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
            ("statement_timeout", "30s"),
        ] {
            assert_eq!(database.text(&format!("show {setting}")).await, value, "{setting}");
        }
    })
    .await;
}

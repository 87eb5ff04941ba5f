//! Breaks one thing for a while, and mends it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    arena::{Arena, Replica},
    plan::{Fault, Planned},
};
use crate::proxy::Mode;

/// Pause of a slow connection before each piece of a request.
const SLOW: Duration = Duration::from_millis(150);
/// The same, when a bulk is to take longer than a lease.
const VERY_SLOW: Duration = Duration::from_secs(1);
/// Time for a setting to be taken back: Elasticsearch may have been killed meanwhile.
const MEND_TIME: Duration = Duration::from_secs(180);

/// Faults injected, by kind.
#[derive(Debug, Default)]
pub(super) struct Injected(Mutex<BTreeMap<Fault, u64>>);

impl Injected {
    fn count(&self, fault: Fault) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(fault)
            .or_default() += 1;
    }

    pub(super) fn taken(&self) -> BTreeMap<Fault, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Waits for the fault's time, breaks, waits for its length, mends. Whatever is broken is whole again when it returns.
///
/// Faults of one thing (a process, a connection, a server) wait for one another; those of different things overlap.
pub(super) async fn inject(arena: &Arena, planned: &Planned, injected: &Injected) {
    sleep(planned.begin).await;
    let replica = &arena.replicas[planned.replica];
    let happened = match planned.fault {
        Fault::ReplicaKilled | Fault::ReplicaFrozen | Fault::FrozenWhileSending => {
            break_process(arena, replica, planned).await;
            true
        }
        Fault::AnswerLost
        | Fault::ClientsReset
        | Fault::CommitAnswerLost
        | Fault::PostgresCut
        | Fault::PostgresStalled
        | Fault::BulkAnswerLost
        | Fault::ElasticsearchStalled
        | Fault::ElasticsearchReset => break_connections(replica, planned).await,
        Fault::BackendTerminated | Fault::PostgresRestarted | Fault::PostgresCrashed => {
            break_postgres(arena, planned).await
        }
        Fault::ElasticsearchKilled | Fault::ElasticsearchRestarted => {
            let _alone = arena.elasticsearch.lock().await;
            if planned.fault == Fault::ElasticsearchKilled {
                arena.servers.kill_elasticsearch().await;
            } else {
                arena.servers.stop_elasticsearch().await;
            }
            sleep(planned.length).await;
            arena.servers.start_elasticsearch_again().await;
            true
        }
        Fault::ReadOnly => block(arena, planned, "index.blocks.read_only").await,
        Fault::FloodStage => block(arena, planned, "index.blocks.read_only_allow_delete").await,
        Fault::RolloverInReplay => roll_over_in_replay(arena, replica, planned).await,
        Fault::MappingFull => fill_mapping(arena, planned).await,
    };
    if happened {
        injected.count(planned.fault);
    }
}

async fn break_process(arena: &Arena, replica: &Replica, planned: &Planned) {
    let mut process = replica.process.lock().await;
    match planned.fault {
        Fault::ReplicaKilled => {
            replica.counters.look(replica.address).await;
            process.kill();
            replica.counters.next_process();
            sleep(planned.length).await;
            process.start_again();
        }
        Fault::ReplicaFrozen => {
            process.signal("STOP");
            sleep(planned.length).await;
            process.signal("CONT");
        }
        _ => {
            let freeze = async {
                sleep(VERY_SLOW).await;
                process.signal("STOP");
                sleep(planned.length / 4 * 3).await;
                if planned.rollover {
                    roll_over(arena).await;
                }
                sleep(planned.length / 4).await;
                process.signal("CONT");
                sleep(VERY_SLOW * 2).await;
            };
            replica.to_elasticsearch.with(Mode::Slow(VERY_SLOW), freeze).await;
        }
    }
}

/// Whether a connection was met by it.
async fn break_connections(replica: &Replica, planned: &Planned) -> bool {
    let (door, mode) = match planned.fault {
        Fault::AnswerLost => (&replica.from_clients, Mode::CutAnswerAfter(0)),
        Fault::ClientsReset => (&replica.from_clients, Mode::Reset),
        Fault::CommitAnswerLost => (&replica.to_postgres, Mode::CutAnswerTo("; commit")),
        Fault::PostgresCut => (&replica.to_postgres, Mode::CutAnswerAfter(planned.bytes)),
        Fault::PostgresStalled => (&replica.to_postgres, Mode::Stall),
        Fault::BulkAnswerLost => (&replica.to_elasticsearch, Mode::CutAnswerTo("/_bulk")),
        Fault::ElasticsearchStalled => (&replica.to_elasticsearch, Mode::Stall),
        _ => (&replica.to_elasticsearch, Mode::Reset),
    };
    door.with(mode, sleep(planned.length)).await
}

async fn break_postgres(arena: &Arena, planned: &Planned) -> bool {
    let _alone = arena.postgres.lock().await;
    match planned.fault {
        Fault::PostgresRestarted | Fault::PostgresCrashed => {
            arena
                .servers
                .restart_postgres(planned.fault == Fault::PostgresCrashed)
                .await;
            true
        }
        _ => {
            // One that works, if there is one.
            let terminated = sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid() and application_name like 'log-writer%'
                 order by state = 'active' desc, query_start desc limit 1",
            )
            .fetch_optional(arena.database.pool())
            .await;
            matches!(terminated, Ok(Some(_)))
        }
    }
}

/// Sets a block on all backing indices of the stream, and takes it away.
async fn block(arena: &Arena, planned: &Planned, name: &str) -> bool {
    let _alone = arena.blocks.lock().await;
    break_setting(arena, planned, &json!({ name: true }), &json!({ name: null })).await
}

/// Documents are applied without an answer; while they are looked up and sent again, slowly, the write index changes.
async fn roll_over_in_replay(arena: &Arena, replica: &Replica, planned: &Planned) -> bool {
    let door = &replica.to_elasticsearch;
    let mut rolled_over = false;
    for _ in 0..3 {
        door.with(Mode::CutAnswerTo("/_bulk"), sleep(planned.length)).await;
        let rollover = async {
            sleep(SLOW * 2).await;
            rolled_over |= roll_over(arena).await;
            sleep(SLOW * 2).await;
        };
        door.with(Mode::Slow(SLOW), rollover).await;
    }
    rolled_over
}

async fn roll_over(arena: &Arena) -> bool {
    let path = format!("/{}/_rollover", arena.stream.name());
    matches!(arena.stream.search.call("POST", &path, None).await, Ok((200, _)))
}

/// The indices of that time take no names that they do not have.
async fn fill_mapping(arena: &Arena, planned: &Planned) -> bool {
    let _alone = arena.mapping.lock().await;
    let limit = |fields: u16, ignore: bool| {
        json!({ "index.mapping.total_fields.limit": fields,
            "index.mapping.total_fields.ignore_dynamic_beyond_limit": ignore })
    };
    break_setting(arena, planned, &limit(1, false), &limit(500, true)).await
}

/// Changes a setting of all backing indices, and takes it back whatever was answered: it may have been applied.
async fn break_setting(arena: &Arena, planned: &Planned, broken: &Value, whole: &Value) -> bool {
    let happened = matches!(put(arena, broken).await, Ok((200, _)));
    sleep(planned.length).await;
    let begun = Instant::now();
    loop {
        match put(arena, whole).await {
            // 404: there is no stream yet.
            Ok((200 | 404, _)) => return happened,
            answer => assert!(
                begun.elapsed() < MEND_TIME,
                "{whole} is refused for {MEND_TIME:?}: {answer:?}"
            ),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn put(arena: &Arena, settings: &Value) -> Result<(u16, Value), reqwest::Error> {
    let path = format!("/{}/_settings", arena.stream.name());
    arena.stream.search.call("PUT", &path, Some(settings)).await
}

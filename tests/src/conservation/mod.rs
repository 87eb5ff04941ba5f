//! Conservation runs: two replicas, senders as Vector is one, and faults drawn from a seed. Nothing is lost, nothing
//! doubled, in both stores.
//!
//! A seed draws the bodies and the faults with their times ([`Plan`]); how they meet is left to the machine. Faults of
//! different things overlap. At the end everything is mended, senders go on until all is acknowledged, the outbox drains,
//! and both stores are compared with what was sent ([`Outcome`]). A run counts only with the hard paths that it took
//! ([`HARD_PATHS`]).

mod arena;
mod bodies;
mod faults;
mod hard_paths;
mod plan;
mod report;
mod senders;
mod servers;
mod verdict;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures::{FutureExt as _, future::join_all};
use tokio::task::JoinHandle;

use self::{arena::Arena, bodies::Body, faults::Injected};
pub use self::{
    hard_paths::{HARD_PATHS, HardPath, Taken},
    plan::{Fault, Plan, Planned, Size},
    report::{Outcome, Summary},
    servers::{OwnPostgres, Servers},
};

/// How long senders, or the outbox, may stand still once everything is mended: longer than any pause of the service's.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// One run. Whatever goes wrong stands in its outcome; logs of the replicas are then kept in `logs`, if that is given.
pub async fn run(servers: &Arc<Servers>, seed: u64, size: &Size, logs: Option<&Path>) -> Outcome {
    let begun = Instant::now();
    let run = std::panic::AssertUnwindSafe(run_to_its_end(Arc::clone(servers), seed, *size, logs));
    let mut outcome = Box::pin(run.catch_unwind()).await.unwrap_or_else(|panic| Outcome {
        wrong: vec![verdict::message_of(panic.as_ref())],
        ..Outcome::default()
    });
    outcome.seed = seed;
    outcome.elapsed = begun.elapsed();
    outcome
}

async fn run_to_its_end(servers: Arc<Servers>, seed: u64, size: Size, logs: Option<&Path>) -> Outcome {
    let plan = Plan::draw(seed, &size);
    let arena = Arc::new(Arena::open(servers).await);
    let watching = watch_counters(&arena);
    let injected = Arc::new(Injected::default());
    let faults = inject_all(&arena, &plan.faults, &injected);
    let done = Arc::new(AtomicU64::new(0));
    let sent: Vec<Body> = plan.senders.iter().flatten().cloned().collect();
    let senders = send_all(&arena, plan.senders, seed, &done);

    let mut outcome = Outcome::default();
    for ended in join_all(faults).await {
        if let Err(error) = ended {
            outcome.wrong.push(format!("a fault could not be mended: {error}"));
        }
    }
    let all_sent = until_still(&done, async {
        for met in join_all(senders).await {
            let met = met.expect("a sender ends with its last body");
            outcome.wrong.extend(met.wrong);
            for (answer, times) in met.answers {
                *outcome.answers.entry(answer).or_default() += times;
            }
        }
    })
    .await;
    if !all_sent {
        let bodies = done.load(Ordering::Relaxed);
        let problem = format!(
            "{bodies} of {} bodies were acknowledged, and then none for {STANDSTILL_MAX:?}",
            sent.len()
        );
        outcome.wrong.push(problem);
    } else if let Err(problem) = until_drained(&arena).await {
        outcome.wrong.push(problem);
    } else {
        let verdict = verdict::judge(&arena, &sent).await;
        outcome.events = verdict.events;
        outcome.lost = verdict.lost;
        outcome.doubled = verdict.doubled;
        outcome.wrong.extend(verdict.wrong);
    }
    for replica in &arena.replicas {
        replica.counters.look(replica.address).await;
        outcome.taken.add(&replica.counters.taken());
    }
    outcome.faults = injected.taken();
    watching.iter().for_each(JoinHandle::abort);
    if let Some(logs) = logs
        && !outcome.is_right()
    {
        keep_logs(&arena, logs, seed).await;
    }
    outcome
}

fn watch_counters(arena: &Arc<Arena>) -> Vec<JoinHandle<()>> {
    (0..arena.replicas.len())
        .map(|number| {
            let arena = Arc::clone(arena);
            tokio::spawn(async move {
                let replica = &arena.replicas[number];
                replica.counters.watch(replica.address).await;
            })
        })
        .collect()
}

fn inject_all(arena: &Arc<Arena>, faults: &[Planned], injected: &Arc<Injected>) -> Vec<JoinHandle<()>> {
    faults
        .iter()
        .map(|planned| {
            let (arena, injected, planned) = (Arc::clone(arena), Arc::clone(injected), *planned);
            tokio::spawn(async move { faults::inject(&arena, &planned, &injected).await })
        })
        .collect()
}

fn send_all(arena: &Arena, senders: Vec<Vec<Body>>, seed: u64, done: &Arc<AtomicU64>) -> Vec<JoinHandle<senders::Met>> {
    let mut rng = Rng::with_seed(!seed);
    let [first, second] = &arena.replicas;
    let doors = [first.from_clients.address(), second.from_clients.address()];
    senders
        .into_iter()
        .map(|bodies| tokio::spawn(senders::send_all(bodies, doors, rng.fork(), Arc::clone(done))))
        .collect()
}

/// Waits for the senders; false if none of them got on for too long.
async fn until_still(done: &AtomicU64, all: impl Future<Output = ()>) -> bool {
    let standstill = async {
        let (mut last, mut since) = (done.load(Ordering::Relaxed), Instant::now());
        while since.elapsed() < STANDSTILL_MAX {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = done.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    };
    tokio::select! {
        () = all => true,
        () = standstill => false,
    }
}

/// Waits for an empty outbox, as long as it shrinks.
async fn until_drained(arena: &Arena) -> Result<(), String> {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        let open = arena
            .database
            .number("select coalesce(sum(events), 0)::bigint + count(*) from log_writer.outbox")
            .await;
        if open == 0 {
            return Ok(());
        }
        if open < least {
            (least, since) = (open, Instant::now());
        }
        if since.elapsed() > STANDSTILL_MAX {
            return Err(format!(
                "the outbox stands at {open} for {STANDSTILL_MAX:?}, with everything mended"
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn keep_logs(arena: &Arena, folder: &Path, seed: u64) {
    std::fs::create_dir_all(folder).expect("cannot make the folder for logs");
    for (number, replica) in arena.replicas.iter().enumerate() {
        let file = folder.join(format!("{seed}-{number}.log"));
        let log = replica.process.lock().await.log();
        std::fs::write(&file, log).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
}

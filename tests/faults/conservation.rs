//! Two replicas, senders that resend as Vector does, and faults drawn from a seed: nothing is lost, nothing doubled.
//!
//! One short run, and another where it was too slow a machine to take the hard paths; many long ones: `make faults`.

use std::sync::Arc;

use log_writer_tests::conservation::{Servers, Size, Taken, run};

/// Runs in which each path must have been taken once.
const RUNS_MAX: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_doubled_whatever_breaks() {
    let servers = Arc::new(Servers::start().await);
    let mut taken = Taken::default();
    for _ in 0..RUNS_MAX {
        let seed = fastrand::Rng::new().u32(..).into();
        let outcome = run(&servers, seed, &Size::SHORT, None).await;
        assert!(
            outcome.is_right(),
            "the same schedule again: log-faults --short --runs 1 --seed {seed}\n{}",
            outcome.line()
        );
        taken.add(&outcome.taken);
        if taken.missing(false).is_empty() {
            return;
        }
    }
    panic!("{:?} never taken in {RUNS_MAX} runs", taken.missing(false));
}

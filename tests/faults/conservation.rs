//! Two replicas, senders that resend as Vector does, and faults drawn from a seed: nothing is lost, nothing doubled.
//!
//! One short run; many long ones: `make faults`.

use std::sync::Arc;

use log_writer_tests::conservation::{Servers, Size, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_doubled_whatever_breaks() {
    let servers = Arc::new(Servers::start().await);
    let seed = fastrand::Rng::new().u32(..).into();
    let outcome = run(&servers, seed, &Size::SHORT, None).await;
    assert!(
        outcome.is_right(),
        "the same schedule again: log-faults --short --runs 1 --seed {seed}\n{}",
        outcome.line()
    );
    let missing = outcome.taken.missing(false);
    assert!(missing.is_empty(), "{missing:?} never taken: {}", outcome.line());
}

//! Waiting for a condition with a deadline: the only way a test waits.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long a condition may take that should hold within seconds; generous, since two cores run everything.
pub const SOON: Duration = Duration::from_secs(30);

/// Asks again every 25 ms until there is a value.
///
/// # Panics
/// After `deadline`, saying what was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

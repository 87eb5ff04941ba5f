//! Senders that go on all the time, as the others do while somebody's request is held up: how long one of them waited.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{Answer, Request, send};

/// Requests of one sender begin at least this far apart.
const PACE: Duration = Duration::from_millis(20);
/// Between an answer that is no 200 and the same bytes again; Vector waits a second and longer.
const RETRY: Duration = Duration::from_millis(200);

/// Sends a request once, without waiting for its answer.
#[must_use]
pub fn send_aside(address: SocketAddr, request: Request) -> JoinHandle<io::Result<Answer>> {
    tokio::spawn(async move { send(address, &request).await })
}

/// What the senders saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Requests that were answered 200, one event each.
    pub acknowledged: u64,
    /// Other answers, after which the same bytes were sent again.
    pub refused: u64,
    /// The longest wait from the first byte sent until the 200.
    pub longest: Duration,
}

/// Senders under way.
#[derive(Debug)]
pub struct Traffic {
    stopped: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    senders: Vec<JoinHandle<Seen>>,
}

impl Traffic {
    /// Starts so many senders; each sends one new event at a time, the same bytes again until they are taken.
    #[must_use]
    pub fn start<F: Fn() -> Value + Send + Sync + 'static>(address: SocketAddr, senders: usize, event: F) -> Self {
        let (stopped, event) = (Arc::new(AtomicBool::new(false)), Arc::new(event));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let senders = (0..senders)
            .map(|_| {
                let (stopped, event) = (Arc::clone(&stopped), Arc::clone(&event));
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    let mut seen = Seen::default();
                    let mut pace = tokio::time::interval(PACE);
                    while !stopped.load(Ordering::Relaxed) {
                        pace.tick().await;
                        deliver(address, &Request::json(&json!([event()])), &mut seen).await;
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    seen
                })
            })
            .collect();
        Self {
            stopped,
            acknowledged,
            senders,
        }
    }

    /// Requests that were answered 200 so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Lets every sender finish what it has begun.
    ///
    /// # Panics
    /// If a sender met an answer after which Vector would drop the batch.
    pub async fn stop(self) -> Seen {
        self.stopped.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for sender in self.senders {
            let seen = sender.await.expect("a sender failed");
            all.acknowledged += seen.acknowledged;
            all.refused += seen.refused;
            all.longest = all.longest.max(seen.longest);
        }
        all
    }
}

async fn deliver(address: SocketAddr, request: &Request, seen: &mut Seen) {
    let begun = Instant::now();
    loop {
        match send(address, request).await {
            Ok(answer) if answer.status == 200 => break,
            Ok(answer) => assert!(
                matches!(answer.status, 408 | 429 | 503),
                "Vector would drop the batch on {}, or it is a panic: {}",
                answer.status,
                answer.text()
            ),
            Err(_) => {}
        }
        seen.refused += 1;
        tokio::time::sleep(RETRY).await;
    }
    seen.acknowledged += 1;
    seen.longest = seen.longest.max(begun.elapsed());
}

//! Senders as Vector's http sink is one: the same bytes again, for ever, on 408, 429, 5xx but 501, on a connection that
//! breaks and on an answer that does not come; every other status drops the batch.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;

use super::bodies::Body;
use crate::client::send;

/// How long a sender waits for an answer; longer than the service's own limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(9);
/// Pauses before a resend: the first, doubled up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));

/// What one sender met.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// Answers by status, and `broken` and `late` for those that did not come.
    pub(super) answers: BTreeMap<String, u64>,
    /// What must not be: batches that Vector would have dropped, receipts that do not add up.
    pub(super) wrong: Vec<String>,
}

/// Sends all bodies, one after another, to either replica; ends when all are acknowledged.
pub(super) async fn send_all(bodies: Vec<Body>, doors: [SocketAddr; 2], mut rng: Rng, done: Arc<AtomicU64>) -> Met {
    let mut met = Met::default();
    for body in bodies {
        tokio::time::sleep(body.pause).await;
        send_until_acknowledged(&body, doors, &mut rng, &mut met).await;
        done.fetch_add(1, Ordering::Relaxed);
    }
    met
}

async fn send_until_acknowledged(body: &Body, doors: [SocketAddr; 2], rng: &mut Rng, met: &mut Met) {
    let mut pause = PAUSE.0;
    loop {
        let door = doors[rng.usize(..doors.len())];
        let answer = match tokio::time::timeout(ANSWER_TIMEOUT, send(door, &body.request)).await {
            Err(_) => Err("late"),
            Ok(Err(_)) => Err("broken"),
            Ok(Ok(answer)) => Ok(answer),
        };
        let name = answer
            .as_ref()
            .map_or_else(|name| (*name).to_owned(), |answer| answer.status.to_string());
        *met.answers.entry(name).or_default() += 1;
        match answer {
            Ok(answer) if answer.status == 200 => {
                let receipt = answer.receipt();
                let sent = body.events.len() + body.broken_lines;
                let told = receipt.committed + receipt.duplicates + receipt.dead_lettered;
                if receipt.received != sent as u64 || told != receipt.received {
                    met.wrong
                        .push(format!("{:?}, {sent} events: receipt {receipt:?}", body.kind));
                }
                return;
            }
            Ok(answer) if !is_sent_again(answer.status) => {
                let (status, text) = (answer.status, answer.text());
                met.wrong.push(format!(
                    "{:?} answered {status}, which Vector drops, or which is a panic: {text}",
                    body.kind
                ));
                return;
            }
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Vector sends again on 500 too, but that is a panic.
fn is_sent_again(status: u16) -> bool {
    matches!(status, 408 | 429) || status > 501
}

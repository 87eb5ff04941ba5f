//! Events as a busy source sends them: requests of a hundred, resent until they are taken.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    client::{Connection, Request},
    stack::random_word,
};

/// Events of one request.
pub const PER_REQUEST: u64 = 100;
/// How long a sender sends the same body, under keys of its own, before it makes one with newer times.
const BODY_AGE_MAX: Duration = Duration::from_secs(1);

/// How fast.
#[derive(Debug, Clone, Copy)]
pub enum Rate {
    /// As fast as it is answered.
    Full,
    /// So many events a second.
    PerSecond(u64),
}

/// Sends so many events, rounded up to whole requests; events a second that were acknowledged.
///
/// # Errors
/// If an answer is another than 200, 429 and 503, or a connection breaks.
#[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
pub async fn send(address: SocketAddr, events: u64, connections: usize, rate: Rate) -> Result<f64> {
    let requests = events.div_ceil(PER_REQUEST);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let word = random_word();
    let senders = (0..connections).map(|_| {
        let (next, word) = (Arc::clone(&next), word.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await.context("the service does not listen")?;
            let (mut body, mut made) = (body(), Instant::now());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return Ok(());
                }
                if let Rate::PerSecond(rate) = rate {
                    let due = Duration::from_secs_f64((number * PER_REQUEST) as f64 / rate as f64);
                    tokio::time::sleep_until((start + due).into()).await;
                }
                if made.elapsed() > BODY_AGE_MAX {
                    (body, made) = (self::body(), Instant::now());
                }
                let request = body.clone().header("idempotency-key", &format!("{word}-{number}"));
                send_one(&mut connection, &request).await?;
            }
        })
    });
    for sender in futures::future::join_all(senders).await {
        let outcome: Result<()> = sender?;
        outcome?;
    }
    Ok((requests * PER_REQUEST) as f64 / start.elapsed().as_secs_f64())
}

async fn send_one(connection: &mut Connection, request: &Request) -> Result<()> {
    loop {
        let answer = connection.send(request).await?;
        match answer.status {
            200 => return Ok(()),
            429 | 503 => tokio::time::sleep(Duration::from_millis(100)).await,
            status => bail!("answer {status}: {}", answer.text()),
        }
    }
}

/// About 450 bytes an event, a few microseconds apart.
fn body() -> Request {
    let now = Utc::now();
    let events: Vec<Value> = (0..PER_REQUEST)
        .map(|number| {
            let time = now + TimeDelta::microseconds(i64::try_from(number).unwrap_or_default());
            let level = if number % 10 == 9 { "ERROR" } else { "INFO" };
            json!({
                "timestamp": time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true), "level": level,
                "service": format!("load-{}", number % 5), "host": format!("node-{}", number % 8),
                "message": format!("GET /api/v1/bookmarks/{number} 200 in {}ms, cache miss for shard {}", number * 7, number % 64),
                "correlation_id": format!("c-{}-{}", now.timestamp(), number / 7), "user_id": format!("user-{number}"),
                "tags": ["web", "load"], "performance_metrics": { "duration_ms": number * 7 },
                "fields": { "region": "eu-1", "number": number, "request": { "method": "GET", "path": format!("/api/v1/x/{number}") } },
            })
        })
        .collect();
    Request::json(&Value::Array(events))
}

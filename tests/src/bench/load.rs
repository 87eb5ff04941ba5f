//! Sends encoded requests over kept-alive connections, each with one request at a time, in one thread.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::try_join_all;

use crate::client::Connection;

/// How long a leg took, and each of its exchanges, the shortest first.
#[derive(Debug)]
pub struct Times {
    pub(super) took: Duration,
    /// None where Vector was the sender.
    pub(super) each: Vec<Duration>,
    /// Vector's processor time, where Vector was the sender.
    pub(super) vector_cpu: Option<Duration>,
}

impl Times {
    /// What so many of a hundred exchanges took at most, in milliseconds; not a number where none was timed.
    pub(super) fn quantile_ms(&self, percent: usize) -> f64 {
        let position = (self.each.len() * percent).div_ceil(100).saturating_sub(1);
        self.each
            .get(position)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Sends every request once.
///
/// # Errors
/// If an answer is another than 200.
pub async fn send(address: SocketAddr, requests: &[Bytes], connections: usize) -> Result<Times> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await.context("the service does not listen")?);
    }
    share(requests, open, async |connection, request| {
        connection.write(request).await?;
        let answer = connection.answer(false).await?;
        if answer.status != 200 {
            bail!("answer {}: {}", answer.status, answer.text());
        }
        Ok(())
    })
    .await
}

/// Lets connections take one piece of work after the other, each as soon as it has done the one before.
///
/// # Errors
/// The first one; the rest is left.
pub(super) async fn share<T, C>(
    work: &[T],
    connections: Vec<C>,
    one: impl AsyncFn(&mut C, &T) -> Result<()>,
) -> Result<Times> {
    let next = Cell::new(0);
    let start = Instant::now();
    let workers = connections.into_iter().map(async |mut connection| {
        let mut times = Vec::new();
        while let Some(piece) = work.get(next.replace(next.get() + 1)) {
            let start = Instant::now();
            one(&mut connection, piece).await?;
            times.push(start.elapsed());
        }
        anyhow::Ok(times)
    });
    let mut each = try_join_all(workers).await?.concat();
    each.sort();
    Ok(Times {
        took: start.elapsed(),
        each,
        vector_cpu: None,
    })
}

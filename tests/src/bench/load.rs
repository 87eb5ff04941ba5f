//! Sends encoded requests over kept-alive connections, each with one request at a time, in one thread.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;

use super::legs::{Times, share};
use crate::client::Connection;

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

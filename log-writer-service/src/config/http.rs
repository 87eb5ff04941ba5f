//! Section `[http]`: where requests come in and how much of them is held.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

/// Section `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port to listen on.
    #[serde(with = "super::unit::address")]
    pub listen: SocketAddr,
    /// Largest body, in bytes, as received and after decompression; a larger one is answered 413.
    #[serde(with = "super::unit::bytes")]
    pub body_bytes_max: usize,
    /// Bytes that all requests together may hold (bodies, expanded bodies, encoded rows); beyond it: 429.
    #[serde(with = "super::unit::bytes")]
    pub inflight_bytes_max: usize,
    /// Open connections at most; one too many is closed at once.
    pub connections_max: usize,
    /// Bytes that a connection reads ahead, and so about the largest head; one of twice as much is always answered 431.
    #[serde(with = "super::unit::bytes")]
    pub head_bytes_max: usize,
    /// Time for the request line and headers to arrive; a kept-alive connection may be idle for as long.
    #[serde(with = "super::unit::duration")]
    pub header_timeout: Duration,
    /// Time for the whole body to arrive, and for a sender to take a part of its answer.
    #[serde(with = "super::unit::duration")]
    pub body_timeout: Duration,
    /// Time from the end of the body to the answer; then 503. Vector gives up after 60 s by default.
    #[serde(with = "super::unit::duration")]
    pub answer_timeout: Duration,
    /// Time that a shutdown goes on serving while `/ready` says 503, before the listener closes.
    #[serde(with = "super::unit::duration")]
    pub shutdown_delay: Duration,
    /// Time that a shutdown then waits for what was begun.
    #[serde(with = "super::unit::duration")]
    pub drain_timeout: Duration,
    /// Whether it may listen beyond loopback although nobody is asked for a credential.
    pub allow_unauthenticated: bool,
}

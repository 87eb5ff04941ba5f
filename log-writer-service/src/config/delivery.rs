//! Section `[delivery]`: how committed events get to Elasticsearch.

use std::time::Duration;

use serde::Deserialize;

/// Section `[delivery]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Claims worked on at once.
    pub workers: usize,
    /// How long a claim lasts without renewal.
    #[serde(with = "super::unit::duration")]
    pub lease: Duration,
    /// How often a claim is renewed.
    #[serde(with = "super::unit::duration")]
    pub renew_every: Duration,
    /// How often the outbox is looked at when no commit wakes delivery.
    #[serde(with = "super::unit::duration")]
    pub poll_every: Duration,
    /// How long a stream rests after a small claim of all it had, so that the next one is larger; zero: not at all.
    #[serde(with = "super::unit::duration")]
    pub linger: Duration,
    /// Events of one claim at most.
    pub claim_events_max: i64,
    /// Bytes of one claim at most.
    #[serde(with = "super::unit::bytes")]
    pub claim_bytes_max: usize,
    /// First pause after a failure; doubled each time, jittered.
    #[serde(with = "super::unit::duration")]
    pub retry_min: Duration,
    /// Longest pause after a failure.
    #[serde(with = "super::unit::duration")]
    pub retry_max: Duration,
    /// Bulks in a row that must fail alike, in nearly all items, before a stream pauses.
    pub breaker_bulks: u32,
}

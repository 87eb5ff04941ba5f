//! What receiving and delivering cost apart, and at once.
//!
//! Elasticsearch is stopped (SIGSTOP) while events are received, and goes on when all are answered: one process, whose time
//! for either is known. Each worker claims, reads back and encodes what one claim holds before it meets the stopped node, so
//! up to 20,000 events with the default settings are partly paid for by the phase before.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::Utc;
use serde::{Deserialize, Serialize};

use super::{
    PER_REQUEST, encoded,
    events::{Shape, bodies},
    load,
    meter::{Cost, Meter, node},
    replicas::{Place, check_stores},
    until_delivered,
};
use crate::{
    process::Process,
    service::{Service, Settings},
    stack::{Database, Stream},
};

/// Connections of the load.
const CONNECTIONS: usize = 64;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Without Elasticsearch.
    Receiving,
    /// Into the outbox, too; Elasticsearch is stopped.
    ReceivingForLater,
    /// What was received for later; nothing arrives.
    Delivering,
    /// Both at once, until Elasticsearch has all.
    Both,
}

/// What one phase showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leg {
    /// Of what.
    pub phase: Phase,
    /// Events a second.
    pub rate: f64,
    /// Processor time.
    pub cost: Cost,
    /// How often the service's threads went to sleep, an event.
    pub sleeps: f64,
    /// How often one was taken off its processor for another thread, an event.
    pub preempted: f64,
    /// Pages of memory that were mapped, an event.
    pub faults: f64,
}

impl Phase {
    /// How it is named in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Receiving => "receiving, without Elasticsearch",
            Self::ReceivingForLater => "receiving, Elasticsearch stopped",
            Self::Delivering => "delivering what waited",
            Self::Both => "receiving and delivering at once",
        }
    }
}

/// One round: every phase once, each with so many events; tells of each when it has ended.
///
/// # Errors
/// If a store is not on this machine, an answer is another than 200, or the stores disagree at the end.
pub async fn round(place: Place<'_>, events: usize, mut told: impl FnMut(Leg)) -> Result<()> {
    told(
        Stores::start(place, events, false)
            .await?
            .measure(Phase::Receiving)
            .await?,
    );
    let mut both = Stores::start(place, events, true).await?;
    let stopped = both.stop_elasticsearch().await?;
    told(both.measure(Phase::ReceivingForLater).await?);
    drop(stopped);
    told(both.measure(Phase::Delivering).await?);
    told(both.measure(Phase::Both).await?);
    check_stores(&both.database, Some(&both.stream), both.sent).await
}

/// A service with its stores.
struct Stores {
    service: Service,
    meter: Meter,
    /// Events of one phase.
    events: usize,
    /// Numbers of events that were sent.
    sent: usize,
    stream: Stream,
    database: Database,
}

impl Stores {
    async fn start(place: Place<'_>, events: usize, delivers: bool) -> Result<Self> {
        let (database, stream) = (
            Database::create_on(place.database_url).await,
            Stream::on(place.elasticsearch_url),
        );
        let settings = Settings::default()
            .set("database.url", database.url())
            .set("elasticsearch.urls", &format!("[\"{}\"]", place.elasticsearch_url))
            .set("elasticsearch.enabled", &delivers.to_string())
            .set("events.default_tenant", &stream.tenant)
            .program(place.program);
        let service = Service::start(settings).await;
        let meter = Meter::of(&[&service], &database, Some(&stream.search)).await?;
        let mut stores = Self {
            service,
            meter,
            events,
            sent: 0,
            stream,
            database,
        };
        // The stream and the chunk are made, every connection is open.
        let first = stores.next_requests(CONNECTIONS * PER_REQUEST);
        stores.send(&first).await?;
        stores.deliver().await;
        Ok(stores)
    }

    async fn measure(&mut self, phase: Phase) -> Result<Leg> {
        let requests = match phase {
            Phase::Delivering => Vec::new(),
            _ => self.next_requests(self.events),
        };
        let service = Process::of(self.service.pid());
        let (before, interruptions, start) = (self.meter.read(), service.interruptions(), Instant::now());
        self.send(&requests).await?;
        if matches!(phase, Phase::Delivering | Phase::Both) {
            self.deliver().await;
        }
        let took = start.elapsed();
        let cost = (self.meter.read() - before).per_event(self.events);
        let after = service.interruptions();
        let each = |count: u64| count as f64 / self.events as f64;
        Ok(Leg {
            phase,
            rate: self.events as f64 / took.as_secs_f64(),
            cost,
            sleeps: each(after.slept.saturating_sub(interruptions.slept)),
            preempted: each(after.preempted.saturating_sub(interruptions.preempted)),
            faults: each(after.faulted - interruptions.faulted),
        })
    }

    /// No event is sent twice.
    fn next_requests(&mut self, events: usize) -> Vec<Bytes> {
        let first = self.sent;
        self.sent += events;
        encoded(bodies(Utc::now(), first..self.sent, PER_REQUEST, Shape::Typical))
    }

    async fn send(&self, requests: &[Bytes]) -> Result<()> {
        load::send(self.service.address(), requests, CONNECTIONS).await?;
        Ok(())
    }

    /// Waits until Elasticsearch has all; without one nothing is outstanding.
    async fn deliver(&self) {
        until_delivered(&self.database).await;
    }

    async fn stop_elasticsearch(&self) -> Result<Stopped> {
        let node = node(&self.stream.search)
            .await
            .context("Elasticsearch is not on this machine")?;
        node.signal("STOP");
        Ok(Stopped(node))
    }
}

/// A process that is stopped until this is dropped.
struct Stopped(Process);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

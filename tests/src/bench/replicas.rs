//! Two replicas behind a plain round-robin, beside one: nothing lost, nothing twice, and how fast.
//!
//! Every connection belongs to one of the replicas, in turn. One request in fifty is sent twice at the same time, to both, as
//! a load balancer does that tries again elsewhere: its events must be stored once.

use std::{net::SocketAddr, path::Path, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use chrono::Utc;
use futures::future::{join_all, try_join};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    PER_REQUEST, encoded,
    events::{Shape, bodies},
    load::share,
    meter::{Cost, Meter},
    until_delivered,
};
use crate::{
    client::{Connection, Receipt},
    service::{Service, Settings},
    stack::{Database, Stream},
};

/// Connections of all replicas together.
const CONNECTIONS: usize = 64;
/// Every so many requests one is sent twice.
const TWICE_EVERY: usize = 50;

/// What one leg showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leg {
    /// How many replicas.
    pub replicas: usize,
    /// Whether Elasticsearch was on.
    pub delivers: bool,
    /// Events that were acknowledged as stored.
    pub events: usize,
    /// Events a second until the last answer.
    pub rate: f64,
    /// Documents a second from the first request until Elasticsearch had all.
    pub delivered_rate: Option<f64>,
    /// Events of requests that were sent twice, as receipts counted them.
    pub duplicates: u64,
    /// Processor time.
    pub cost: Cost,
}

/// Where the servers are.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The service.
    pub program: &'a Path,
    /// PostgreSQL.
    pub database_url: &'a str,
    /// Elasticsearch.
    pub elasticsearch_url: &'a str,
}

impl Leg {
    /// Sends so many events to so many replicas with stores of their own.
    ///
    /// # Errors
    /// If anything is refused, lost or stored twice.
    pub async fn run(place: Place<'_>, replicas: usize, events: usize, delivers: bool) -> Result<Self> {
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
        let services = join_all((0..replicas).map(|_| Service::start(settings.clone()))).await;
        let meter = Meter::of(&services.iter().collect::<Vec<_>>(), &database, Some(&stream.search)).await?;
        let addresses: Vec<SocketAddr> = services.iter().map(Service::address).collect();
        let sent = encoded(bodies(Utc::now(), 0..events, PER_REQUEST, Shape::Typical));
        let work: Vec<(usize, &Bytes)> = sent.iter().enumerate().collect();
        let before = meter.read();
        let start = Instant::now();
        let counted = std::cell::Cell::new((0, 0));
        share(
            &work,
            connections(&addresses).await?,
            async |[own, other], (number, request)| {
                let is_twice = number % TWICE_EVERY == 0;
                let receipts = if is_twice {
                    let (one, two) = try_join(exchange(own, request), exchange(other, request)).await?;
                    vec![one, two]
                } else {
                    vec![exchange(own, request).await?]
                };
                let (mut committed, mut duplicates) = counted.get();
                for receipt in receipts {
                    committed += receipt.committed;
                    duplicates += receipt.duplicates;
                }
                counted.set((committed, duplicates));
                Ok(())
            },
        )
        .await?;
        let answered = start.elapsed();
        let delivered_rate = if delivers {
            until_delivered(&database).await;
            Some(events as f64 / start.elapsed().as_secs_f64())
        } else {
            None
        };
        let cost = (meter.read() - before).per_event(events);
        let (committed, duplicates) = counted.get();
        let twice = (work.len().div_ceil(TWICE_EVERY) * PER_REQUEST) as u64;
        ensure!(
            (committed, duplicates) == (events as u64, twice),
            "receipts count {committed} stored and {duplicates} known of {events} events and {twice} sent twice"
        );
        check_stores(&database, delivers.then_some(&stream), events).await?;
        Ok(Self {
            replicas,
            delivers,
            events,
            rate: events as f64 / answered.as_secs_f64(),
            delivered_rate,
            duplicates,
            cost,
        })
    }

    /// How it is named in tables.
    #[must_use]
    pub fn name(&self) -> String {
        let replicas = if self.replicas == 1 { "replica" } else { "replicas" };
        let stores = if self.delivers { "both stores" } else { "SQL only" };
        format!("{} {replicas}, {stores}", self.replicas)
    }
}

/// For each sender a connection to its replica and one to the next.
async fn connections(addresses: &[SocketAddr]) -> Result<Vec<[Connection; 2]>> {
    let mut open = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let own = Connection::open(addresses[number % addresses.len()]).await?;
        open.push([own, Connection::open(addresses[(number + 1) % addresses.len()]).await?]);
    }
    Ok(open)
}

async fn exchange(connection: &mut Connection, request: &Bytes) -> Result<Receipt> {
    connection.write(request).await?;
    let answer = connection.answer(false).await?;
    if answer.status != 200 {
        bail!("answer {}: {}", answer.status, answer.text());
    }
    Ok(answer.receipt())
}

/// Both stores hold as many events as were acknowledged, and the same ones: their ids add up alike.
pub(super) async fn check_stores(database: &Database, stream: Option<&Stream>, events: usize) -> Result<()> {
    let rows = database.number("select count(*) from public.application_logs").await;
    ensure!(
        usize::try_from(rows)? == events,
        "{rows} rows are stored of {events} events"
    );
    let Some(stream) = stream else { return Ok(()) };
    stream.search.refresh(&stream.name()).await;
    let tails = "select sum(('x' || right(id::text, 8))::bit(32)::bigint)::bigint from public.application_logs";
    let expected = database.number(tails).await;
    let asked = json!({
        "size": 0, "track_total_hits": true, "aggs": { "tails": { "sum": { "field": "event.id_tail" } } },
    });
    let answer = stream
        .search
        .ok("POST", &format!("/{}/_search", stream.name()), Some(&asked))
        .await;
    let documents = answer["hits"]["total"]["value"].as_u64().context("no total")?;
    ensure!(
        documents == events as u64,
        "{documents} documents are indexed of {events} events"
    );
    let sum = answer["aggregations"]["tails"]["value"].as_f64().context("no sum")?;
    ensure!(
        sum == expected as f64,
        "ids add up to {sum} in Elasticsearch and to {expected} in SQL"
    );
    Ok(())
}

//! Both stores at a rate that is held: how soon requests are answered, how soon their events are found, what all of it costs.
//!
//! Requests are due at fixed times whatever became of those before; an answer's time counts from then. Once a second an
//! event of its own is sent and looked for until a search finds it.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use chrono::Utc;
use futures::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    PER_REQUEST, encoded,
    events::{Shape, bodies},
    meter::{Cost, Meter},
};
use crate::{
    client::Connection,
    conditions::eventually,
    process::Process,
    service::{Service, Settings},
    stack::{Database, Stream},
};

/// Connections that requests wait for at most.
const CONNECTIONS: usize = 64;
/// How often a probe is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the backlog and the memory are noted.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// How long a backlog may take to drain between two rates.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);

/// What half, 99 of 100 and all took at most, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Quantiles {
    /// Of how many.
    pub count: usize,
    /// Half of them.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// All.
    pub max_ms: f64,
}

/// What one rate showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// What is not as by default, as `section.key=value`.
    #[serde(default)]
    pub setting: String,
    /// Events a second that were due.
    pub due: u64,
    /// Events a second that were acknowledged.
    pub rate: f64,
    /// For so long.
    pub seconds: f64,
    /// Answers, from when their request was due.
    pub answers: Quantiles,
    /// Probes, from when they were sent to when a search found them.
    pub searchable: Quantiles,
    /// Events that waited for Elasticsearch, at most and at the end.
    pub outstanding: [u64; 2],
    /// Resident memory of the service in MiB, every five seconds.
    pub memory_mib: Vec<f64>,
    /// Processor time.
    pub cost: Cost,
    /// What was written and sent.
    pub volume: Volume,
}

/// Bytes an event.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Volume {
    /// Of PostgreSQL's log of changes.
    pub wal: f64,
    /// Of the table with its indexes, over all that it holds.
    pub table: f64,
    /// Of Elasticsearch's indices, over all that they hold; what is merged later is still in them.
    pub documents: f64,
    /// Over the loopback device: requests, rows, rows read back, bulk bodies, and whatever else used it.
    pub loopback: f64,
}

/// A service between a database and a data stream of its own.
#[derive(Debug)]
pub struct Stores {
    service: Service,
    stream: Stream,
    meter: Meter,
    /// What is not as by default.
    setting: String,
    /// Numbers of events that were sent.
    next: Cell<usize>,
    database: Database,
}

impl Stores {
    /// Starts a service with its default settings but for this one.
    ///
    /// # Errors
    /// If a store is not on this machine.
    pub async fn start(
        program: &Path,
        database_url: &str,
        elasticsearch_url: &str,
        setting: Option<(&str, &str)>,
    ) -> Result<Self> {
        let (database, stream) = (Database::create_on(database_url).await, Stream::on(elasticsearch_url));
        let mut settings = Settings::default()
            .set("database.url", database.url())
            .set("elasticsearch.urls", &format!("[\"{elasticsearch_url}\"]"))
            .set("events.default_tenant", &stream.tenant)
            .program(program);
        if let Some((key, value)) = setting {
            settings = settings.set(key, value);
        }
        let service = Service::start(settings).await;
        let meter = Meter::of(&[&service], &database, Some(&stream.search)).await?;
        Ok(Self {
            service,
            stream,
            meter,
            setting: setting.map_or_else(|| "default".to_owned(), |(key, value)| format!("{key}={value}")),
            next: Cell::new(0),
            database,
        })
    }

    /// Sends so many events a second for so long.
    ///
    /// # Errors
    /// If an answer is another than 200.
    pub async fn hold(&self, rate: u64, time: Duration) -> Result<Held> {
        let written = [self.wal_bytes().await, loopback_bytes()];
        let before = self.meter.read();
        let start = Instant::now();
        let notes = RefCell::new((Vec::new(), 0));
        let sending = async {
            let sent = self.send(rate, start, time).await?;
            Ok((
                sent,
                start.elapsed(),
                self.meter.read() - before,
                self.outstanding().await,
            ))
        };
        let ((sent, took, spent, left), found) = tokio::select! {
            both = try_join(sending, self.probe(start, time)) => both?,
            () = self.note(&notes) => unreachable!("it never ends"),
        };
        let events = sent.len() * PER_REQUEST;
        let written = [self.wal_bytes().await - written[0], loopback_bytes() - written[1]];
        let (memory_mib, most) = notes.into_inner();
        Ok(Held {
            setting: self.setting.clone(),
            due: rate,
            rate: events as f64 / took.as_secs_f64(),
            seconds: took.as_secs_f64(),
            answers: Quantiles::of(sent),
            searchable: Quantiles::of(found),
            outstanding: [most.max(left), left],
            memory_mib,
            cost: spent.per_event(events),
            volume: self.volume(written.map(|bytes| bytes / events as f64)).await,
        })
    }

    async fn wal_bytes(&self) -> f64 {
        let written = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
        self.database.number(written).await as f64
    }

    async fn volume(&self, [wal, loopback]: [f64; 2]) -> Volume {
        let events = self.next.get() as f64;
        let table = "select hypertable_size('public.application_logs')::bigint";
        let path = format!("/{}/_stats/store", self.stream.name());
        let stats = self.stream.search.ok("GET", &path, None).await;
        Volume {
            wal,
            table: self.database.number(table).await as f64 / events,
            documents: stats["_all"]["primaries"]["store"]["size_in_bytes"]
                .as_f64()
                .unwrap_or(f64::NAN)
                / events,
            loopback,
        }
    }

    /// Waits until Elasticsearch has everything.
    pub async fn drain(&self) {
        eventually("the backlog to drain", DRAINED_WITHIN, || async {
            (self.outstanding().await == 0).then_some(())
        })
        .await;
    }

    async fn outstanding(&self) -> u64 {
        self.service.status().await["books"]["outstanding"]
            .as_u64()
            .unwrap_or_default()
    }

    async fn send(&self, rate: u64, start: Instant, time: Duration) -> Result<Vec<Duration>> {
        let next = Cell::new(0_u64);
        let senders = (0..CONNECTIONS).map(async |_| {
            let mut connection = Connection::open(self.service.address()).await?;
            let mut times = Vec::new();
            loop {
                let due =
                    Duration::from_secs_f64((next.replace(next.get() + 1) * PER_REQUEST as u64) as f64 / rate as f64);
                // What is due but could not be sent in this time is what the rate is short of.
                if due.max(start.elapsed()) >= time {
                    return anyhow::Ok(times);
                }
                let first = self.next.replace(self.next.get() + PER_REQUEST);
                let body = bodies(Utc::now(), first..first + PER_REQUEST, PER_REQUEST, Shape::Typical);
                let request = encoded(body).pop().context("one request")?;
                tokio::time::sleep_until((start + due).into()).await;
                connection.write(&request).await?;
                let answer = connection.answer(false).await?;
                if answer.status != 200 {
                    bail!("answer {}: {}", answer.status, answer.text());
                }
                times.push(start.elapsed().saturating_sub(due));
            }
        });
        Ok(try_join_all(senders).await?.concat())
    }

    /// Sends an event a second, and looks for each until it is found.
    async fn probe(&self, start: Instant, time: Duration) -> Result<Vec<Duration>> {
        let probes = (0..time.as_secs()).map(async |second| {
            tokio::time::sleep_until((start + Duration::from_secs(second)).into()).await;
            self.probe_once().await
        });
        try_join_all(probes).await
    }

    async fn probe_once(&self) -> Result<Duration> {
        let id = Uuid::now_v7();
        let event = json!([{ "event_id": id, "service": "probe", "message": "how long until it is found" }]);
        let start = Instant::now();
        let mut connection = Connection::open(self.service.address()).await?;
        let answer = connection.send(&crate::client::Request::json(&event)).await?;
        if answer.status != 200 {
            bail!("answer {}: {}", answer.status, answer.text());
        }
        let query = json!({ "term": { "event.id": id } });
        while self.stream.search.count(&self.stream.name(), &query).await == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(start.elapsed())
    }

    async fn note(&self, notes: &RefCell<(Vec<f64>, u64)>) {
        let service = Process::of(self.service.pid());
        let memory = service.watch_memory();
        loop {
            tokio::time::sleep(NOTE_EVERY).await;
            let outstanding = self.outstanding().await;
            let mut notes = notes.borrow_mut();
            notes.0.push(memory.take_most() as f64 / 1_048_576.0);
            notes.1 = notes.1.max(outstanding);
        }
    }
}

/// Bytes that came over the loopback device so far.
fn loopback_bytes() -> f64 {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let received = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:")?.split_whitespace().next()?.parse().ok());
    received.unwrap_or(f64::NAN)
}

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent: usize| {
            let position = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(position).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        Self {
            count: times.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

impl Held {
    /// Whether the rate was kept, answers took less than 50 ms and finding less than 3 s for 99 of 100, and no more
    /// than three seconds of events waited for Elasticsearch at the end.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.rate >= 0.98 * self.due as f64
            && self.answers.p99_ms < 50.0
            && self.searchable.p99_ms < 3_000.0
            && self.outstanding[1] <= 3 * self.due
    }

    /// Most resident memory in MiB of the first half and of the second.
    #[must_use]
    pub fn memory_of_halves(&self) -> [f64; 2] {
        let (first, second) = self.memory_mib.split_at(self.memory_mib.len() / 2);
        [first, second].map(|half| half.iter().copied().fold(0.0, f64::max))
    }
}

//! What most legs run on: a service without Elasticsearch, between nothing and a database of its own.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    load::{self, Times},
    meter::{Cost, Meter, each_us},
};
use crate::{
    process::Process,
    service::{Service, Settings},
    stack::Database,
};

/// A service and its database.
#[derive(Debug)]
pub struct Ground {
    /// The service.
    pub service: Service,
    /// Its database.
    pub database: Database,
    /// Resident memory of the service before it had anything to do.
    pub idle_bytes: u64,
    meter: Meter,
}

/// What one measurement showed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// Events a second.
    pub rate: f64,
    /// Half of the answers took at most so long, in milliseconds; not a number (`null` in JSON) where none was timed.
    pub p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub p99_ms: f64,
    /// Processor time.
    #[serde(flatten)]
    pub cost: Cost,
}

impl Ground {
    /// Starts a service of this program; its settings may be changed.
    ///
    /// # Errors
    /// If the server is not on this machine.
    pub async fn start(program: &Path, database_url: &str, change: impl FnOnce(Settings) -> Settings) -> Result<Self> {
        let database = Database::create_on(database_url).await;
        let settings = Settings::default()
            .set("database.url", database.url())
            .set("elasticsearch.enabled", "false")
            .program(program);
        let service = Service::start(change(settings)).await;
        // What starting took has been given back by then, and every connection is made.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let idle_bytes = Process::of(service.pid()).resident_bytes();
        let meter = Meter::of(&[&service], &database, None).await?;
        Ok(Self {
            service,
            database,
            idle_bytes,
            meter,
        })
    }

    /// Empties the table and flushes what is left of the leg before: every leg begins alike.
    pub async fn clear(&self) {
        self.database.execute("truncate public.application_logs").await;
        self.database.execute("truncate log_writer.requests").await;
        self.database.execute("checkpoint").await;
    }

    /// Rows of the table.
    pub async fn stored(&self) -> i64 {
        self.database
            .number("select count(*) from public.application_logs")
            .await
    }

    /// Does the work of a leg, which writes so many events.
    ///
    /// # Errors
    /// If the work fails.
    pub async fn measure(&self, events: usize, work: impl Future<Output = Result<Times>>) -> Result<Sample> {
        let before = self.meter.read();
        let times = work.await?;
        let mut cost = (self.meter.read() - before).per_event(events);
        cost.vector_cpu_us = times.vector_cpu.map(|time| each_us(time, events));
        Ok(Sample {
            rate: events as f64 / times.took.as_secs_f64(),
            p50_ms: times.quantile_ms(50),
            p99_ms: times.quantile_ms(99),
            cost,
        })
    }

    /// Sends requests, which hold so many events, over so many connections.
    ///
    /// # Errors
    /// If one is refused, or the table does not hold exactly these events more.
    pub async fn send(&self, requests: &[Bytes], events: usize, connections: usize) -> Result<Sample> {
        let before = self.stored().await;
        let sample = self
            .measure(events, load::send(self.service.address(), requests, connections))
            .await?;
        let stored = self.stored().await - before;
        ensure!(
            usize::try_from(stored)? == events,
            "{stored} rows are stored of {events} events"
        );
        Ok(sample)
    }
}

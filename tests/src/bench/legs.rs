//! The legs: raw COPY, Vector's statement, the service, and Vector itself, each writing the same events into the same empty table.

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection, types::Json};

use super::{
    Bench, PER_REQUEST, PER_TRANSACTION,
    commit::Commits,
    ground::{Ground, Sample},
    load::{self, Times, share},
    vector::{Running, http_sink, postgres_sink},
};
use crate::process::Process;

/// Requests or transactions of the legs that measure one connection.
const SINGLE_MAX: usize = 2_000;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what", content = "connections")]
pub enum Leg {
    /// Binary COPY of [`PER_TRANSACTION`] rows a transaction over two connections: the limit.
    Copy,
    /// `jsonb_populate_recordset` of [`PER_REQUEST`] rows a statement over five connections: Vector's sink.
    Statement,
    /// Requests of [`PER_REQUEST`] events over so many connections.
    Ours(usize),
    /// Binary COPY of [`PER_REQUEST`] rows a transaction over one connection.
    SingleCopy,
    /// The service's transactions of [`PER_REQUEST`] events over one connection, without the service.
    SingleCommit,
    /// Requests of [`PER_REQUEST`] events over one connection.
    SingleOurs,
    /// Vector's `postgres` sink itself, [`PER_REQUEST`] events a batch.
    VectorSink,
    /// Vector's `postgres` sink itself with the batches that it makes by default.
    VectorSinkByDefault,
    /// Vector's `http` sink to the service, with the batches of `vector/vector.toml`.
    ThroughService,
}

/// What one leg of one round showed.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Which leg.
    pub leg: Leg,
    /// From 1.
    pub round: usize,
    /// Rate, answers, processor time.
    #[serde(flatten)]
    pub sample: Sample,
    /// Most resident memory of the service.
    pub service_bytes: u64,
}

impl Leg {
    /// How it is named in tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Copy => format!("raw COPY, {PER_TRANSACTION} rows a transaction, 2 connections"),
            Self::Statement => format!("Vector's statement, {PER_REQUEST} rows, 5 connections"),
            Self::Ours(connections) => format!("service, {PER_REQUEST} events a request, {connections} connections"),
            Self::SingleCopy => format!("raw COPY, {PER_REQUEST} rows a transaction, 1 connection"),
            Self::SingleCommit => format!("the service's commit of {PER_REQUEST} rows alone, 1 connection"),
            Self::SingleOurs => format!("service, {PER_REQUEST} events a request, 1 connection"),
            Self::VectorSink => format!("Vector's postgres sink, {PER_REQUEST} events a batch"),
            Self::VectorSinkByDefault => "Vector's postgres sink, its default batches".to_owned(),
            Self::ThroughService => "Vector's http sink to the service, batches of vector/vector.toml".to_owned(),
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_) | Self::SingleOurs | Self::ThroughService)
    }
}

impl Bench {
    /// Resident memory of the service before it had anything to do.
    #[must_use]
    pub fn idle_bytes(&self) -> u64 {
        self.ground.idle_bytes
    }

    /// Average size of an event as sent.
    #[must_use]
    pub fn bytes_per_event(&self) -> f64 {
        self.bytes_per_event
    }

    /// One text from a query.
    pub async fn text(&self, query: &str) -> String {
        self.ground.database.text(query).await
    }

    /// Runs one leg.
    ///
    /// # Errors
    /// If anything was refused, or the table does not hold exactly what was sent.
    pub async fn run(&self, leg: Leg, round: usize) -> Result<Figure> {
        let Ground { service, .. } = &self.ground;
        self.ground.clear().await;
        // What it does by itself each minute must not disturb the others.
        service.signal(if leg.is_ours() { "CONT" } else { "STOP" });
        let memory = Process::of(service.pid()).watch_memory();
        let requests = match leg {
            Leg::SingleCopy | Leg::SingleCommit | Leg::SingleOurs => SINGLE_MAX.min(self.requests.len()),
            Leg::Copy
            | Leg::Statement
            | Leg::Ours(_)
            | Leg::VectorSink
            | Leg::VectorSinkByDefault
            | Leg::ThroughService => self.requests.len(),
        };
        let events = requests * PER_REQUEST;
        let single = if leg == Leg::SingleCommit { requests } else { 0 };
        let commits = Commits::of(&self.requests[..single], self.ground.database.url())?;
        let vector = self.start_vector(leg).await?;
        let work = async {
            match leg {
                Leg::Copy => self.copy(PER_TRANSACTION, 2, events).await,
                Leg::SingleCopy => self.copy(PER_REQUEST, 1, events).await,
                Leg::SingleCommit => commits.run().await,
                Leg::Statement => self.statement(5).await,
                Leg::Ours(connections) => load::send(service.address(), &self.requests, connections).await,
                Leg::SingleOurs => load::send(service.address(), &self.requests[..requests], 1).await,
                Leg::VectorSink | Leg::VectorSinkByDefault | Leg::ThroughService => {
                    vector.context("it was started")?.write().await
                }
            }
        };
        let measured = self.ground.measure(events, work).await;
        service.signal("CONT");
        let sample = measured.with_context(|| leg.name())?;
        let stored = self.ground.stored().await;
        ensure!(
            usize::try_from(stored)? == events,
            "{}: {stored} rows are stored of {events} events",
            leg.name()
        );
        Ok(Figure {
            leg,
            round,
            sample,
            service_bytes: memory.take_most(),
        })
    }

    /// Binary COPY, each in a transaction of its own.
    async fn copy(&self, rows: usize, connections: usize, events: usize) -> Result<Times> {
        let copies: Vec<_> = (0..events.div_ceil(rows))
            .map(|number| self.copy_of(number * rows, (number + 1) * rows))
            .collect();
        share(
            &copies,
            self.connections(connections).await?,
            async |connection, copy| {
                let mut writer = connection
                    .copy_in_raw("copy public.application_logs from stdin (format binary)")
                    .await?;
                writer.send(copy.as_ref()).await?;
                writer.finish().await?;
                Ok(())
            },
        )
        .await
    }

    /// The statement of Vector's `postgres` sink, prepared, with its argument serialised already.
    async fn statement(&self, connections: usize) -> Result<Times> {
        let statement = "insert into public.application_logs \
                         select * from jsonb_populate_recordset(null::public.application_logs, $1)";
        let connections = self.connections(connections).await?;
        share(&self.arrays, connections, async |connection, array| {
            sqlx::query(statement).bind(Json(array)).execute(connection).await?;
            Ok(())
        })
        .await
    }

    /// Vector's own process, where the leg is one of its.
    async fn start_vector(&self, leg: Leg) -> Result<Option<Running>> {
        let Ground { service, database, .. } = &self.ground;
        let sink = match leg {
            Leg::VectorSink => postgres_sink(database.url(), Some(PER_REQUEST)),
            Leg::VectorSinkByDefault => postgres_sink(database.url(), None),
            Leg::ThroughService => http_sink(service.address())?,
            _ => return Ok(None),
        };
        let vector = self.vector.as_ref().context("no Vector was brought")?;
        let lines = if leg == Leg::ThroughService {
            &vector.events
        } else {
            &vector.rows
        };
        Ok(Some(vector.start(sink, lines, database).await?))
    }

    async fn connections(&self, count: usize) -> Result<Vec<PgConnection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(PgConnection::connect(self.ground.database.url()).await?);
        }
        Ok(connections)
    }
}

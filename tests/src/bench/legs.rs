//! The legs: raw COPY, Vector's statement, and the service, each writing the same rows into the same empty table.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde::Serialize;
use sqlx::{Connection as _, PgConnection, types::Json};

use super::{Bench, PER_REQUEST, PER_TRANSACTION, load};
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
    Vector,
    /// Requests of [`PER_REQUEST`] events over so many connections.
    Ours(usize),
    /// Binary COPY of [`PER_REQUEST`] rows a transaction over one connection.
    SingleCopy,
    /// Requests of [`PER_REQUEST`] events over one connection.
    SingleOurs,
}

/// How long a leg took, and each of its exchanges.
#[derive(Debug)]
pub struct Times {
    took: Duration,
    each: Vec<Duration>,
}

/// What one leg of one round showed.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Which leg.
    pub leg: Leg,
    /// From 1.
    pub round: usize,
    /// Events a second.
    pub rate: f64,
    /// Half of the answers took at most so long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub p99_ms: f64,
    /// Processor time of the service, in microseconds an event.
    pub service_cpu_us: f64,
    /// Of PostgreSQL.
    pub server_cpu_us: f64,
    /// Of this tool.
    pub load_cpu_us: f64,
    /// Most resident memory of the service.
    pub service_bytes: u64,
}

impl Leg {
    /// How it is named in tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Copy => format!("raw COPY, {PER_TRANSACTION} rows a transaction, 2 connections"),
            Self::Vector => format!("Vector's statement, {PER_REQUEST} rows, 5 connections"),
            Self::Ours(connections) => format!("service, {PER_REQUEST} events a request, {connections} connections"),
            Self::SingleCopy => format!("raw COPY, {PER_REQUEST} rows a transaction, 1 connection"),
            Self::SingleOurs => format!("service, {PER_REQUEST} events a request, 1 connection"),
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_) | Self::SingleOurs)
    }
}

impl Times {
    fn quantile_ms(&self, percent: usize) -> f64 {
        let position = (self.each.len() * percent).div_ceil(100).saturating_sub(1);
        self.each.get(position).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

impl Bench {
    /// Resident memory of the service before it had anything to do.
    #[must_use]
    pub fn idle_bytes(&self) -> u64 {
        self.idle_bytes
    }

    /// Average size of an event as sent.
    #[must_use]
    pub fn bytes_per_event(&self) -> f64 {
        self.bytes_per_event
    }

    /// One text from a query.
    pub async fn text(&self, query: &str) -> String {
        self.database.text(query).await
    }

    /// Runs one leg.
    ///
    /// # Errors
    /// If anything was refused, or the table does not hold exactly what was sent.
    pub async fn run(&self, leg: Leg, round: usize) -> Result<Figure> {
        self.begin_leg().await;
        let service = Process::of(self.service.pid());
        // What it does by itself each minute must not disturb the others.
        self.service.signal(if leg.is_ours() { "CONT" } else { "STOP" });
        let cpu = || [service.cpu(), self.server.cpu_with_children(), Process::own().cpu()];
        let memory = service.watch_memory();
        let before = cpu();
        let measured = match leg {
            Leg::Copy => self.copy(PER_TRANSACTION, 2, usize::MAX).await,
            Leg::SingleCopy => self.copy(PER_REQUEST, 1, SINGLE_MAX).await,
            Leg::Vector => self.vector(5).await,
            Leg::Ours(connections) => load::send(self.service.address(), &self.requests, connections).await,
            Leg::SingleOurs => {
                let requests = &self.requests[..SINGLE_MAX.min(self.requests.len())];
                load::send(self.service.address(), requests, 1).await
            }
        };
        let spent: Vec<Duration> = cpu()
            .iter()
            .zip(before)
            .map(|(after, before)| *after - before)
            .collect();
        self.service.signal("CONT");
        let times = measured.with_context(|| leg.name())?;
        let events = match leg {
            Leg::SingleCopy | Leg::SingleOurs => times.each.len() * PER_REQUEST,
            Leg::Copy | Leg::Vector | Leg::Ours(_) => {
                self.check_stored().await.with_context(|| leg.name())?;
                self.events()
            }
        };
        let per_event = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
        Ok(Figure {
            leg,
            round,
            rate: events as f64 / times.took.as_secs_f64(),
            p50_ms: times.quantile_ms(50),
            p99_ms: times.quantile_ms(99),
            service_cpu_us: per_event(spent[0]),
            server_cpu_us: per_event(spent[1]),
            load_cpu_us: per_event(spent[2]),
            service_bytes: memory.take_most(),
        })
    }

    /// Binary COPY, each in a transaction of its own.
    async fn copy(&self, rows: usize, connections: usize, transactions_max: usize) -> Result<Times> {
        let copies: Vec<_> = (0..self.events().div_ceil(rows).min(transactions_max))
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
    async fn vector(&self, connections: usize) -> Result<Times> {
        let statement = "insert into public.application_logs \
                         select * from jsonb_populate_recordset(null::public.application_logs, $1)";
        let connections = self.connections(connections).await?;
        share(&self.arrays, connections, async |connection, array| {
            sqlx::query(statement).bind(Json(array)).execute(connection).await?;
            Ok(())
        })
        .await
    }

    async fn connections(&self, count: usize) -> Result<Vec<PgConnection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(PgConnection::connect(self.database.url()).await?);
        }
        Ok(connections)
    }
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
    })
}

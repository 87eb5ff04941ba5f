//! How cost grows: the same measurement with ever more connections, larger requests, larger events, a fuller table, more chunks.
//!
//! The claim: processor time an event stays what it is, or grows with the event's bytes by a straight line.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chrono::Utc;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    PER_REQUEST, encoded,
    events::{Shape, bodies},
    ground::{Ground, Sample},
};

/// Connections where they are not what grows.
const CONNECTIONS: usize = 64;
/// Connections where requests or events get large: what is in flight must stay within `http.inflight_bytes_max`.
const CONNECTIONS_OF_LARGE: usize = 16;
/// Requests of one sample at most, and bytes.
const REQUESTS_MAX: usize = 20_000;
const BYTES_MAX: usize = 200_000_000;
/// Samples while the table grows.
const ROW_STEPS: usize = 20;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Connections, each with one request of 100 events at a time.
    Connections,
    /// Events a request.
    RequestEvents,
    /// Bytes of an event as sent.
    EventBytes,
    /// Rows that the table holds already.
    Rows,
    /// Chunks that the table has.
    Chunks,
}

/// One measurement after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    /// What grows.
    pub axis: Axis,
    /// From the smallest to the largest.
    pub points: Vec<Point>,
}

/// One size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// How much of what grows.
    pub x: f64,
    /// Each round.
    pub samples: Vec<Sample>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Events of one sample at most.
    pub events: usize,
    /// How often each size is measured, but that of the table, which only grows once.
    pub rounds: usize,
    /// Rows of the table at the end.
    pub rows: usize,
}

impl Axis {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Connections,
        Self::RequestEvents,
        Self::EventBytes,
        Self::Rows,
        Self::Chunks,
    ];

    /// What stands at the axis.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections (100 events a request)",
            Self::RequestEvents => "events a request (16 connections)",
            Self::EventBytes => "bytes of an event (100 a request, 16 connections)",
            Self::Rows => "rows of the table before (100 events a request, 64 connections)",
            Self::Chunks => "chunks of the table (100 events a request, 64 connections)",
        }
    }

    /// Name of its file.
    #[must_use]
    pub fn file_stem(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::RequestEvents => "request-events",
            Self::EventBytes => "event-bytes",
            Self::Rows => "rows",
            Self::Chunks => "chunks",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Connections => &[1, 2, 4, 8, 16, 32, 64, 128, 256],
            Self::RequestEvents => &[1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000],
            Self::EventBytes => &[200, 450, 1_000, 2_000, 5_000, 10_000, 20_000],
            Self::Rows => &[],
            Self::Chunks => &[1, 10, 100, 1_000],
        }
    }
}

impl Point {
    /// The middle one of the rounds, or between the two in the middle.
    #[must_use]
    pub fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let at = |position: usize| values.get(position).copied().unwrap_or(f64::NAN);
        f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
    }
}

impl Series {
    /// Measures all sizes, on a database of its own; says what it has measured.
    ///
    /// # Errors
    /// If anything was refused, or the table does not hold exactly what was sent.
    pub async fn measure(
        axis: Axis,
        extent: Extent,
        program: &Path,
        database_url: &str,
        said: impl Fn(f64, &Sample),
    ) -> Result<Self> {
        // Rows that only make chunks are older than retention.
        let ground = Ground::start(program, database_url, |settings| {
            settings.set("retention.enabled", "false")
        })
        .await?;
        // Whatever is done once by the first requests is not measured.
        let (warm, events) = requests(0..extent.events, PER_REQUEST, Shape::Typical);
        ground.send(&warm, events, CONNECTIONS).await?;
        drop(warm);
        let points = match axis {
            Axis::Rows => fill(&ground, extent, &said).await?,
            Axis::Chunks => split(&ground, extent, &said).await?,
            Axis::Connections | Axis::RequestEvents | Axis::EventBytes => grow(&ground, axis, extent, &said).await?,
        };
        Ok(Self { axis, points })
    }
}

/// Rounds over all sizes, each into an empty table.
async fn grow(ground: &Ground, axis: Axis, extent: Extent, said: &impl Fn(f64, &Sample)) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = Vec::new();
    for _ in 0..extent.rounds {
        for (number, &size) in axis.sizes().iter().enumerate() {
            let (per_request, connections, shape) = match axis {
                Axis::RequestEvents => (size, CONNECTIONS_OF_LARGE, Shape::Typical),
                Axis::EventBytes => (PER_REQUEST, CONNECTIONS_OF_LARGE, Shape::Bytes(size)),
                Axis::Connections | Axis::Rows | Axis::Chunks => (PER_REQUEST, size, Shape::Typical),
            };
            let bytes = if let Shape::Bytes(bytes) = shape { bytes } else { 450 };
            let most = extent.events.min(REQUESTS_MAX * per_request).min(BYTES_MAX / bytes);
            let (sent, events) = requests(0..most, per_request, shape);
            ground.clear().await;
            let sample = ground
                .send(&sent, events, connections)
                .await
                .with_context(|| format!("{size} {}", axis.label()))?;
            let x = match axis {
                Axis::EventBytes => sent.iter().map(Bytes::len).sum::<usize>() as f64 / events as f64,
                Axis::Connections | Axis::RequestEvents | Axis::Rows | Axis::Chunks => size as f64,
            };
            said(x, &sample);
            match points.get_mut(number) {
                Some(point) => point.samples.push(sample),
                None => points.push(Point {
                    x,
                    samples: vec![sample],
                }),
            }
        }
    }
    Ok(points)
}

/// Fills the table: every event is part of a sample.
async fn fill(ground: &Ground, extent: Extent, said: &impl Fn(f64, &Sample)) -> Result<Vec<Point>> {
    ground.clear().await;
    let step = (extent.rows / ROW_STEPS).next_multiple_of(PER_REQUEST);
    let mut points = Vec::new();
    let mut rows = 0;
    while rows < extent.rows {
        let (sent, events) = requests(rows..rows + step, PER_REQUEST, Shape::Typical);
        let work = super::load::send(ground.service.address(), &sent, CONNECTIONS);
        let sample = ground.measure(events, work).await?;
        said(rows as f64, &sample);
        points.push(Point {
            x: rows as f64,
            samples: vec![sample],
        });
        rows += events;
    }
    // Once, at the end: counting so many rows reads them all.
    let stored = ground.stored().await;
    ensure!(
        usize::try_from(stored)? == rows,
        "{stored} rows are stored of {rows} events"
    );
    Ok(points)
}

/// Adds chunks of older days; only the one that is written to is emptied in between.
async fn split(ground: &Ground, extent: Extent, said: &impl Fn(f64, &Sample)) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for &chunks in Axis::Chunks.sizes() {
        ground
            .database
            .execute(&format!(
                "insert into public.application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
                 select gen_random_uuid(), now() - day * interval '1 day', now(), 0, 'default', 'INFO', 'old', 'of a day'
                 from generate_series(1, {chunks} - 1) as day
                 where not exists (select from public.application_logs where \"timestamp\" < now() - (day - 0.5) * interval '1 day')"
            ))
            .await;
        let there = "select count(*) from show_chunks('public.application_logs')";
        let there = ground.database.number(there).await as f64;
        let mut samples = Vec::new();
        for _ in 0..extent.rounds {
            ground
                .database
                .execute(
                    "do $$ declare written regclass; begin
                       for written in select show_chunks('public.application_logs', newer_than => now() - interval '1 hour')
                       loop execute format('truncate %s', written); end loop;
                     end $$",
                )
                .await;
            ground.database.execute("truncate log_writer.requests").await;
            ground.database.execute("checkpoint").await;
            let (sent, events) = requests(0..extent.events, PER_REQUEST, Shape::Typical);
            let sample = ground.send(&sent, events, CONNECTIONS).await?;
            said(there, &sample);
            samples.push(sample);
        }
        points.push(Point { x: there, samples });
    }
    Ok(points)
}

/// Requests of the events with these numbers, up to now, and how many events they hold.
fn requests(numbers: std::ops::Range<usize>, per_request: usize, shape: Shape) -> (Vec<Bytes>, usize) {
    let events = numbers.len() / per_request * per_request;
    let numbers = numbers.start..numbers.start + events;
    (encoded(bodies(Utc::now(), numbers, per_request, shape)), events)
}

//! How fast the service is beside the limit and beside Vector's own way of writing (`make bench`), all in one run.
//!
//! [`Bench`] keeps a service and what every leg writes: [`events`] as bodies, and the rows that these became, read back from
//! the table, so that all legs store the same. [`legs`] are the things compared, [`load`] sends bodies, [`commit`] commits
//! them without the service, [`vector`] has Vector write them, [`meter`] counts processor time, [`report`] says what came out.
//!
//! What takes longer (`make bench-full`): [`growth`] (the same at one size after the other), [`stores`] (both stores at a
//! rate that is held), [`replicas`] (two of them), [`apart`] (receiving and delivering); [`full`] keeps what they showed, [`plots`] draws it.

pub mod apart;
mod commit;
pub mod events;
pub mod full;
pub mod ground;
pub mod growth;
pub mod legs;
pub mod load;
pub mod meter;
pub mod plots;
pub mod replicas;
pub mod report;
pub mod stores;
mod vector;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use serde_json::value::RawValue;
use sqlx::postgres::PgPoolCopyExt as _;

use self::{events::Shape, ground::Ground, vector::Vector};
use crate::{client::Request, conditions::eventually, stack::Database};

/// Events of one request, and rows of one of Vector's statements.
pub const PER_REQUEST: usize = 100;
/// Rows of one transaction of the limit.
pub const PER_TRANSACTION: usize = 2_000;

/// How long Elasticsearch may take for the events of one leg.
const DELIVERED_WITHIN: Duration = Duration::from_secs(300);

/// What a binary COPY begins and ends with.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: &[u8] = &[0xff, 0xff];

/// A service and what every leg writes.
#[derive(Debug)]
pub struct Bench {
    ground: Ground,
    /// Encoded requests.
    requests: Vec<Bytes>,
    bytes_per_event: f64,
    /// Their rows as binary COPY, without header and trailer, and where each row ends.
    rows: Bytes,
    ends: Vec<usize>,
    /// Their rows as JSON arrays, for Vector's statement.
    arrays: Vec<Box<RawValue>>,
    vector: Option<Vector>,
}

impl Bench {
    /// Starts the service, sends everything once, and reads the rows back.
    ///
    /// # Errors
    /// If a request is refused, or the table does not hold what was sent.
    pub async fn prepare(program: &Path, database_url: &str, events: usize) -> Result<Self> {
        let ground = Ground::start(program, database_url, |settings| settings).await?;
        let bodies = events::bodies(chrono::Utc::now(), 0..events, PER_REQUEST, Shape::Typical);
        let bytes: usize = bodies.iter().map(String::len).sum();
        let mut bench = Self {
            ground,
            requests: encoded(bodies),
            bytes_per_event: bytes as f64 / events as f64,
            rows: Bytes::new(),
            ends: Vec::new(),
            arrays: Vec::new(),
            vector: None,
        };
        bench.ground.send(&bench.requests, events, 8).await?;
        bench.read_rows().await?;
        bench.read_arrays().await?;
        Ok(bench)
    }

    /// Has this Vector write the events too, and tells its version.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn bring_vector(&mut self, program: &Path) -> Result<String> {
        let rows = self.arrays.iter().map(|array| array.get().as_bytes());
        let events = self
            .requests
            .iter()
            .map(|request| commit::body_of(request).unwrap_or_default());
        let (vector, version) = Vector::at(program, rows, events).await?;
        self.vector = Some(vector);
        Ok(version)
    }

    /// Events of each leg.
    #[must_use]
    pub fn events(&self) -> usize {
        self.requests.len() * PER_REQUEST
    }

    async fn read_rows(&mut self) -> Result<()> {
        // COPY of a hypertable's own name would give nothing.
        let statement = "copy (select * from public.application_logs order by batch_id, id) to stdout (format binary)";
        let mut messages = self.ground.database.pool().copy_out_raw(statement).await?;
        let mut stream = Vec::new();
        while let Some(message) = messages.try_next().await? {
            stream.extend_from_slice(&message);
        }
        drop(messages);
        let rows = stream.strip_prefix(COPY_HEADER).context("no binary COPY")?;
        let rows = rows.strip_suffix(COPY_TRAILER).context("a COPY without its end")?;
        let mut at = 0;
        while at < rows.len() {
            at += row_bytes(&rows[at..]).context("a row is cut")?;
            self.ends.push(at);
        }
        ensure!(
            self.ends.len() == self.events(),
            "{} rows were read back",
            self.ends.len()
        );
        self.rows = Bytes::copy_from_slice(rows);
        Ok(())
    }

    async fn read_arrays(&mut self) -> Result<()> {
        let query = "select jsonb_strip_nulls(to_jsonb(l))::text from public.application_logs l order by batch_id, id";
        let mut found = sqlx::query_scalar::<_, String>(query).fetch(self.ground.database.pool());
        let mut waiting = Vec::new();
        while let Some(row) = found.try_next().await? {
            // Without the blanks that the type shows: as a sender writes it.
            waiting.push(serde_json::from_str::<serde_json::Value>(&row)?);
            if waiting.len() == PER_REQUEST {
                self.arrays.push(serde_json::value::to_raw_value(&waiting)?);
                waiting.clear();
            }
        }
        ensure!(waiting.is_empty(), "the events are no whole number of requests");
        Ok(())
    }

    /// Rows from one number to another as one COPY.
    fn copy_of(&self, from: usize, to: usize) -> Bytes {
        let start = from.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = self.ends[to.min(self.ends.len()) - 1];
        Bytes::from([COPY_HEADER, &self.rows[start..end], COPY_TRAILER].concat())
    }
}

/// Requests as they are sent.
#[must_use]
pub fn encoded(bodies: Vec<String>) -> Vec<Bytes> {
    let requests = bodies.into_iter().map(|body| {
        let request = Request::new("POST", "/ingest", body).header("content-type", "application/json");
        Bytes::from(request.encode())
    });
    requests.collect()
}

/// Waits until nothing is left to deliver. Asks the database, since the service's own time is measured.
async fn until_delivered(database: &Database) {
    eventually("the outbox to be empty", DELIVERED_WITHIN, || async {
        (database.number("select count(*) from log_writer.outbox").await == 0).then_some(())
    })
    .await;
}

/// Length of the row that stands first.
fn row_bytes(rows: &[u8]) -> Option<usize> {
    let fields = i16::from_be_bytes(rows.get(..2)?.try_into().ok()?);
    let mut at = 2;
    for _ in 0..fields {
        let length = i32::from_be_bytes(rows.get(at..at + 4)?.try_into().ok()?);
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (at <= rows.len()).then_some(at)
}

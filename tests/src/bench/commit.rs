//! The service's own transaction without the service: digests, COPY, books and COMMIT over one connection, rows encoded
//! beforehand. It tells the transaction's part of an answer from that of HTTP, queue and decoding.

use std::{cell::Cell, sync::Arc};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use log_writer_service::{
    config::{DEFAULT_FILE, Database, Events},
    event::{Arrival, DigestParts, Normaliser, RawEvent, Timestamp, derive_id, request_digest},
    timescale::{CommitMode, Committer, EncodedRows, Source, WriteRequest},
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::load::{Times, share};

const TENANT: &str = "default";
const PATH: &str = "/ingest";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Requests as they come to their commit, each to be committed once.
pub(super) struct Commits {
    database: Database,
    requests: Vec<Cell<Option<WriteRequest>>>,
}

impl Commits {
    /// Encodes the rows.
    ///
    /// # Errors
    /// If a body is no array of events.
    pub(super) fn of(requests: &[Bytes], database_url: &str) -> Result<Self> {
        let mut database: Database = section("database")?;
        database.url = database_url.to_owned().into();
        let normaliser = Normaliser::new(&section::<Events>("events")?)?;
        let requests = requests.iter().map(|request| {
            let request = write_request(&normaliser, request)?;
            Ok(Cell::new(Some(request)))
        });
        Ok(Self {
            database,
            requests: requests.collect::<Result<_>>()?,
        })
    }

    /// Commits each in a transaction of its own.
    ///
    /// # Errors
    /// If a commit fails.
    pub(super) async fn run(&self) -> Result<Times> {
        let mode = CommitMode {
            lock_timeout: self.database.lock_timeout,
            transaction_timeout: self.database.transaction_timeout,
            bisect: false,
        };
        let committer = Committer::connect(&self.database, "bench").await?;
        share(&self.requests, vec![committer], async |committer, request| {
            let mut request = request.take().context("it was committed before")?;
            committer.commit(&mut [&mut request], &mode).await?;
            Ok(())
        })
        .await
    }
}

/// One section of the default configuration.
fn section<T: DeserializeOwned>(name: &str) -> Result<T> {
    let mut file: toml::Table = toml::from_str(DEFAULT_FILE)?;
    let section = file.remove(name).with_context(|| format!("no section {name}"))?;
    Ok(section.try_into()?)
}

/// What follows a request's head.
pub(super) fn body_of(request: &[u8]) -> Option<&[u8]> {
    let head = request.windows(END_OF_HEAD.len()).position(|end| end == END_OF_HEAD);
    request.get(head? + END_OF_HEAD.len()..)
}

/// What a request brings to its commit, as the service would make it.
fn write_request(normaliser: &Normaliser, request: &[u8]) -> Result<WriteRequest> {
    let body = body_of(request).context("no body")?;
    let events: Vec<&RawValue> = serde_json::from_slice(body).context("no array of events")?;
    let digest = request_digest(&DigestParts {
        tenant: TENANT,
        path: PATH,
        content_type: None,
        content_encoding: None,
        idempotency_key: None,
        body,
    });
    let arrival = Arrival {
        at: Timestamp(chrono::Utc::now().timestamp_micros()),
        tenant: None,
        wrapper: None,
    };
    let mut rows = EncodedRows::with_capacity(body.len() * 2, events.len());
    for (position, event) in events.iter().enumerate() {
        let event = normaliser.normalise(RawEvent::Object(event.get()), &arrival)?;
        rows.push(&event, arrival.at, None);
        let id = derive_id(event.claimed_time, &digest, u32::try_from(position)?);
        rows.set_ids(position, id, id);
    }
    Ok(WriteRequest {
        digest,
        received: u32::try_from(events.len())?,
        rows,
        dead_letters: Vec::new(),
        body: Bytes::new(),
        source: Arc::new(Source {
            tenant: Arc::from(TENANT),
            address: None,
            content_type: None,
            content_encoding: None,
            path: PATH.to_owned(),
        }),
    })
}

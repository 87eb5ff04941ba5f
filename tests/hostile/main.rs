//! Bodies and connections meant to break the service: what each gets, what is kept, and that nobody else notices.
//!
//! One test a row of the table "Hostile input" in docs/DELIVERY.md. The real binary on a real TimescaleDB, without
//! Elasticsearch. After each attack a good request is committed, the books balance, and the memory stayed in its bound.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a broken expectation is a failed test"
)]

mod bodies;
mod compressed;
mod effort;
mod framing;
mod requests;
mod slow;
mod values;

use std::{io, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use log_writer_tests::{
    client::{Answer, Receipt, Request},
    invariants::assert_books_balance,
    rows::{StoredRow, stored_rows},
    service::{Service, Settings},
    stack::Database,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MIB: u64 = 1024 * 1024;
/// How long a connection may take to be answered or closed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service and its database.
#[derive(Debug)]
struct Target {
    service: Service,
    database: Database,
}

impl Target {
    async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    async fn start_with(set: impl FnOnce(Settings) -> Settings) -> Self {
        let database = Database::create().await;
        let settings = Settings::new(database.url(), "http://127.0.0.1:9", "default")
            .set("elasticsearch.enabled", "false")
            // A debug build takes seconds for the largest of these bodies.
            .set("http.answer_timeout", "55s")
            .set("log.filter", "warn");
        let service = Service::start(set(settings)).await;
        Self { service, database }
    }

    /// Sends a body to `/ingest`.
    async fn post(&self, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::new("POST", "/ingest", body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.service.send(&request).await
    }

    /// Sends bytes over a connection of their own and reads until it is closed; what was answered.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may be closed before everything is read.
        let _written = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.service.address()).await.expect("a connection")
    }

    async fn rows(&self) -> Vec<StoredRow> {
        stored_rows(self.database.pool()).await
    }

    /// `reason` of each dead letter, in the order in which they were kept.
    async fn reasons(&self) -> Vec<String> {
        sqlx::query_scalar("select reason from log_writer.dead_letters order by id")
            .fetch_all(self.database.pool())
            .await
            .expect("cannot read log_writer.dead_letters")
    }

    /// Bytes that dead letters kept.
    async fn kept_bytes(&self) -> i64 {
        let query = "select coalesce(sum(octet_length(raw)), 0)::bigint from log_writer.dead_letters";
        self.database.number(query).await
    }

    /// Nobody else noticed: alive, a good event is committed, the books balance, and no more memory was taken than this.
    async fn assert_unharmed(&self, mib_max: u64) {
        assert_eq!(self.service.send(&Request::get("/health")).await.status, 200);
        assert_eq!(
            self.service.ingest(&json!([good("after")])).await,
            Receipt::all_committed(1)
        );
        assert_books_balance(&self.service, &self.database).await;
        let (_, most) = self.service.memory();
        assert!(
            most <= mib_max * MIB,
            "{} MiB of memory, more than {mib_max}",
            most / MIB
        );
        let log = self.service.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// An event of just now.
fn good(message: &str) -> Value {
    json!({ "timestamp": Utc::now().to_rfc3339(), "level": "info", "service": "hostile", "message": message })
}

/// A request head with these lines and a body.
fn head_and(lines: &[&str], body: &str) -> Vec<u8> {
    format!(
        "POST /ingest HTTP/1.1\r\nhost: a\r\n{}\r\n\r\n{body}",
        lines.join("\r\n")
    )
    .into_bytes()
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // Reset after an answer is an end, too.
    match read.expect("the connection stays open without an answer") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Statuses of all answers in what a connection said.
fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|answer| answer.get(..3)?.parse().ok())
        .collect()
}

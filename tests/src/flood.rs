//! Many senders with large bodies at once, while PostgreSQL is stalled: what each of them is told, and what is held.
//!
//! Bodies of five kinds, which a sender writes and reads the answer of as Vector does; a connection that breaks before an
//! answer is counted. Equal bodies differ by an `Idempotency-Key`, so that none is a resend of another.

use std::{
    collections::BTreeMap,
    fmt,
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::future::join_all;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::{
    client::{Answer, Connection, Request, send as ask},
    conditions::{SOON, eventually},
    service::{Service, Settings},
    stack::{Database, random_word},
};

/// What is read or written at once.
const PIECE_BYTES: usize = 64 * 1024;

/// One kind of body.
#[derive(Debug, Clone)]
struct Kind {
    name: &'static str,
    head: String,
    body: Bytes,
    chunked: bool,
}

/// What one sender was told.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// The status; `None`: the connection broke.
    status: Option<u16>,
    /// From the first byte sent to the answer.
    took: Duration,
}

/// Bodies of so many bytes: text lines, NDJSON, one array, one that is so large only when it is expanded, and one
/// without a length.
fn kinds(body_bytes: usize) -> Vec<Kind> {
    let now = chrono::Utc::now().to_rfc3339();
    let mut lines = String::with_capacity(body_bytes + 1024);
    let mut events = String::with_capacity(body_bytes + 1024);
    for number in 0_u64.. {
        if events.len() >= body_bytes {
            break;
        }
        let filler = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(20);
        if lines.len() < body_bytes {
            writeln!(lines, "{now} INFO request {number} was answered: {filler}").expect("into memory");
        }
        writeln!(
            events,
            r#"{{"timestamp":"{now}","level":"INFO","service":"flood","message":"request {number}","filler":"{filler}"}}"#
        )
        .expect("into memory");
    }
    let array = format!("[{}]", events.trim_end().replace('\n', ","));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(events.as_bytes()).expect("into memory");
    let gzip = gzip.finish().expect("into memory");
    let kind = |name, headers: &str, body: Vec<u8>, chunked| Kind {
        name,
        head: headers.to_owned(),
        body: Bytes::from(body),
        chunked,
    };
    vec![
        kind("text", "content-type: text/plain\r\n", lines.into_bytes(), false),
        kind("array", "content-type: application/json\r\n", array.into_bytes(), false),
        kind(
            "gzip",
            "content-type: application/x-ndjson\r\ncontent-encoding: gzip\r\n",
            gzip,
            false,
        ),
        kind(
            "chunked",
            "content-type: application/x-ndjson\r\n",
            events.clone().into_bytes(),
            true,
        ),
        kind(
            "ndjson",
            "content-type: application/x-ndjson\r\n",
            events.into_bytes(),
            false,
        ),
    ]
}

/// What docs/OPERATIONS.md says the process takes beside `http.inflight_bytes_max`: with nothing in flight, and for each
/// connection whose body it reads.
const BASE_BYTES: u64 = 64 << 20;
const CONNECTION_BYTES: u64 = 128 << 10;
/// `http.answer_timeout` of the flooded service.
const ANSWER_SECONDS: u64 = 5;

/// What came of a flood.
#[derive(Debug)]
pub struct Report {
    connections: usize,
    /// The largest resident memory before anything was sent, while it was, and at the end, in bytes.
    pub peaks: [u64; 3],
    /// What is promised.
    pub bound: u64,
    /// How often each status was answered; `None`: a broken connection.
    pub statuses: BTreeMap<Option<u16>, usize>,
    /// The slowest answer to a body, and to `/health`.
    pub slowest: [Duration; 2],
}

impl Report {
    /// Whether memory stayed within what is promised, and everybody was told to send again, in time.
    #[must_use]
    pub fn holds(&self) -> bool {
        let told = |status: u16| self.statuses.get(&Some(status)).copied().unwrap_or_default();
        self.peaks.iter().all(|peak| *peak <= self.bound)
            // It was full, and something was let in; nobody was told anything else.
            && told(429) > 0
            && told(503) > 0
            && told(429) + told(503) == self.statuses.values().sum::<usize>()
            && self.slowest[1] < Duration::from_secs(5)
    }
}

impl fmt::Display for Report {
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let [before, peak, end] = self.peaks.map(mib);
        write!(
            formatter,
            "memory         {before:.0} MiB before, {peak:.0} MiB at most with {} connections, {end:.0} MiB after it; promised {:.0} MiB\n\
             answers        {:?}; slowest {:.1} s, /health {:.2} s",
            self.connections,
            mib(self.bound),
            self.statuses,
            self.slowest[0].as_secs_f64(),
            self.slowest[1].as_secs_f64(),
        )
    }
}

/// Floods a service of this program twice while the table that every commit begins with is locked; then each kind of
/// body must be taken again, and all that was held be given back.
///
/// # Panics
/// If it is not.
pub async fn large_bodies(
    program: &Path,
    database_url: &str,
    connections: usize,
    body_bytes: usize,
    inflight_mib: u64,
) -> Report {
    let database = Database::create_on(database_url).await;
    let settings = Settings::new(database.url(), "http://127.0.0.1:1", "flood")
        .set("elasticsearch.enabled", "false")
        // A body ends with the line that reaches its size.
        .set("http.body_bytes_max", &(body_bytes + 1024).to_string())
        .set("http.inflight_bytes_max", &format!("{inflight_mib}MiB"))
        .set("http.answer_timeout", &format!("{ANSWER_SECONDS}s"))
        .set("log.filter", "warn")
        .program(program);
    let service = Service::start(settings).await;
    let address = service.address();
    let kinds = kinds(body_bytes);
    let (_, before) = service.memory();

    let mut stall = database.pool().begin().await.expect("a transaction");
    let lock = sqlx::query("lock table log_writer.requests in access exclusive mode");
    lock.execute(&mut *stall).await.expect("a lock");
    let mut health = Duration::ZERO;
    let mut told = Vec::new();
    tokio::select! {
        () = async {
            for _ in 0..2 {
                told.extend(flood(address, &kinds, connections).await);
            }
        } => {}
        () = async {
            loop {
                let start = Instant::now();
                let answer = ask(address, &Request::get("/health")).await.expect("an answer");
                assert_eq!(answer.status, 200);
                health = health.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        } => {}
    }
    let (_, peak) = service.memory();
    stall.rollback().await.expect("unlocked");

    for kind in &kinds {
        eventually(&format!("{} to be taken again", kind.name), SOON, || async {
            let answer = send(address, kind, kind.name).await.ok()?;
            (answer.status == 200 && answer.receipt().committed > 0).then_some(())
        })
        .await;
    }
    eventually("everything in flight to be given back", SOON, || async {
        let metrics = service.send(&Request::get("/metrics")).await.text();
        metrics.contains("\nlog_writer_inflight_bytes 0\n").then_some(())
    })
    .await;
    let mut statuses = BTreeMap::new();
    for one in &told {
        *statuses.entry(one.status).or_default() += 1;
    }
    Report {
        connections,
        peaks: [before, peak, service.memory().1],
        bound: (inflight_mib << 20) + BASE_BYTES + CONNECTION_BYTES * connections as u64,
        statuses,
        slowest: [told.iter().map(|one| one.took).max().unwrap_or_default(), health],
    }
}

/// Lets so many senders send one body each, all at once, the kinds in turn.
async fn flood(address: SocketAddr, kinds: &[Kind], senders: usize) -> Vec<Told> {
    let word = random_word();
    join_all((0..senders).map(|number| {
        let kind = &kinds[number % kinds.len()];
        let key = format!("{word}-{number}");
        async move {
            let start = Instant::now();
            let answer = send(address, kind, &key).await;
            Told {
                status: answer.map(|answer| answer.status).ok(),
                took: start.elapsed(),
            }
        }
    }))
    .await
}

/// Sends one body and reads its answer, which may come before all of it is written.
async fn send(address: SocketAddr, kind: &Kind, key: &str) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let (read, mut write) = stream.into_split();
    let mut answers = Connection::over(BufReader::new(read));
    let length = if kind.chunked {
        "transfer-encoding: chunked".to_owned()
    } else {
        format!("content-length: {}", kind.body.len())
    };
    let head = format!(
        "POST /ingest HTTP/1.1\r\nhost: 127.0.0.1\r\nidempotency-key: {key}\r\n{}{length}\r\n\r\n",
        kind.head
    );
    let writing = async {
        write.write_all(head.as_bytes()).await?;
        for piece in kind.body.chunks(PIECE_BYTES) {
            if kind.chunked {
                write.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            write.write_all(piece).await?;
            if kind.chunked {
                write.write_all(b"\r\n").await?;
            }
        }
        if kind.chunked {
            write.write_all(b"0\r\n\r\n").await?;
        }
        std::io::Result::Ok(())
    };
    // A broken pipe is no end: the answer may be there to be read.
    let (_written, answer) = tokio::join!(writing, answers.answer(false));
    answer
}

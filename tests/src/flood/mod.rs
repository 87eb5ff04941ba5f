//! Many senders with large bodies at once, while PostgreSQL is stalled: what each of them is told, and what is held.
//!
//! Bodies of five kinds, which a sender writes and reads the answer of as Vector does; a connection that breaks before an
//! answer is counted. Equal bodies differ by an `Idempotency-Key`, so that none is a resend of another.

mod report;

use std::{
    cell::Cell,
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

pub use self::report::Report;
use self::report::{Flood, Stall, Told};
use crate::{
    client::{Answer, Connection, Request, send as ask},
    conditions::{SOON, eventually},
    process::Process,
    proxy::{Mode, Proxy},
    service::{Service, Settings},
    stack::{Database, Stream, random_word},
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
        kind(
            "chunked",
            "content-type: application/x-ndjson\r\n",
            events.clone().into_bytes(),
            true,
        ),
        kind("array", "content-type: application/json\r\n", array.into_bytes(), false),
        kind(
            "gzip",
            "content-type: application/x-ndjson\r\ncontent-encoding: gzip\r\n",
            gzip,
            false,
        ),
        kind("text", "content-type: text/plain\r\n", lines.into_bytes(), false),
        kind(
            "ndjson",
            "content-type: application/x-ndjson\r\n",
            events.into_bytes(),
            false,
        ),
    ]
}

/// What docs/OPERATIONS.md says the process takes beside `http.inflight_bytes_max`: with nothing in flight, for each
/// connection whose body it reads, and for delivery with the default limits.
const BASE_BYTES: u64 = 64 << 20;
const CONNECTION_BYTES: u64 = 128 << 10;
const DELIVERY_BYTES: u64 = 4 * 2 * (8_000_000 + 5_000_000);
/// How long the delivery of one large body of each kind may take: 150,000 documents, by a debug build, on any machine.
const DELIVERED: Duration = Duration::from_secs(300);
/// `http.answer_timeout` of the flooded service: a debug build takes seconds to decode such a body.
const ANSWER_SECONDS: u64 = 10;

/// Files that the service may open beside the flood's connections: its own to PostgreSQL.
const FILES: usize = 32;

/// Where a flood takes place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    /// The service.
    pub program: &'p Path,
    /// PostgreSQL; a database is made there.
    pub database_url: &'p str,
    /// Where delivery goes.
    pub stream: &'p Stream,
}

/// Floods a service of this program with bodies of each kind, twice: while every commit waits for a lock, and while PostgreSQL
/// takes bytes and says nothing.
///
/// After each flood, that kind must be taken again, and all that was held be given back; at the end bodies of all kinds are
/// delivered.
///
/// # Panics
/// If it is not.
pub async fn large_bodies(place: Place<'_>, connections: usize, body_bytes: usize, inflight_mib: u64) -> Report {
    let database = Database::create_on(place.database_url).await;
    let to_postgres = Proxy::start(&database.address()).await;
    let settings = |elasticsearch: &str, tenant: &str| {
        Settings::new(&database.url_by(to_postgres.address()), elasticsearch, tenant)
            // A body ends with the line that reaches its size.
            .set("http.body_bytes_max", &(body_bytes + 1024).to_string())
            .set("http.inflight_bytes_max", &format!("{inflight_mib}MiB"))
            .set("http.answer_timeout", &format!("{ANSWER_SECONDS}s"))
            .set("log.filter", "warn")
            .program(place.program)
    };
    let service = Service::start(settings("http://127.0.0.1:1", "flood").set("elasticsearch.enabled", "false")).await;
    let kinds = kinds(body_bytes);
    let (_, before) = service.memory();
    let files = Process::of(service.pid()).open_files();
    let mut slowest_health = Duration::ZERO;
    let mut floods = Vec::new();
    // The first flood comes to a process that has done nothing yet.
    let stalls = |kind| [(kind, Stall::Silent), (kind, Stall::Locked)];
    for (kind, stall) in kinds.iter().flat_map(stalls) {
        let health = Health::default();
        let stalled = async {
            match stall {
                Stall::Locked => flood_behind_a_lock(service.address(), &database, kind, connections, &health).await,
                Stall::Silent => {
                    to_postgres.set(Mode::Stall);
                    let told = flood(service.address(), kind, connections, &health).await;
                    health.until_answered().await;
                    to_postgres.set(Mode::Forward);
                    (None, told)
                }
            }
        };
        let (held, others) = tokio::select! {
            told = stalled => told,
            () = ask_for_health(service.address(), &mut slowest_health, &health) => unreachable!("it never ends"),
        };
        take_all(&service, std::slice::from_ref(kind)).await;
        // `http.connections_max` is for one flood, and so is what is promised.
        eventually("the flood's connections to be closed", SOON, || async {
            (Process::of(service.pid()).open_files() < files + FILES).then_some(())
        })
        .await;
        floods.push(Flood {
            kind: kind.name,
            stall,
            held,
            others,
            healthy: health.answered.get(),
        });
    }
    let (_, peak) = service.memory();
    drop(service);

    let bound = (inflight_mib << 20) + BASE_BYTES + CONNECTION_BYTES * connections as u64;
    let service = Service::start(settings(place.stream.search.url(), &place.stream.tenant)).await;
    take_all(&service, &kinds).await;
    eventually("all to be delivered", DELIVERED, || async {
        let books = service.status().await["books"].take();
        (books["outstanding"] == 0 && books["indexed"].as_u64()? > 0).then_some(())
    })
    .await;
    Report {
        connections,
        peaks: [before, peak],
        bound,
        floods,
        slowest_health,
        delivering: [service.memory().1, bound + DELIVERY_BYTES],
    }
}

/// How `/health` is answered during one flood.
#[derive(Debug, Default)]
struct Health {
    /// A sender was told that there is no room.
    is_full: Cell<bool>,
    /// Answers to questions that were begun after that.
    answered: Cell<usize>,
}

impl Health {
    /// Waits for the first of these answers while the stall lasts: a flood may be over as soon as it has met the limit.
    async fn until_answered(&self) {
        if !self.is_full.get() {
            // The report says that nobody was told so.
            return;
        }
        eventually("/health to be answered after a body met the limit", SOON, || {
            std::future::ready((self.answered.get() > 0).then_some(()))
        })
        .await;
    }
}

/// One flood while every commit waits for a lock; what the one was told that waits for it first, and what the others were.
async fn flood_behind_a_lock(
    address: SocketAddr,
    database: &Database,
    kind: &Kind,
    connections: usize,
    health: &Health,
) -> (Option<Told>, Vec<Told>) {
    let mut stall = database.pool().begin().await.expect("a transaction");
    let lock = sqlx::query("lock table log_writer.requests in access exclusive mode");
    lock.execute(&mut *stall).await.expect("a lock");
    let others = async {
        eventually("the first body to be held", SOON, || async {
            // Housekeeping may wait for it too, and a committer that connects, before the body is decoded.
            let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                and wait_event_type = 'Lock' and application_name like 'log-writer committer%' and query like 'begin%'";
            // Or it waits for the committer of late events, which connects while the table is locked.
            (database.number(waiting).await > 0 || is_waited(address).await).then_some(())
        })
        .await;
        let told = flood(address, kind, connections - 1, health).await;
        health.until_answered().await;
        stall.rollback().await.expect("unlocked");
        told
    };
    let held = flood(address, kind, 1, health);
    let (held, told) = tokio::join!(held, others);
    (held.into_iter().next(), told)
}

/// Whether a decoded request waits for a committer.
async fn is_waited(address: SocketAddr) -> bool {
    let metrics = ask(address, &Request::get("/metrics")).await.expect("an answer").text();
    let mut lanes = metrics
        .lines()
        .filter(|line| line.starts_with("log_writer_requests_waiting{"));
    lanes.any(|line| !line.ends_with(" 0"))
}

/// Asks for `/health` without end; `slowest` becomes the slowest answer.
async fn ask_for_health(address: SocketAddr, slowest: &mut Duration, health: &Health) {
    loop {
        let (start, counts) = (Instant::now(), health.is_full.get());
        let answer = ask(address, &Request::get("/health")).await.expect("an answer");
        assert_eq!(answer.status, 200);
        *slowest = start.elapsed().max(*slowest);
        health.answered.set(health.answered.get() + usize::from(counts));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One body of each kind must be taken, and then nothing be held.
async fn take_all(service: &Service, kinds: &[Kind]) {
    let word = random_word();
    for kind in kinds {
        eventually(&format!("{} to be taken", kind.name), SOON, || async {
            let answer = send(service.address(), kind, &format!("{word}-{}", kind.name))
                .await
                .ok()?;
            if answer.status != 200 {
                return None;
            }
            // Of its own word alone: what was committed after its time to answer is a duplicate now.
            let receipt = answer.receipt();
            (receipt.committed + receipt.duplicates > 0).then_some(())
        })
        .await;
    }
    eventually("everything in flight to be given back", SOON, || async {
        let metrics = service.send(&Request::get("/metrics")).await.text();
        metrics.contains("\nlog_writer_inflight_bytes 0\n").then_some(())
    })
    .await;
}

/// Lets so many senders send one body each, all at once, and notes when one is told that there is no room.
async fn flood(address: SocketAddr, kind: &Kind, senders: usize, health: &Health) -> Vec<Told> {
    let word = random_word();
    join_all((0..senders).map(|number| {
        let key = format!("{word}-{number}");
        async move {
            let start = Instant::now();
            let status = send(address, kind, &key).await.map(|answer| answer.status).ok();
            if status == Some(429) {
                health.is_full.set(true);
            }
            Told {
                status,
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

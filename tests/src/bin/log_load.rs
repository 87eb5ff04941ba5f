//! Sends many events over a few connections and checks what became of them.
//!
//! ```text
//! cargo run --release -p log-writer-tests --bin log-load -- --url http://127.0.0.1:8080 --events 200000 \
//!     --per-request 100 --connections 16 --database-url "$DATABASE_URL" --elasticsearch-url "$ELASTICSEARCH_URL"
//! ```
//!
//! Bodies are made before the clock starts and one thread sends them, so that the service has the processors. Each
//! event has a v7 id and a time. Prints events/s, p50 and p99 of the answers and the lag of Elasticsearch; with the
//! stores given it compares ids and ends with 1 if an event is missing, doubled or unknown.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool that reports on its terminal; its tasks are joined"
)]

use std::{
    collections::HashSet,
    net::{SocketAddr, ToSocketAddrs as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use log_writer_tests::{
    client::{Connection, Request},
    invariants::document_id,
    search::Search,
    stack::random_word,
};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use uuid::{NoContext, Timestamp, Uuid};

/// Sends log events to a service, measures it, and checks both stores.
#[derive(Debug, Parser)]
struct Options {
    /// Where the service listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Events in all.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Events of one request.
    #[arg(long, default_value_t = 100)]
    per_request: usize,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// PostgreSQL to check afterwards.
    #[arg(long)]
    database_url: Option<String>,
    /// Elasticsearch to measure and to check afterwards.
    #[arg(long)]
    elasticsearch_url: Option<String>,
    /// Data stream that the events go to.
    #[arg(long, default_value = "logs-app-default")]
    stream: String,
    /// Events whose own lag is measured.
    #[arg(long, default_value_t = 40)]
    samples: usize,
    /// Seconds that Elasticsearch has to get everything.
    #[arg(long, default_value_t = 300)]
    wait_seconds: u64,
}

/// What is sent, made beforehand.
struct Load {
    service: String,
    requests: Vec<Vec<u8>>,
    /// Id and time in microseconds, in the order of the requests.
    sent: Vec<(Uuid, i64)>,
}

/// What the answers said.
#[derive(Default)]
struct Answers {
    times: Vec<Duration>,
    retries: usize,
    committed: u64,
    samples: Vec<JoinHandle<Option<Duration>>>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<ExitCode> {
    ensure!(
        options.events > 0 && options.per_request > 0 && options.connections > 0,
        "nothing to do"
    );
    let address = address_of(&options.url)?;
    let load = Arc::new(prepare(&options));
    let bytes: usize = load.requests.iter().map(Vec::len).sum();
    println!(
        "sending        {} events in {} requests of {} over {} connections, {:.1} MB, service = {}",
        options.events,
        load.requests.len(),
        options.per_request,
        options.connections,
        megabytes(bytes),
        load.service
    );
    let search = options.elasticsearch_url.as_deref().map(Search::new);
    let start = Instant::now();
    let mut answers = send_all(&options, address, &load, search.as_ref()).await?;
    let last_answer = Instant::now();
    report_answers(&options, &mut answers, last_answer - start);

    let mut right = answers.committed == options.events as u64;
    if let Some(search) = &search {
        right &= check_search(&options, &load, search, last_answer, answers.samples).await?;
    }
    if let Some(url) = &options.database_url {
        right &= check_database(&load, url).await?;
    }
    println!("result         {}", if right { "as it should be" } else { "WRONG" });
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prepare(options: &Options) -> Load {
    let service = format!("load-{}", random_word());
    let now = Utc::now();
    let (mut requests, mut sent) = (Vec::new(), Vec::new());
    let mut number = 0;
    while number < options.events {
        let until = (number + options.per_request).min(options.events);
        let events: Vec<Value> = (number..until)
            .map(|number| {
                // A few microseconds apart, as a busy source has them.
                let time = now + TimeDelta::microseconds(i64::try_from(number % 1_000_000).unwrap_or(0));
                let id = v7(time);
                sent.push((id, time.timestamp_micros()));
                event(number, id, time, &service)
            })
            .collect();
        requests.push(Request::json(&Value::Array(events)).encode());
        number = until;
    }
    Load {
        service,
        requests,
        sent,
    }
}

fn v7(time: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, time.timestamp_subsec_nanos()))
}

/// About 450 bytes, with what real events have: one in ten an error, some with a correlation and a user.
fn event(number: usize, id: Uuid, time: DateTime<Utc>, service: &str) -> Value {
    let level = [
        "INFO", "INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "INFO", "INFO", "ERROR",
    ]
    .get(number % 10)
    .copied()
    .unwrap_or("INFO");
    let mut event = json!({
        "event_id": id, "timestamp": time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true), "level": level,
        "service": service, "host": format!("node-{}", number % 8),
        "message": format!("GET /api/v1/bookmarks/{number} 200 in {}ms, cache miss for shard {}", number % 977, number % 64),
        "tags": ["web", "load"], "performance_metrics": { "duration_ms": number % 977 },
        "fields": { "region": "eu-1", "number": number, "request": { "method": "GET", "path": format!("/api/v1/x/{}", number % 40) } },
    });
    if let (Some(members), true) = (event.as_object_mut(), number.is_multiple_of(3)) {
        members.insert("correlation_id".to_owned(), json!(Uuid::from_u128(number as u128 / 7)));
        members.insert("user_id".to_owned(), json!(format!("user-{}", number % 5_000)));
    }
    event
}

async fn send_all(
    options: &Options,
    address: SocketAddr,
    load: &Arc<Load>,
    search: Option<&Search>,
) -> Result<Answers> {
    let next = Arc::new(AtomicUsize::new(0));
    let sample_every = (load.requests.len() / options.samples.max(1)).max(1);
    let mut senders = Vec::new();
    for _ in 0..options.connections {
        let (next, load) = (Arc::clone(&next), Arc::clone(load));
        let (search, stream, per_request) = (search.cloned(), options.stream.clone(), options.per_request);
        senders.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await.context("the service does not listen")?;
            let mut answers = Answers::default();
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = load.requests.get(position) else {
                    return Ok(answers);
                };
                send_one(&mut connection, request, &mut answers).await?;
                if let (Some(search), Some((id, _)), true) = (
                    &search,
                    load.sent.get(position * per_request),
                    position % sample_every == 0,
                ) {
                    answers
                        .samples
                        .push(tokio::spawn(lag(search.clone(), stream.clone(), *id)));
                }
            }
        }));
    }
    let mut all = Answers::default();
    for sender in senders {
        let answers: Result<Answers> = sender.await?;
        let answers = answers?;
        all.times.extend(answers.times);
        all.samples.extend(answers.samples);
        all.retries += answers.retries;
        all.committed += answers.committed;
    }
    Ok(all)
}

/// Sends a request until it is taken, as Vector does.
async fn send_one(connection: &mut Connection, request: &[u8], answers: &mut Answers) -> Result<()> {
    loop {
        let start = Instant::now();
        connection.write(request).await?;
        let answer = connection.answer(false).await?;
        match answer.status {
            200 => {
                answers.times.push(start.elapsed());
                let receipt: Value = serde_json::from_slice(&answer.body)?;
                answers.committed += receipt.get("committed").and_then(Value::as_u64).unwrap_or(0);
                return Ok(());
            }
            429 | 503 => {
                answers.retries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            status => bail!("answer {status}: {}", answer.text()),
        }
    }
}

/// Time from now until a search finds the event; `None` after a minute.
async fn lag(search: Search, stream: String, id: Uuid) -> Option<Duration> {
    let answered = Instant::now();
    let query = json!({ "term": { "event.id": id } });
    while answered.elapsed() < Duration::from_secs(60) {
        if search.count(&stream, &query).await > 0 {
            return Some(answered.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

fn report_answers(options: &Options, answers: &mut Answers, took: Duration) {
    answers.times.sort();
    println!(
        "answered       {:.2} s, {:.0} events/s, {} committed, {} requests sent again after 429 or 503",
        took.as_secs_f64(),
        rate(options.events, took),
        answers.committed,
        answers.retries
    );
    println!(
        "answers        p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        millis(quantile(&answers.times, 50)),
        millis(quantile(&answers.times, 99)),
        millis(quantile(&answers.times, 100))
    );
}

async fn check_search(
    options: &Options,
    load: &Load,
    search: &Search,
    last_answer: Instant,
    samples: Vec<JoinHandle<Option<Duration>>>,
) -> Result<bool> {
    let ours = json!({ "term": { "service": load.service } });
    let wanted = load.sent.len() as u64;
    let mut found = search.count(&options.stream, &ours).await;
    while found < wanted && last_answer.elapsed() < Duration::from_secs(options.wait_seconds) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = search.count(&options.stream, &ours).await;
    }
    println!(
        "elasticsearch  {found} searchable {:.2} s after the last answer",
        last_answer.elapsed().as_secs_f64()
    );
    let asked = samples.len();
    let mut lags = Vec::new();
    for sample in samples {
        lags.extend(sample.await?);
    }
    lags.sort();
    println!(
        "               lag of {} of {asked} sampled events: p50 {:.2} s, p99 {:.2} s, longest {:.2} s",
        lags.len(),
        quantile(&lags, 50).as_secs_f64(),
        quantile(&lags, 99).as_secs_f64(),
        quantile(&lags, 100).as_secs_f64()
    );
    let documents = search.ids(&options.stream, &ours).await;
    let expected: HashSet<String> = load.sent.iter().map(|(id, time)| document_id(*time, *id)).collect();
    Ok(compare(
        "elasticsearch",
        documents.len(),
        &documents.into_iter().collect(),
        &expected,
    ))
}

async fn check_database(load: &Load, url: &str) -> Result<bool> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(url)
        .await
        .context("PostgreSQL")?;
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from public.application_logs where service = $1")
        .bind(&load.service)
        .fetch_all(&pool)
        .await?;
    let expected: HashSet<Uuid> = load.sent.iter().map(|(id, _)| *id).collect();
    Ok(compare("timescaledb", ids.len(), &ids.into_iter().collect(), &expected))
}

/// Whether a store holds exactly what was sent, each once.
fn compare<T: Eq + std::hash::Hash>(store: &str, count: usize, found: &HashSet<T>, expected: &HashSet<T>) -> bool {
    let missing = expected.difference(found).count();
    let unknown = found.difference(expected).count();
    let doubled = count - found.len();
    println!("{store:<14} {count} stored, {missing} missing, {doubled} doubled, {unknown} unknown");
    missing + unknown + doubled == 0
}

fn address_of(url: &str) -> Result<SocketAddr> {
    let url = reqwest::Url::parse(url).with_context(|| format!("`{url}` is no URL"))?;
    let host = url.host_str().context("the URL has no host")?;
    let port = url.port_or_known_default().context("the URL has no port")?;
    (host, port)
        .to_socket_addrs()?
        .next()
        .context("the host has no address")
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let position = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(position).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn rate(events: usize, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}

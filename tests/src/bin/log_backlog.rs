//! What a stalled PostgreSQL and an absent Elasticsearch cost: memory, rates, and how the backlog drains (`make backlog`).
//!
//! ```text
//! log-backlog --database-url postgres://… --elasticsearch-url http://… --events 200000 --slow-seconds 20
//! ```
//!
//! Part one: many connections send large bodies while PostgreSQL is stalled, behind a lock and by silence; the peak of
//! resident memory is compared with what docs/OPERATIONS.md promises. Part two, in rounds: events at full rate with
//! Elasticsearch up and with it down, the same documents by plain `_bulk`, the drain. Part three: a large backlog at full
//! rate, then a slow one, then the drain with live traffic. Ends with 1 if a promise is broken.
#![expect(clippy::print_stdout, reason = "a tool that reports on its terminal")]

use std::{path::PathBuf, process::ExitCode, sync::Mutex, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use log_writer_tests::{
    backlog::{Arena, plain::Plain},
    flood::{Place, large_bodies},
    stack::Stream,
};

/// Different documents that plain `_bulk` sends, again and again if it is to send more.
const PLAIN_SOURCES: usize = 100_000;

/// Measures memory and backlog; both servers should be the tool's own.
#[derive(Debug, Parser)]
struct Options {
    /// PostgreSQL with TimescaleDB, as superuser; databases are made and dropped there.
    #[arg(long)]
    database_url: String,
    /// Elasticsearch without security; the stream of a random tenant is made and deleted there.
    #[arg(long)]
    elasticsearch_url: String,
    /// The service.
    #[arg(long, default_value = "target/release/log-writer-service")]
    service: PathBuf,
    /// Connections of the memory part; 0 leaves it out.
    #[arg(long, default_value_t = 500)]
    connections: usize,
    /// Size of each of their bodies.
    #[arg(long, default_value_t = 10_000_000)]
    body_bytes: usize,
    /// `http.inflight_bytes_max` of the memory part, in MiB.
    #[arg(long, default_value_t = 64)]
    inflight_mib: u64,
    /// Rounds of up, down and drain.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events of each leg of a round, and documents of plain `_bulk`.
    #[arg(long, default_value_t = 100_000)]
    round_events: u64,
    /// Events of the large backlog; 0 leaves part three out.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Seconds of the slow backlog.
    #[arg(long, default_value_t = 20)]
    slow_seconds: u64,
    /// Events a second of the slow backlog.
    #[arg(long, default_value_t = 1_000)]
    slow_rate: u32,
    /// Events a second of live traffic during the drain.
    #[arg(long, default_value_t = 200)]
    live_rate: u64,
    /// Connections that send at full rate.
    #[arg(long, default_value_t = 8)]
    senders: usize,
    /// Connections of plain `_bulk`: the default of `delivery.workers`.
    #[arg(long, default_value_t = 4)]
    bulk_connections: usize,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    anyhow::ensure!(
        options.rounds > 0 || options.events == 0,
        "the large backlog needs a round before it: plain `_bulk` sends its documents; give --rounds 1, or --events 0"
    );
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            right = run(&options) => Ok(if right? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}

async fn run(options: &Options) -> Result<bool> {
    let mut right = true;
    // Services start in folders of their own.
    let program = options.service.canonicalize().context("there is no such service")?;
    if options.connections > 0 {
        let report = large_bodies(
            Place {
                program: &program,
                database_url: &options.database_url,
                stream: &Stream::on(&options.elasticsearch_url),
            },
            options.connections,
            options.body_bytes,
            options.inflight_mib,
        )
        .await;
        println!("{report}");
        right &= report.holds();
    }
    if options.rounds > 0 {
        let arena = Arena::start(&program, &options.database_url, &options.elasticsearch_url).await;
        right &= rounds(options, &arena).await?;
        if options.events > 0 {
            right &= large_backlog(options, &arena).await?;
        }
    }
    println!("result         {}", if right { "as it should be" } else { "WRONG" });
    Ok(right)
}

/// Ingest with Elasticsearch up and down, and drains beside plain `_bulk`.
async fn rounds(options: &Options, arena: &Arena) -> Result<bool> {
    let memory = arena.watch_memory();
    let (mut ingest, mut drain) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let up_first = round % 2 == 0;
        let mut up = if up_first { up_leg(options, arena).await? } else { 0.0 };
        arena.set_down(true);
        let down = arena.send(options.round_events, options.senders).await?;
        let before = plain(options, arena, options.round_events).await;
        let drained = arena.drain(0).await;
        let after = plain(options, arena, options.round_events).await;
        let plain = f64::midpoint(before, after);
        if !up_first {
            up = up_leg(options, arena).await?;
        }
        println!(
            "round {:<8} ingest {up:.0}/s up, {down:.0}/s down; drain {:.0}/s ({:.1} s after it was noticed, which took {:.1} s), plain bulk {plain:.0}/s; memory at most {:.0} MB",
            round + 1,
            drained.rate(),
            drained.took.as_secs_f64(),
            drained.noticed.as_secs_f64(),
            megabytes(memory.take_most()),
        );
        ingest.push(down / up);
        drain.push(drained.rate() / plain);
    }
    if ingest.is_empty() {
        return Ok(true);
    }
    println!("ingest         down/up {}", spread(&mut ingest));
    println!("drain          of plain bulk {}", spread(&mut drain));
    Ok(median(&ingest) >= 1.0 && median(&drain) >= 0.8)
}

async fn up_leg(options: &Options, arena: &Arena) -> Result<f64> {
    arena.set_down(false);
    let rate = arena.send(options.round_events, options.senders).await?;
    arena.drain(0).await;
    Ok(rate)
}

async fn plain(options: &Options, arena: &Arena, documents: u64) -> f64 {
    let documents = usize::try_from(documents).unwrap_or(usize::MAX);
    let stream = arena.stream.name();
    let plain = Plain::of(&arena.stream.search, &stream, documents.min(PLAIN_SOURCES)).await;
    plain.load(options.bulk_connections, documents).await
}

/// A large backlog, a slow one, and their drain with live traffic.
async fn large_backlog(options: &Options, arena: &Arena) -> Result<bool> {
    let memory = arena.watch_memory();
    arena.set_down(true);
    let mut peaks = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..4 {
        rates.push(arena.send(options.events / 4, options.senders).await?);
        peaks.push(megabytes(memory.take_most()));
    }
    println!(
        "down           {} events at {:.0?} events/s in quarters; memory at most {peaks:.0?} MB",
        options.events, rates
    );
    let slow = arena
        .send_slowly(options.slow_rate.into(), Duration::from_secs(options.slow_seconds))
        .await?;
    let slow_peak = megabytes(memory.take_most());
    println!(
        "slow           {} s at {slow:.0} events/s; memory at most {slow_peak:.0} MB",
        options.slow_seconds
    );

    let (waiting, _) = arena.outstanding_and_indexed().await;
    let before = plain(options, arena, waiting).await;
    let lags = Mutex::new(Vec::new());
    let drained = tokio::select! {
        drained = arena.drain(options.live_rate * 5) => drained,
        () = arena.watch_live_events(options.live_rate, &lags) => unreachable!("it never ends"),
    };
    let drain_peak = megabytes(memory.take_most());
    let after = plain(options, arena, waiting).await;
    let mut lags: Vec<f64> = lags.into_inner()?.iter().map(Duration::as_secs_f64).collect();
    // The first ones met the outage.
    let current = lags.split_off(lags.len().min(1));
    let mut current = if current.is_empty() { lags } else { current };
    let share = drained.rate() / f64::midpoint(before, after);
    println!(
        "drain          {waiting} waited, {} indexed in {:.1} s (noticed after {:.1} s): {:.0}/s, {:.0} % of plain bulk ({before:.0}/s before, {after:.0}/s after); memory at most {drain_peak:.0} MB",
        drained.documents,
        drained.took.as_secs_f64(),
        drained.noticed.as_secs_f64(),
        drained.rate(),
        share * 100.0,
    );
    println!(
        "live           {} events meanwhile, searchable after {} s",
        current.len(),
        spread(&mut current)
    );
    println!("stored         {} events", arena.stored().await);
    let is_current = !current.is_empty() && current.last().is_some_and(|lag| *lag <= 5.0);
    let flat_max = peaks.first().copied().unwrap_or_default() * 1.25;
    let is_flat = peaks.iter().chain([&slow_peak]).all(|peak| *peak <= flat_max);
    let is_slow_kept = slow >= 0.98 * f64::from(options.slow_rate);
    Ok(is_flat && is_slow_kept && share >= 0.8 && is_current)
}

fn spread(figures: &mut [f64]) -> String {
    figures.sort_by(f64::total_cmp);
    format!(
        "min {:.2}, median {:.2}, max {:.2}",
        figures.first().copied().unwrap_or_default(),
        median(figures),
        figures.last().copied().unwrap_or_default()
    )
}

/// The middle of sorted figures.
fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

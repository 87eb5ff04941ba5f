//! What takes longer than `log-bench`: how cost grows, both stores at a rate that is held, two replicas (`make bench-full`).
//!
//! ```text
//! log-bench-full --database-url postgres://… --elasticsearch-url http://… --parts connections,rows --folder target/bench-full
//! ```
//!
//! Parts may be run one after the other: the folder keeps what others have shown. Ends with 1 if two replicas lost or doubled
//! an event, or anything was refused.
#![expect(clippy::print_stdout, reason = "a tool that reports on its terminal")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use log_writer_tests::{
    bench::{
        apart,
        full::{Full, Part, Run},
        growth::{Axis, Extent, Series},
        plots,
        replicas::{Leg, Place},
        stores::{Held, Stores},
    },
    search::Search,
    stack::Database,
};

/// How much faster each next rate is.
const FASTER: f64 = 1.2;

/// Measures the service; both servers should be the tool's own, on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// PostgreSQL with TimescaleDB, as superuser; databases are made and dropped there.
    #[arg(long, default_value = "postgres://postgres@127.0.0.1:5432/postgres")]
    database_url: String,
    /// Elasticsearch without security; streams of random tenants are made and deleted there.
    #[arg(long, default_value = "http://127.0.0.1:9200")]
    elasticsearch_url: String,
    /// The service.
    #[arg(long, default_value = "target/release/log-writer-service")]
    service: PathBuf,
    /// What is measured; all by default.
    #[arg(long, value_delimiter = ',')]
    parts: Vec<What>,
    /// Events of one sample at most.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// How often each size is measured, and each number of replicas.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Rows of the table at the end of part `rows`: half a GB for each million.
    #[arg(long, default_value_t = 10_000_000)]
    rows: usize,
    /// How long part `held` holds its rate.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Events a second that part `held` holds, and with which part `highest` begins.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// How long part `highest` holds each of its rates.
    #[arg(long, default_value_t = 40)]
    step_seconds: u64,
    /// Where full.json, full.md and the plots are written.
    #[arg(long, default_value = "target/bench-full")]
    folder: PathBuf,
    /// Measures nothing: writes tables and plots again from full.json.
    #[arg(long)]
    draw: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Connections,
    RequestEvents,
    EventBytes,
    Rows,
    Chunks,
    /// Both stores at a rate that is held.
    Held,
    /// Both stores at ever higher rates.
    Highest,
    /// Two replicas beside one.
    Replicas,
    /// Receiving and delivering, apart and together.
    Apart,
}

/// One thread: the processors are for those that are measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut options = Options::parse();
    let mut full = Full::read(&options.folder.join("full.json"))?;
    if options.draw {
        return write(&options.folder, &full);
    }
    options.service = options.service.canonicalize().context("there is no such service")?;
    if options.parts.is_empty() {
        options.parts = What::value_variants().to_vec();
    }
    let stores = stores(&options).await;
    for what in &options.parts {
        let run = Run::begin(&options.service, &stores);
        match what {
            What::Connections => grow(&options, Axis::Connections, run, &mut full).await?,
            What::RequestEvents => grow(&options, Axis::RequestEvents, run, &mut full).await?,
            What::EventBytes => grow(&options, Axis::EventBytes, run, &mut full).await?,
            What::Rows => grow(&options, Axis::Rows, run, &mut full).await?,
            What::Chunks => grow(&options, Axis::Chunks, run, &mut full).await?,
            What::Held => {
                let shown = Box::pin(held(&options)).await?;
                full.held = Some(Part { run, shown });
            }
            What::Highest => {
                let shown = Box::pin(highest(&options)).await?;
                full.highest = Some(Part { run, shown });
            }
            What::Replicas => {
                let shown = Box::pin(replicas(&options)).await?;
                full.replicas = Some(Part { run, shown });
            }
            What::Apart => {
                let shown = Box::pin(apart(&options)).await?;
                full.apart = Some(Part { run, shown });
            }
        }
        // After each: what was measured stays if a later part fails.
        write(&options.folder, &full)?;
    }
    println!("\n{}", full.markdown());
    Ok(())
}

/// Figures, tables and a plot of everything that grows.
fn write(folder: &Path, full: &Full) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("full.json"), serde_json::to_vec_pretty(full)?)?;
    fs::write(folder.join("full.md"), full.markdown())?;
    for (axis, part) in &full.growth {
        fs::write(
            folder.join(format!("{}.svg", axis.file_stem())),
            plots::svg(&part.shown)?,
        )?;
    }
    Ok(())
}

/// Versions of both stores, and the settings that decide.
async fn stores(options: &Options) -> String {
    let database = Database::create_on(&options.database_url).await;
    database.execute("create extension if not exists timescaledb").await;
    let postgres = database
        .text(
            "select 'PostgreSQL ' || current_setting('server_version') || ', TimescaleDB ' || extversion || ' ' \
             || current_setting('timescaledb.license') || ' (' || (select string_agg(name || '=' || current_setting(name), ', ' \
             order by name) from pg_settings where name in ('shared_buffers', 'max_wal_size', 'wal_compression', 'fsync', \
             'synchronous_commit')) || ')' from pg_extension where extname = 'timescaledb'",
        )
        .await;
    let node = Search::new(&options.elasticsearch_url).ok("GET", "/", None).await;
    format!(
        "{postgres}, Elasticsearch {}",
        node.pointer("/version/number")
            .and_then(|number| number.as_str())
            .unwrap_or("?")
    )
}

async fn grow(options: &Options, axis: Axis, run: Run, full: &mut Full) -> Result<()> {
    let extent = Extent {
        events: options.events,
        rounds: options.rounds,
        rows: options.rows,
    };
    let said = |x: f64, sample: &log_writer_tests::bench::ground::Sample| {
        println!(
            "{x:>10.0} {:<62} {:>7.0} events/s, p50 {:.2} ms, service {:.2} µs, PostgreSQL {:.2} µs",
            axis.label(),
            sample.rate,
            sample.p50_ms,
            sample.cost.service_cpu_us,
            sample.cost.server_cpu_us
        );
    };
    let shown = Box::pin(Series::measure(
        axis,
        extent,
        &options.service,
        &options.database_url,
        said,
    ))
    .await?;
    fs::write(
        options.folder.join(format!("{}.svg", axis.file_stem())),
        plots::svg(&shown)?,
    )?;
    full.growth.insert(axis, Part { run, shown });
    Ok(())
}

/// With the default settings; then, a tenth of the time each, with them again, with gzip, and without rests.
async fn held(options: &Options) -> Result<Vec<Held>> {
    let mut shown = Vec::new();
    let time = Duration::from_secs(60 * options.minutes);
    for (setting, time) in [
        (None, time),
        // Elasticsearch has compiled by now: what the other two are compared with.
        (None, time / 10),
        (Some(("elasticsearch.gzip", "always")), time / 10),
        (Some(("delivery.linger", "0s")), time / 10),
    ] {
        let stores = start(options, setting).await?;
        let held = stores.hold(options.rate, time).await?;
        say(&held.setting, &held);
        stores.drain().await;
        shown.push(held);
    }
    Ok(shown)
}

/// Ever higher rates until one breaks a goal, then halfway back.
async fn highest(options: &Options) -> Result<Vec<Held>> {
    let stores = start(options, None).await?;
    let time = Duration::from_secs(options.step_seconds);
    let mut shown = Vec::new();
    let (mut rate, mut kept) = (options.rate as f64, 0.0);
    loop {
        let held = stores.hold(rounded(rate), time).await?;
        say("step", &held);
        stores.drain().await;
        let holds = held.holds();
        shown.push(held);
        if !holds {
            break;
        }
        (kept, rate) = (rate, rate * FASTER);
    }
    let held = stores.hold(rounded(f64::midpoint(kept, rate)), time).await?;
    say("halfway", &held);
    shown.push(held);
    Ok(shown)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is a small positive number"
)]
fn rounded(rate: f64) -> u64 {
    (rate / 100.0).round() as u64 * 100
}

async fn start(options: &Options, setting: Option<(&str, &str)>) -> Result<Stores> {
    let stores = Stores::start(
        &options.service,
        &options.database_url,
        &options.elasticsearch_url,
        setting,
    )
    .await?;
    // The stream is made, every connection is open.
    stores.hold(options.rate, Duration::from_secs(5)).await?;
    stores.drain().await;
    Ok(stores)
}

fn say(what: &str, held: &Held) {
    println!(
        "{what:<10} {} due, {:.0} events/s, p99 of answers {:.1} ms, of finding {:.2} s, {} wait, service {:.2} µs: {}",
        held.due,
        held.rate,
        held.answers.p99_ms,
        held.searchable.p99_ms / 1e3,
        held.outstanding[1],
        held.cost.service_cpu_us,
        if held.holds() { "holds" } else { "does not hold" }
    );
}

/// Where the servers are.
fn place(options: &Options) -> Place<'_> {
    Place {
        program: &options.service,
        database_url: &options.database_url,
        elasticsearch_url: &options.elasticsearch_url,
    }
}

async fn apart(options: &Options) -> Result<Vec<apart::Leg>> {
    let mut shown = Vec::new();
    for _ in 0..options.rounds {
        let told = |leg: apart::Leg| {
            println!(
                "{:<50} {:.0} events/s, service {:.2} µs",
                leg.phase.name(),
                leg.rate,
                leg.cost.service_cpu_us
            );
            shown.push(leg);
        };
        apart::round(place(options), options.events, told).await?;
    }
    Ok(shown)
}

async fn replicas(options: &Options) -> Result<Vec<Leg>> {
    let place = place(options);
    let mut shown = Vec::new();
    for round in 0..options.rounds {
        for delivers in [false, true] {
            let counts = if round % 2 == 0 { [1, 2] } else { [2, 1] };
            for count in counts {
                let leg = Leg::run(place, count, options.events, delivers).await?;
                println!(
                    "{:<26} {:.0} events/s, until delivered {:.0}, service {:.2} µs",
                    leg.name(),
                    leg.rate,
                    leg.delivered_rate.unwrap_or_default(),
                    leg.cost.service_cpu_us
                );
                shown.push(leg);
            }
        }
    }
    Ok(shown)
}

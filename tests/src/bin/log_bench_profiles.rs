//! Rate, CPU, disk and WAL of the profile `columnar` beside `row` (`make bench PROFILE=columnar`).
//!
//! ```text
//! log-bench-profiles --database-url postgres://… --service target/release/log-writer-service --rounds 3
//! ```
//!
//! One service and database for each profile, on one server with the Community edition, without Elasticsearch. In each round
//! both take the same requests into their emptied tables, the one after the other, the other one stopped. TimescaleDB's jobs
//! are off: they would count and compress in between.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that reports on its terminal"
)]

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use log_writer_tests::{
    bench::{
        PER_REQUEST, encoded,
        events::{self, Shape},
        ground::{Ground, Sample},
        report::{shown, spread},
    },
    stack::Database,
};

/// Compares the storage profiles; the server should be the tool's own, on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// PostgreSQL with TimescaleDB's Community edition, as superuser; databases are made and dropped there.
    #[arg(long)]
    database_url: String,
    /// The service.
    #[arg(long, default_value = "target/release/log-writer-service")]
    service: PathBuf,
    /// Events of each leg.
    #[arg(long, default_value_t = 400_000)]
    events: usize,
    /// How often every leg is run.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that send.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// Writes the tables as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// A profile at work.
struct Side {
    profile: &'static str,
    ground: Ground,
}

/// What one leg showed.
#[derive(Debug, Clone, Copy)]
struct Figure {
    profile: &'static str,
    connections: usize,
    sample: Sample,
    /// Bytes an event.
    disk: f64,
    wal: f64,
}

impl Side {
    async fn start(options: &Options, profile: &'static str) -> Result<Self> {
        let program = options.service.canonicalize().context("there is no such service")?;
        let ground = Ground::start(&program, &options.database_url, |settings| {
            settings.set("storage.profile", profile)
        })
        .await?;
        ground
            .database
            .execute("select _timescaledb_functions.stop_background_workers()")
            .await;
        ground.service.signal("STOP");
        Ok(Self { profile, ground })
    }

    async fn run(&self, requests: &[Bytes], connections: usize) -> Result<Figure> {
        let events = requests.len() * PER_REQUEST;
        let per_event = |total: f64| total / events as f64;
        self.ground.clear().await;
        self.ground.service.signal("CONT");
        let wal = self.wal().await;
        let sample = self.ground.send(requests, events, connections).await?;
        let wal = self.wal().await - wal;
        self.ground.service.signal("STOP");
        Ok(Figure {
            profile: self.profile,
            connections,
            sample,
            disk: per_event(self.disk().await),
            wal: per_event(wal),
        })
    }

    async fn wal(&self) -> f64 {
        let query = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        self.ground.database.number(query).await as f64
    }

    /// Of the events with their indexes.
    async fn disk(&self) -> f64 {
        let query = "select sum(total_bytes)::bigint from hypertable_detailed_size('application_logs')";
        self.ground.database.number(query).await as f64
    }
}

/// One thread: the processors are for those that are measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.events > 0 && options.events.is_multiple_of(PER_REQUEST),
        "--events must be a multiple of {PER_REQUEST}"
    );
    ensure!(
        Database::create_on(&options.database_url).await.is_community().await,
        "the profile columnar needs the Community edition"
    );
    let mut sides = [
        Side::start(&options, "row").await?,
        Side::start(&options, "columnar").await?,
    ];
    let bodies = events::bodies(chrono::Utc::now(), 0..options.events, PER_REQUEST, Shape::Typical);
    let requests = encoded(bodies);
    let mut figures = Vec::new();
    for round in 0..=options.rounds {
        sides.reverse();
        for &connections in &options.connections {
            for side in &sides {
                let figure = side.run(&requests, connections).await?;
                eprintln!("round {round}: {figure:.1?}");
                // The first one warms up.
                if round > 0 {
                    figures.push(figure);
                }
            }
        }
    }
    let row = sides.iter().find(|side| side.profile == "row").context("a side")?;
    row.ground
        .database
        .execute("select compress_chunk(c) from show_chunks('application_logs') c")
        .await;
    let packed = row.disk().await / options.events as f64;
    let report = report(&options, &figures, packed);
    println!("{report}");
    if let Some(path) = &options.markdown {
        fs::write(path, report).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Minimum, median and maximum of each figure, and what the goals are about.
fn report(options: &Options, figures: &[Figure], packed: f64) -> String {
    let mut out = String::from(
        "| profile, connections | events/s | service CPU µs | PostgreSQL CPU µs | MB a million events | MB of WAL |\n|---|---|---|---|---|---|\n",
    );
    let of = |profile: &str, connections: usize, value: fn(&Figure) -> f64| {
        let of_leg = |figure: &&Figure| figure.profile == profile && figure.connections == connections;
        spread(figures.iter().filter(of_leg).map(value).collect())
    };
    for &connections in &options.connections {
        for profile in ["row", "columnar"] {
            let cell = |value, digits| shown(of(profile, connections, value), digits);
            out += &format!(
                "| {profile}, {connections} | {} | {} | {} | {} | {} |\n",
                cell(|figure| figure.sample.rate, 0),
                cell(|figure| figure.sample.cost.service_cpu_us, 2),
                cell(|figure| figure.sample.cost.server_cpu_us, 2),
                cell(|figure| figure.disk, 0),
                cell(|figure| figure.wal, 0),
            );
        }
    }
    out += &format!(
        "\nThe rows in the columnstore, as a day later: {packed:.0} MB a million events.\n\n| goal | bound | measured |\n|---|---|---|\n"
    );
    for &connections in &options.connections {
        let ratios = |value: fn(&Figure) -> f64| {
            let all = |profile: &str| -> Vec<f64> {
                let of_leg = |figure: &&Figure| figure.profile == profile && figure.connections == connections;
                figures.iter().filter(of_leg).map(value).collect()
            };
            // Of one round each.
            let rounds = all("columnar").into_iter().zip(all("row"));
            shown(spread(rounds.map(|(columnar, row)| columnar / row).collect()), 2)
        };
        out += &format!(
            "| columnar / row, {connections} connections: rate | ≥ 1.5 | {} |\n| the same: disk | ≤ 0.167 | {} |\n",
            ratios(|figure| figure.sample.rate),
            ratios(|figure| figure.disk)
        );
    }
    out
}

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

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use log_writer_tests::{
    bench::{
        PER_REQUEST,
        events::{self, Shape},
        load,
    },
    client::Request,
    process::Process,
    service::{Service, Settings},
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
    service: Service,
    database: Database,
    server: Process,
}

/// What one leg showed.
#[derive(Debug, Clone, Copy)]
struct Figure {
    profile: &'static str,
    connections: usize,
    /// Events a second.
    rate: f64,
    /// Microseconds of CPU an event.
    service_cpu: f64,
    server_cpu: f64,
    /// Bytes an event.
    disk: f64,
    wal: f64,
}

impl Side {
    async fn start(options: &Options, profile: &'static str) -> Result<Self> {
        let database = Database::create_on(&options.database_url).await;
        ensure!(
            database.is_community().await,
            "the profile columnar needs the Community edition"
        );
        let settings = Settings::default()
            .set("database.url", database.url())
            .set("elasticsearch.enabled", "false")
            .set("storage.profile", profile)
            .program(&options.service.canonicalize().context("there is no such service")?);
        let service = Service::start(settings).await;
        database
            .execute("select _timescaledb_functions.stop_background_workers()")
            .await;
        let backend = database.number("select pg_backend_pid()::bigint").await;
        let server = Process::of(u32::try_from(backend)?)
            .parent()
            .context("the server is not on this machine")?;
        service.signal("STOP");
        Ok(Self {
            profile,
            service,
            database,
            server,
        })
    }

    async fn run(&self, requests: &[Bytes], connections: usize) -> Result<Figure> {
        for statement in [
            "truncate public.application_logs",
            "truncate log_writer.requests",
            "checkpoint",
        ] {
            self.database.execute(statement).await;
        }
        self.service.signal("CONT");
        let service = Process::of(self.service.pid());
        let cpu = || (service.cpu(), self.server.cpu_with_children());
        let (wal, before, begun) = (self.wal().await, cpu(), Instant::now());
        load::send(self.service.address(), requests, connections).await?;
        let (took, after) = (begun.elapsed(), cpu());
        let wal = self.wal().await - wal;
        self.service.signal("STOP");
        let events = requests.len() * PER_REQUEST;
        let stored = self.database.number("select count(*) from application_logs").await;
        ensure!(
            usize::try_from(stored)? == events,
            "{stored} rows are stored of {events} events"
        );
        let per_event = |total: f64| total / events as f64;
        let micros = |spent: Duration| per_event(spent.as_secs_f64() * 1e6);
        Ok(Figure {
            profile: self.profile,
            connections,
            rate: events as f64 / took.as_secs_f64(),
            service_cpu: micros(after.0 - before.0),
            server_cpu: micros(after.1 - before.1),
            disk: per_event(self.disk().await),
            wal: per_event(wal),
        })
    }

    async fn wal(&self) -> f64 {
        let query = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        self.database.number(query).await as f64
    }

    /// Of the events with their indexes.
    async fn disk(&self) -> f64 {
        let query = "select sum(total_bytes)::bigint from hypertable_detailed_size('application_logs')";
        self.database.number(query).await as f64
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
    let mut sides = [
        Side::start(&options, "row").await?,
        Side::start(&options, "columnar").await?,
    ];
    let bodies = events::bodies(chrono::Utc::now(), 0..options.events, PER_REQUEST, Shape::Typical);
    let requests: Vec<Bytes> = bodies
        .into_iter()
        .map(|body| {
            let request = Request::new("POST", "/ingest", body).header("content-type", "application/json");
            Bytes::from(request.encode())
        })
        .collect();
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
    row.database
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
                cell(|figure| figure.rate, 0),
                cell(|figure| figure.service_cpu, 2),
                cell(|figure| figure.server_cpu, 2),
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
            ratios(|figure| figure.rate),
            ratios(|figure| figure.disk)
        );
    }
    out
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |position: usize| values.get(position).copied().unwrap_or(f64::NAN);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}

fn shown([least, median, most]: [f64; 3], digits: usize) -> String {
    format!("{least:.digits$} / **{median:.digits$}** / {most:.digits$}")
}

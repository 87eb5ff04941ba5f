//! How fast the service is beside raw COPY, beside Vector's own statement, and beside Vector itself (`make bench`).
//!
//! ```text
//! log-bench --database-url postgres://… --service target/release/log-writer-service --rounds 3
//! ```
//!
//! Each round runs every leg once, in another order than the round before, into the same table, emptied and flushed in
//! between; after each leg the table must hold exactly what was sent. Prints Markdown, and writes it and JSON if told where.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that reports on its terminal"
)]

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use log_writer_tests::bench::{Bench, PER_REQUEST, PER_TRANSACTION, legs::Leg, report::Report};

/// Measures the service; the server should be the tool's own, on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// PostgreSQL with TimescaleDB, as superuser; a database is made and dropped there.
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
    /// Vector 0.57, whose own sinks are measured then: its `postgres` sink to the same table, its `http` sink to the service.
    #[arg(long)]
    vector: Option<PathBuf>,
    /// Connections of the service's legs.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// Writes everything as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the tables as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// A file of instruction counts to put below the tables.
    #[arg(long)]
    instructions: Option<PathBuf>,
}

/// One thread: the processors are for those that are measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.events > 0
            && options.events.is_multiple_of(PER_TRANSACTION)
            && options.events.is_multiple_of(PER_REQUEST),
        "--events must be a multiple of {PER_TRANSACTION}"
    );
    let program = options.service.canonicalize().context("there is no such service")?;
    let instructions = options.instructions.as_ref().map(fs::read_to_string).transpose()?;
    let mut bench = Bench::prepare(&program, &options.database_url, options.events).await?;
    let vector = match &options.vector {
        Some(program) => Some(bench.bring_vector(program).await?),
        None => None,
    };
    let instructions = instructions.iter().flat_map(|text| text.lines()).map(str::to_owned);
    let mut report = Report::begin(&bench, &program.to_string_lossy(), vector, instructions.collect()).await;
    let mut legs = vec![
        Leg::Copy,
        Leg::Statement,
        Leg::SingleCopy,
        Leg::SingleCommit,
        Leg::SingleOurs,
    ];
    legs.extend(options.connections.iter().map(|count| Leg::Ours(*count)));
    if options.vector.is_some() {
        legs.extend([Leg::VectorSink, Leg::VectorSinkByDefault, Leg::ThroughService]);
    }
    for round in 1..=options.rounds {
        // Whatever one leg leaves to the next, it is not always the same two.
        legs.rotate_left(1);
        if round.is_multiple_of(2) {
            legs.reverse();
        }
        for leg in &legs {
            let figure = bench.run(*leg, round).await?;
            eprintln!(
                "round {round}: {:<66} {:>7.0} events/s, service {:.2} µs, PostgreSQL {:.2} µs",
                leg.name(),
                figure.sample.rate,
                figure.sample.cost.service_cpu_us,
                figure.sample.cost.server_cpu_us
            );
            report.figures.push(figure);
        }
    }
    report.end(&options.connections);
    let markdown = report.markdown();
    println!("{markdown}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, markdown).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

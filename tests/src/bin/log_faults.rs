//! Conservation runs with faults drawn from a seed (`make faults`).
//!
//! ```text
//! log-faults --runs 100 --seed 1 --json target/faults.json --logs target/faults
//! ```
//!
//! Prints a line a run and a table at the end. The first run draws from the seed itself, each further one from a seed
//! drawn from it and printed. Ends with 1 if anything was lost, doubled or otherwise wrong, or if a hard path was never
//! taken: such a set of runs proves little.
#![expect(clippy::print_stdout, reason = "a tool that reports on its terminal")]

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use log_writer_tests::conservation::{Servers, Size, Summary, run};
use tokio::signal::unix::{SignalKind, signal};

/// Breaks everything at random and checks that nothing is lost and nothing doubled.
#[derive(Debug, Parser)]
struct Options {
    /// Runs.
    #[arg(long, default_value_t = 100)]
    runs: usize,
    /// Seed of the first run; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// File for all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the replicas' logs of runs that are wrong.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Runs as short as that of `make test`.
    #[arg(long)]
    short: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        // Whoever ends it early leaves neither replicas nor servers behind: they end when they are dropped.
        tokio::select! {
            outcome = run_all(options) => outcome,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
        }
    })
}

async fn run_all(options: Options) -> Result<ExitCode> {
    let size = if options.short { Size::SHORT } else { Size::FULL };
    let first = options.seed.unwrap_or_else(|| fastrand::Rng::new().u32(..).into());
    let mut draw = fastrand::Rng::with_seed(first);
    println!("{} runs, seed {first}", options.runs);
    let servers = Arc::new(Servers::start().await);
    let (mut summary, mut each, mut seed) = (Summary::default(), Vec::new(), first);
    for _ in 0..options.runs {
        let outcome = run(&servers, seed, &size, options.logs.as_deref()).await;
        println!("{}", outcome.line());
        summary.add(&outcome);
        each.push(outcome.json());
        if let Some(file) = &options.json {
            // After each run: what is known so far survives whatever ends this program.
            std::fs::write(file, serde_json::to_vec_pretty(&summary.json(&each))?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        seed = draw.u32(..).into();
    }
    println!("\n{}", summary.table());
    Ok(if summary.is_green() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

//! The commands of the one binary: arguments, exit codes, what is said when something cannot be done.
//!
//! Exit code 0: done; 1: it did not work, the reason is on standard error; 2: mistakes in the arguments or the
//! configuration, all of them on standard error (`verify` has its own codes). Standard output has only what a command
//! was asked for.

mod archive;
mod audit;
mod bootstrap;
mod config;
mod dead_letters;
mod escape;
mod healthcheck;
mod mcp;
mod migrate;
mod moment;
mod progress;
mod serve;
mod table;
mod token;
mod unreachable;
mod verify;

use std::{
    fmt::Display,
    future::Future,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{
    auth,
    config::{Config, Loaded, Report, Sources, load_with},
    event::Normaliser,
    telemetry::logging,
};

const MISTAKES: u8 = 2;

/// Commits batches of log events to TimescaleDB and mirrors them to Elasticsearch.
#[derive(Debug, Parser)]
#[command(name = "log-writer-service", version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What goes over the configuration file and the environment.
#[derive(Debug, Args)]
struct Given {
    /// Configuration file [default: `LOG_WRITER_CONFIG`, else /etc/log-writer/log-writer.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, over file and environment; may be repeated
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Address and port to listen on, the same as --set http.listen=ADDRESS
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the service; what is done without a command
    Serve,
    /// Brings the database to this version's schema
    Migrate,
    /// Applies templates and policy to Elasticsearch
    Bootstrap(bootstrap::Arguments),
    /// Shows the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Lists, checks and restores archived events
    #[command(subcommand)]
    Archive(archive::Command),
    /// Shows who did what: the audit trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// Finds, shows, redrives and purges dead letters
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Asks a running service for /health: exit code 0 if it answers 200
    Healthcheck(healthcheck::Arguments),
    /// Answers agents by the Model Context Protocol over standard input and output
    Mcp,
    /// Compares both stores, and repairs Elasticsearch if asked; exit code 0: equal, 1: different, 2: not compared
    Verify(verify::Arguments),
    /// Makes tokens and hashes for the file that `auth.tokens_file` names
    #[command(subcommand)]
    Token(token::Command),
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { given, command } = Arguments::parse();
    let done = match command {
        Some(Command::Config(command)) => command.run(&given),
        Some(Command::Archive(command)) => command.run(&given),
        Some(Command::Audit(command)) => command.run(&given),
        Some(Command::DeadLetters(command)) => command.run(&given),
        Some(Command::Healthcheck(arguments)) => arguments.run(&given),
        Some(Command::Token(command)) => command.run(),
        Some(Command::Mcp) => mcp::run(&given),
        Some(Command::Migrate) => migrate::run(&given),
        Some(Command::Bootstrap(arguments)) => arguments.run(&given),
        Some(Command::Verify(arguments)) => match arguments.run(&given) {
            Ok(true) => return ExitCode::SUCCESS,
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => {
                tell(&error);
                return ExitCode::from(MISTAKES);
            }
        },
        Some(Command::Serve) | None => serve::run(&given),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            if error.is::<Report>() {
                ExitCode::from(MISTAKES)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Nobody is left to tell if standard error is closed.
fn tell(error: &anyhow::Error) {
    writeln!(io::stderr(), "{}", message(error)).ok();
}

/// The error with its causes; a cause that its consequence quotes is not said twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::from("log-writer-service: ");
    for (number, cause) in error.chain().enumerate() {
        let cause = cause.to_string();
        if number == 0 {
            text.push_str(&cause);
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

impl Given {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A [`Report`] of all mistakes.
    fn load(&self) -> Result<Loaded, Report> {
        let sources = Sources::of_process(self.config.clone(), &self.set, self.listen.as_deref());
        load_with(&sources, alias_mistakes)
    }

    /// The same for what listens: who may connect is checked too.
    ///
    /// # Errors
    /// A [`Report`] of all mistakes.
    fn load_to_serve(&self) -> Result<Loaded, Report> {
        let sources = Sources::of_process(self.config.clone(), &self.set, self.listen.as_deref());
        load_with(&sources, |config| {
            let mut mistakes = alias_mistakes(config);
            mistakes.extend(auth::mistakes(config));
            mistakes
        })
    }
}

impl Given {
    /// Reads the configuration and sets up the log by it.
    ///
    /// # Errors
    /// A [`Report`] of all mistakes, or the log's own error.
    fn begin(&self) -> anyhow::Result<Config> {
        begin_with(self.load()?)
    }
}

fn begin_with(loaded: Loaded) -> anyhow::Result<Config> {
    logging::init(&loaded.config.log)?;
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    let changes = loaded.changes();
    if changes.is_empty() {
        tracing::info!("every key of the configuration has its default");
    } else {
        tracing::info!(changes = changes.join("; "), "configuration");
    }
    Ok(loaded.config)
}

/// What the normaliser cannot work with: a name in two lists, for example.
fn alias_mistakes(config: &Config) -> Vec<(String, String)> {
    let Err(invalid) = Normaliser::new(&config.events) else {
        return Vec::new();
    };
    let of_key = |text: &String| match text.split_once(": ") {
        Some((key, message)) => (key.to_owned(), message.to_owned()),
        None => ("events.aliases".to_owned(), text.clone()),
    };
    invalid.mistakes().iter().map(of_key).collect()
}

/// Runs a command's work on a runtime of its own.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(work);
    // What still runs on threads for files may be cut off anywhere: nobody waits for it.
    runtime.shutdown_background();
    done
}

/// Prints what was asked for; a reader that has enough (`| head`) is no failure.
fn print(text: &impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_are_taken_before_and_after_the_command() {
        for line in [
            "x --set a.b=c --listen d config check",
            "x config check --set a.b=c --listen d",
        ] {
            let given = Arguments::try_parse_from(line.split(' ')).unwrap().given;
            assert_eq!(
                (given.set, given.listen.as_deref()),
                (vec!["a.b=c".to_owned()], Some("d")),
                "{line}"
            );
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes_once() {
        let error = anyhow::anyhow!("connection refused")
            .context("asking a: connection refused")
            .context("no health");
        assert_eq!(
            message(&error),
            "log-writer-service: no health: asking a: connection refused"
        );
    }
}

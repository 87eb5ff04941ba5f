//! `archive`: what the archive has, whether it is what was written, and bringing events back from it.
//!
//! `list` and `verify` need the files alone; `restore` commits to the database, beside running services.

mod list;
mod restore;
mod verify;

use std::path::PathBuf;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::{Given, block_on, moment::moment, unreachable};
use crate::{
    archive::{ArchiveError, Day, FileEntry, Manifest, RestoreScope, days},
    config::Config,
    event::Timestamp,
    timescale::Span,
};

/// The arguments that say which events.
const FILTERS: [&str; 3] = ["since", "until", "tenant"];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the files: day, tenant, events, bytes
    List(list::Arguments),
    /// Reads files and compares them with their manifests; exit code 1 if one is damaged
    Verify(verify::Arguments),
    /// Brings events back into both stores; stored ones stay as they are
    Restore(restore::Arguments),
}

impl Command {
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<()> {
        let config = given.load()?.config;
        match self {
            Self::List(arguments) => arguments.run(&config),
            Self::Verify(arguments) => arguments.run(&config),
            Self::Restore(arguments) => block_on(Box::pin(arguments.run(&config)))
                .map_err(|error| unreachable::explain(error, &config.database)),
        }
    }
}

/// What a day's manifest says; none if the day was not archived to the end.
type Known = Result<Option<Manifest>, ArchiveError>;

/// Which events.
#[derive(Debug, Args)]
struct Which {
    /// Events from this time on: 2026-11-20T12:00:00Z, 2026-11-20 (UTC), or how long ago: 40d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
    /// Events before this time, written like --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// This tenant's alone
    #[arg(long)]
    tenant: Option<String>,
    /// Folder of the archive [default: `retention.archive_path`]
    #[arg(long, value_name = "FOLDER")]
    path: Option<PathBuf>,
}

impl Which {
    fn span(&self) -> anyhow::Result<Span> {
        let span = Span {
            from: self.since.map_or(Timestamp(i64::MIN), Timestamp::from),
            to: self.until.map_or(Timestamp(i64::MAX), Timestamp::from),
        };
        if span.from >= span.to {
            bail!("there is nothing between --since and --until");
        }
        Ok(span)
    }

    /// The days that can have such events, the oldest first, with what they have of them. A day without manifest was not
    /// archived to the end, so nothing of it was dropped.
    fn days(&self, config: &Config) -> anyhow::Result<Vec<(Day, Known)>> {
        let archive = self.path.as_ref().or(config.retention.archive_path.as_ref());
        let archive = archive.context("retention.archive_path is not set: name the folder with --path")?;
        let span = self.span()?;
        let scope = RestoreScope {
            span,
            keep: std::time::Duration::ZERO,
        };
        let mut found = Vec::new();
        for day in days(archive)? {
            if day.span().to <= span.from || day.span().from >= span.to {
                continue;
            }
            let mut manifest = day.manifest();
            if let Ok(Some(manifest)) = &mut manifest {
                let is_meant = |entry: &FileEntry| self.tenant.as_ref().is_none_or(|tenant| *tenant == entry.tenant);
                manifest.files.retain(|entry| is_meant(entry) && scope.meets(entry));
            }
            found.push((day, manifest));
        }
        Ok(found)
    }
}

/// How many in a second.
fn rate(count: u64, took: std::time::Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / millis
}

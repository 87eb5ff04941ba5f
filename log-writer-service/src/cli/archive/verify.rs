//! `archive verify`: reads every event of the files and compares them with their manifests.

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{Which, rate};
use crate::{
    archive::{ArchiveError, Manifest},
    cli::{escape, print, progress::Progress},
    config::Config,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// One JSON object a line: each damage, then the sums
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Sums {
    days: u64,
    files: u64,
    events: u64,
    bytes: u64,
    damaged: u64,
    /// Days without manifest: not archived to the end, so not dropped.
    unfinished: u64,
    seconds: f64,
    events_per_second: u64,
    bytes_per_million_events: u64,
}

#[derive(Serialize)]
struct Damage {
    damage: String,
}

impl Arguments {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        let started = Instant::now();
        let days = self.which.days(config)?;
        let known = days.iter().filter_map(|(_, manifest)| manifest.as_ref().ok()?.as_ref());
        let all: u64 = known.map(Manifest::events).sum();
        let mut progress = Progress::new("verify", "events", i64::try_from(all).unwrap_or(i64::MAX));
        let mut sums = Sums::default();
        for (day, manifest) in days {
            let manifest = match manifest {
                Ok(Some(manifest)) => manifest,
                Ok(None) => {
                    sums.unfinished += 1;
                    continue;
                }
                Err(error) => {
                    sums.damaged += 1;
                    self.tell(&error)?;
                    continue;
                }
            };
            sums.days += 1;
            for entry in &manifest.files {
                if let Err(error) = day.check_events(entry, None) {
                    sums.damaged += 1;
                    self.tell(&error)?;
                }
                sums.files += 1;
                sums.events += entry.events;
                sums.bytes += entry.bytes;
                progress.show(i64::try_from(sums.events).unwrap_or(i64::MAX));
            }
        }
        let took = started.elapsed();
        sums.seconds = took.as_secs_f64();
        sums.events_per_second = rate(sums.events, took);
        sums.bytes_per_million_events = sums.bytes.saturating_mul(1_000_000) / sums.events.max(1);
        let Sums {
            days,
            files,
            events,
            bytes,
            damaged,
            unfinished,
            seconds,
            events_per_second,
            bytes_per_million_events,
        } = &sums;
        print(&if self.json {
            escape::json(&sums)? + "\n"
        } else {
            format!(
                "{days} days, {files} files, {events} events, {bytes} bytes ({bytes_per_million_events} for a million events): \
                 {damaged} files damaged, {unfinished} days not archived to the end; {seconds:.1} s, {events_per_second} \
                 events/s\n"
            )
        })?;
        if sums.damaged > 0 {
            bail!("{} files of the archive are damaged", sums.damaged);
        }
        Ok(())
    }

    fn tell(&self, error: &ArchiveError) -> anyhow::Result<()> {
        let damage = error.to_string();
        print(&if self.json {
            escape::json(&Damage { damage })? + "\n"
        } else {
            escape::shown(&damage) + "\n"
        })
    }
}

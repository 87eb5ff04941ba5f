//! `archive list`: the files of the archive, by what their manifests say.

use chrono::NaiveDate;
use clap::Args;
use serde::Serialize;

use super::Which;
use crate::{
    archive::FileEntry,
    cli::{escape, print, table},
    config::Config,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// One JSON object a line: each file
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    day: NaiveDate,
    #[serde(flatten)]
    entry: &'a FileEntry,
}

impl Arguments {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        let names = ["DAY", "TENANT", "EVENTS", "BYTES", "FIRST", "LAST", "FILE"];
        let mut cells = vec![names.map(str::to_owned).to_vec()];
        let mut lines = String::new();
        for (day, manifest) in self.which.days(config)? {
            for entry in manifest?.iter().flat_map(|manifest| &manifest.files) {
                lines += &escape::json(&Listed { day: day.date(), entry })?;
                lines.push('\n');
                cells.push(vec![
                    day.date().to_string(),
                    escape::shown(&entry.tenant),
                    entry.events.to_string(),
                    entry.bytes.to_string(),
                    table::time(entry.first),
                    table::time(entry.last),
                    escape::shown(&entry.file),
                ]);
            }
        }
        print(&if self.json { lines } else { table::text(&cells) })
    }
}

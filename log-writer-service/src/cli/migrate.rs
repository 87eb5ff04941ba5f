//! `migrate`: brings the database to this version's schema; for those who give `serve` no owner's rights.

use super::{Given, block_on, print, unreachable};
use crate::timescale::{self, Edition, MigrationReport};

/// Migrates, and prints what was done.
pub(super) fn run(given: &Given) -> anyhow::Result<()> {
    let database = given.begin()?.database;
    let report = block_on(async { Ok(timescale::migrate(&database).await?) })
        .map_err(|error| unreachable::explain(error, &database))?;
    print(&text(&report))
}

fn text(report: &MigrationReport) -> String {
    let edition = match report.edition {
        Edition::Apache => "Apache",
        Edition::Community => "Community",
    };
    let mut text = format!(
        "PostgreSQL {}, TimescaleDB {} ({edition} edition)\n",
        report.postgres_version, report.timescaledb_version
    );
    for name in &report.applied {
        text.push_str(&format!("applied {name}\n"));
    }
    if report.applied.is_empty() {
        text.push_str(&format!(
            "nothing to do: all {} migrations are there\n",
            report.already_there
        ));
    } else {
        text.push_str(&format!(
            "{} applied, {} were there before\n",
            report.applied.len(),
            report.already_there
        ));
    }
    text
}

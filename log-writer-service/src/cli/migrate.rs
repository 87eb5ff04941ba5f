//! `migrate`: brings the database to this version's schema; for those who give `serve` no owner's rights.

use super::{Given, block_on, print, unreachable};
use crate::timescale::{self, Edition, MigrationReport};

/// Migrates, and prints what was done.
pub(super) fn run(given: &Given) -> anyhow::Result<()> {
    let config = given.begin()?;
    let (database, profile) = (config.database, config.storage.profile);
    let migrate = async {
        let report = timescale::migrate(&database).await?;
        let is_changed = timescale::set_storage_profile(&database, profile).await?;
        Ok((report, is_changed))
    };
    let (report, is_changed) = block_on(migrate).map_err(|error| unreachable::explain(error, &database))?;
    let changed = if is_changed {
        format!("events are stored by the profile {profile} from now on\n")
    } else {
        String::new()
    };
    print(&(text(&report) + &changed))
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

//! `audit`: who redrove, purged, showed, migrated and forced what, and when.
//!
//! Reads with a role that may: the owner of the database, or one that was given the access `auditor`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::{Given, block_on, escape, moment::moment, print, table, unreachable};
use crate::timescale::{self, AuditFilter, AuditRow};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists actions, the newest first
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Begun at this time or later: 2026-11-20T12:00:00Z, 2026-11-20 (UTC), or how long ago: 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
    /// Begun before this time, written like --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// Whose name begins so: os:alice, role:
    #[arg(long)]
    actor: Option<String>,
    /// The action, exactly: "dead-letters redrive"
    #[arg(long)]
    action: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<()> {
        let Self::List(list) = self;
        let database = given.load()?.config.database;
        let rows = block_on(async {
            let pool = timescale::connect_pool(&database).await?;
            let rows = list.filter().list(&pool, list.limit).await;
            rows.map_err(|error| match error.sqlstate() {
                Some("42501") => anyhow::Error::new(error)
                    .context("the audit trail is for the database's owner and for roles with the access `auditor`"),
                _ => error.into(),
            })
        })
        .map_err(|error| unreachable::explain(error, &database))?;
        let text = if list.json {
            let lines: Result<Vec<String>, _> = rows.iter().map(escape::json).collect();
            lines?.iter().map(|line| format!("{line}\n")).collect()
        } else {
            text(&rows)?
        };
        print(&text)
    }
}

impl List {
    fn filter(&self) -> AuditFilter {
        AuditFilter {
            since: self.since.map(Into::into),
            until: self.until.map(Into::into),
            actor: self.actor.clone(),
            action: self.action.clone(),
        }
    }
}

fn text(rows: &[AuditRow]) -> anyhow::Result<String> {
    let names = ["AT", "ACTION", "ACTOR", "ROLE", "FROM", "AFFECTED", "OUTCOME", "TARGET"];
    let mut cells = vec![names.map(str::to_owned).to_vec()];
    for row in rows {
        cells.push(vec![
            table::time(row.at),
            escape::shown(&row.action),
            escape::shown(&row.actor),
            escape::shown(&row.database_role),
            row.source_address.clone().unwrap_or_else(|| "-".to_owned()),
            row.affected.to_string(),
            row.outcome.clone(),
            escape::json(&row.target)?,
        ]);
    }
    Ok(table::text(&cells))
}

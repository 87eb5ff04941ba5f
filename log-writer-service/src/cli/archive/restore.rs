//! `archive restore`: brings events back into both stores and holds them there for a while.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;

use super::{FILTERS, Which, rate};
use crate::{
    app,
    archive::{Day, Manifest, RestoreScope, Restored, Restorer},
    cli::{escape, print, progress::Progress},
    config::Config,
    timescale::{self, ActionOutcome, Actor},
};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what to restore").required(true).multiple(true).args(FILTERS).arg("all"))]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// All that the archive has
    #[arg(long)]
    all: bool,
    /// How long retention leaves the restored days alone, from the end of the restore on
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    keep: Duration,
    /// Reads the files and says what would be restored, changes nothing
    #[arg(long)]
    dry_run: bool,
    /// The outcome as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    /// Days with events in the scope.
    days: u64,
    /// Files of these.
    files: u64,
    /// Events in the scope.
    events: u64,
    /// Stored now.
    committed: u64,
    /// Stored already.
    duplicates: u64,
    /// Refused by PostgreSQL: dead letters now.
    refused: u64,
    seconds: f64,
    events_per_second: u64,
}

impl Arguments {
    pub(super) async fn run(&self, config: &Config) -> anyhow::Result<()> {
        let started = Instant::now();
        let scope = RestoreScope {
            span: self.which.span()?,
            keep: self.keep,
        };
        let mut days: Vec<(Day, Manifest)> = Vec::new();
        for (day, manifest) in self.which.days(config)? {
            days.extend(
                manifest?
                    .filter(|manifest| !manifest.files.is_empty())
                    .map(|manifest| (day, manifest)),
            );
        }
        let mut outcome = Outcome::default();
        let done = if self.dry_run {
            count(&days, scope, &mut outcome)
        } else {
            self.restore(config, &days, scope, &mut outcome).await
        };
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome.events_per_second = rate(outcome.events, started.elapsed());
        // What was done is done, whatever happened then.
        self.tell(&outcome)?;
        done?;
        if outcome.refused > 0 {
            bail!(
                "{} events were refused; see `dead-letters list --stage store`",
                outcome.refused
            );
        }
        Ok(())
    }

    async fn restore(
        &self,
        config: &Config,
        days: &[(Day, Manifest)],
        scope: RestoreScope,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let pool = timescale::connect_pool(&config.database).await?;
        self.know_tenants(config, &pool, days).await?;
        let target = json!({
            "since": self.which.since, "until": self.which.until, "tenant": self.which.tenant,
            "keep": humantime::format_duration(self.keep).to_string(),
        });
        let running = ActionOutcome::Running;
        let action = timescale::record(&pool, &Actor::of_process(), "archive restore", &target, 0, running).await?;
        let name = format!("restore {}", app::instance());
        let mut restorer = Restorer::new(config, &pool, app::targets(config)?, action, name);
        let all: u64 = days.iter().map(|(_, manifest)| manifest.events()).sum();
        let mut progress = Progress::new("restore", "events", i64::try_from(all).unwrap_or(i64::MAX));
        let mut done = Ok(());
        'days: for (day, manifest) in days {
            for entry in &manifest.files {
                done = restorer
                    .restore(day, entry, scope, |more| {
                        outcome.add(more);
                        progress.show(i64::try_from(outcome.events).unwrap_or(i64::MAX));
                    })
                    .await;
                if done.is_err() {
                    break 'days;
                }
                outcome.files += 1;
            }
            outcome.days += 1;
        }
        timescale::end(&pool, action, done.is_err()).await?;
        done.context("restoring; what was restored until then stays, the same command goes on with the rest")
    }

    /// A file can't bring in a tenant that nobody has ever heard of.
    async fn know_tenants(&self, config: &Config, pool: &PgPool, days: &[(Day, Manifest)]) -> anyhow::Result<()> {
        let mut tenants: Vec<&str> = days
            .iter()
            .flat_map(|(_, manifest)| &manifest.files)
            .map(|entry| entry.tenant.as_str())
            .collect();
        tenants.sort_unstable();
        tenants.dedup();
        for tenant in tenants {
            let events = &config.events;
            let is_known = events.default_tenant == tenant
                || events.body_tenants.iter().any(|known| known == tenant)
                || self.which.tenant.as_deref() == Some(tenant)
                || timescale::tenant_existed(pool, tenant).await?;
            if !is_known {
                let shown = escape::shown(tenant);
                bail!("the database knows no tenant {shown}; if it is to have one, name it with --tenant");
            }
        }
        Ok(())
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        if self.json {
            return print(&(escape::json(outcome)? + "\n"));
        }
        let dry = if self.dry_run {
            "dry run, nothing was changed: "
        } else {
            ""
        };
        let Outcome {
            days,
            files,
            events,
            committed,
            duplicates,
            refused,
            seconds,
            events_per_second,
        } = outcome;
        print(&format!(
            "{dry}{days} days, {files} files, {events} events: {committed} stored, {duplicates} stored before, {refused} \
             refused; {seconds:.1} s, {events_per_second} events/s\n"
        ))
    }
}

/// Reads all that would be restored.
fn count(days: &[(Day, Manifest)], scope: RestoreScope, outcome: &mut Outcome) -> anyhow::Result<()> {
    for (day, manifest) in days {
        for entry in &manifest.files {
            outcome.events += day.check_events(entry, Some(scope.span))?;
            outcome.files += 1;
        }
        outcome.days += 1;
    }
    Ok(())
}

impl Outcome {
    fn add(&mut self, more: Restored) {
        self.events += more.events;
        self.committed += more.committed;
        self.duplicates += more.duplicates;
        self.refused += more.refused;
    }
}

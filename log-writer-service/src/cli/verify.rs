//! `verify`: compares both stores, and repairs Elasticsearch if asked.
//!
//! Exit code 0: they are equal; 1: they differ, repaired or not; 2: they could not be compared.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::{Given, block_on, escape, moment::moment, print, unreachable};
use crate::{
    app,
    config::Config,
    event::Timestamp,
    timescale::{self, ActionOutcome, Actor},
    verify::{Found, Listener, Outcome, Repair, Scope},
};

/// Findings of one kind that are told one by one on a terminal.
const TOLD_MAX: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Events from this time on: 2026-11-20T12:00:00Z, 2026-11-20 (UTC), or how long ago: 2h, 7d [default: all that
    /// retention.events keeps]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
    /// Events before this time, written like --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// This tenant's alone
    #[arg(long)]
    tenant: Option<String>,
    /// Compares the content of so many events of each tenant and hour too, chosen at random
    #[arg(long, value_name = "EVENTS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    sample: u16,
    /// Sends what is missing or different again, deletes second copies; what no event stands for is only named
    #[arg(long)]
    repair: bool,
    /// One JSON object a line: each difference, then the sums
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Whether the stores are equal.
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<bool> {
        let config = given.load()?.config;
        if !config.elasticsearch.enabled {
            bail!("elasticsearch.enabled is false: there is nothing to compare with");
        }
        let scope = self.scope(&config)?;
        block_on(self.compare(&config, &scope)).map_err(|error| unreachable::explain(error, &config.database))
    }

    fn scope(&self, config: &Config) -> anyhow::Result<Scope> {
        let now = Utc::now();
        let keep = chrono::Duration::from_std(config.retention.events).ok();
        // What is older may be dropped in either store while it is compared.
        let kept_since = keep
            .filter(|_| config.retention.enabled)
            .and_then(|keep| now.checked_sub_signed(keep));
        let since = self.since.into_iter().chain(kept_since).max();
        let since = since.map_or(Timestamp(0), Timestamp::from).max(Timestamp(0));
        let until = self.until.map_or(Timestamp::MAX_STORED, Timestamp::from);
        if since >= until {
            bail!("there is nothing between --since and --until, or retention.events keeps nothing of it");
        }
        Ok(Scope {
            since,
            until,
            tenant: self.tenant.clone(),
            sample: usize::from(self.sample),
            is_everything: self.since.is_none() && self.until.is_none() && self.tenant.is_none(),
        })
    }

    async fn compare(&self, config: &Config, scope: &Scope) -> anyhow::Result<bool> {
        let verifier = app::verifier(config)?;
        let pool = verifier.census().pool();
        let repair = if self.repair {
            let target = json!({
                "since": scope.since.to_rfc3339(), "until": scope.until.to_rfc3339(), "tenant": scope.tenant,
            });
            let running = ActionOutcome::Running;
            let action = timescale::record(pool, &Actor::of_process(), "verify repair", &target, 0, running).await?;
            Some(Repair {
                action,
                worker: format!("verify {}", app::instance()),
            })
        } else {
            None
        };
        let mut teller = Teller::new(self.json, scope);
        let done = verifier.run(scope, repair.as_ref(), &mut teller).await;
        if let Some(repair) = &repair {
            timescale::end(pool, repair.action, done.is_err()).await?;
        }
        let outcome = done.context("comparing the stores; what was repaired until then stays so")?;
        teller.end(&outcome)?;
        Ok(outcome.is_equal())
    }
}

/// Tells differences on standard output as they come, and progress to a person.
struct Teller {
    is_json: bool,
    told: [usize; 5],
    since: Timestamp,
    until: Timestamp,
    next: Instant,
    is_watched: bool,
}

impl Teller {
    const EVERY: Duration = Duration::from_secs(1);

    fn new(is_json: bool, scope: &Scope) -> Self {
        Self {
            is_json,
            told: [0; 5],
            since: scope.since,
            until: scope.until.min(Utc::now().into()),
            next: Instant::now() + Self::EVERY,
            is_watched: io::stderr().is_terminal(),
        }
    }

    fn end(&self, outcome: &Outcome) -> anyhow::Result<()> {
        if self.is_json {
            #[derive(Serialize)]
            struct Sums<'a> {
                equal: bool,
                #[serde(flatten)]
                outcome: &'a Outcome,
            }
            let sums = Sums {
                equal: outcome.is_equal(),
                outcome,
            };
            return print(&(escape::json(&sums)? + "\n"));
        }
        for (kind, told) in ["missing", "doubled", "different", "buried", "strangers"]
            .into_iter()
            .zip(self.told)
        {
            if told > TOLD_MAX {
                print(&format!("{} more {kind}; --json names all\n", told - TOLD_MAX))?;
            }
        }
        let Outcome {
            events,
            documents,
            hours,
            minutes,
            sampled,
            missing,
            doubled,
            different,
            buried,
            strangers,
            outstanding,
            dead_letters,
            repaired,
        } = outcome;
        let verdict = if outcome.is_equal() { "equal" } else { "different" };
        print(&format!(
            "{verdict}: {events} events, {documents} documents in {hours} hours, {minutes} minutes compared one by one, \
             {sampled} contents; {missing} missing, {doubled} doubled, {different} different, {buried} buried, {strangers} strangers, \
             {repaired} repaired; {outstanding} in the outbox, {dead_letters} refused by Elasticsearch and dead letters\n"
        ))
    }
}

impl Listener for Teller {
    fn found(&mut self, found: &Found) {
        let (number, text) = line(found);
        let Some(told) = self.told.get_mut(number) else { return };
        *told += 1;
        let text = if self.is_json {
            escape::json(found).unwrap_or_default()
        } else if *told <= TOLD_MAX {
            text
        } else {
            return;
        };
        // Whoever does not read on gets the exit code all the same.
        writeln!(io::stdout(), "{text}").ok();
    }

    fn reached(&mut self, time: Timestamp) {
        if self.is_watched && Instant::now() >= self.next {
            self.next = Instant::now() + Self::EVERY;
            let all = self.until.0.saturating_sub(self.since.0).max(1);
            let percent = time.0.saturating_sub(self.since.0).saturating_mul(100) / all;
            writeln!(
                io::stderr(),
                "verify: compared up to {} ({} %)",
                time.to_rfc3339(),
                percent.min(100)
            )
            .ok();
        }
    }
}

/// A difference in words, and the number of its kind.
#[expect(clippy::too_many_lines, reason = "one arm for each kind")]
fn line(found: &Found) -> (usize, String) {
    let again = |repaired: &bool| if *repaired { ": in the outbox again" } else { "" };
    match found {
        Found::Missing {
            tenant,
            id,
            timestamp,
            target,
            repaired,
        } => (
            0,
            format!(
                "missing in {target}: event {id} of {timestamp}, tenant {}{}",
                escape::shown(tenant),
                again(repaired)
            ),
        ),
        Found::Doubled {
            tenant,
            id,
            timestamp,
            indices,
            repaired,
        } => (
            1,
            format!(
                "doubled: event {id} of {timestamp}, tenant {}, in {}{}",
                escape::shown(tenant),
                escape::shown(&indices.join(", ")),
                if *repaired { ": only the first is left" } else { "" }
            ),
        ),
        Found::Different {
            tenant,
            id,
            timestamp,
            index,
            names,
            repaired,
        } => (
            2,
            format!(
                "different in {}: event {id} of {timestamp}, tenant {}, in {}{}",
                escape::shown(index),
                escape::shown(tenant),
                escape::shown(&names.join(", ")),
                again(repaired)
            ),
        ),
        Found::Buried {
            tenant,
            id,
            timestamp,
            index,
            repaired,
        } => (
            3,
            format!(
                "buried: event {id} of {timestamp}, tenant {}, is a dead letter and yet in {}{}",
                escape::shown(tenant),
                escape::shown(index),
                again(repaired)
            ),
        ),
        Found::Stranger {
            tenant,
            document,
            timestamp,
            index,
        } => (
            4,
            format!(
                "stranger in {}: document {} of {timestamp}, tenant {}: no event stands for it",
                escape::shown(index),
                escape::shown(document),
                escape::shown(tenant.as_deref().unwrap_or("(none)"))
            ),
        ),
    }
}

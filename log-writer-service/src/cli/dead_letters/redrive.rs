//! `redrive`: stored events go into the outbox again; what was not stored is decoded and committed in the letter's place.

use std::{fmt, io::Write};

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};
use serde::Serialize;
use sqlx::PgPool;

use super::{
    Progress,
    which::{FILTERS, Which, target},
};
use crate::{
    app,
    cli::{escape, print},
    config::Config,
    ingest::Redecoder,
    timescale::{
        self, ActionId, ActionOutcome, Actor, Clock, CommitMode, Committer, LetterFilter, RawLetter, Recommitted,
        Redrivable, Requeued, StoreError, StoreErrorKind,
    },
};

/// Letters looked for at once, and put into the outbox by one transaction.
const GROUP: i64 = 500;
/// Attempts at one transaction that others got in the way of.
const ATTEMPTS: u32 = 5;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what to redrive").required(true).multiple(true).args(FILTERS).args(["ids", "all"]))]
pub(in crate::cli) struct Arguments {
    /// Numbers of letters
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    which: Which,
    /// All letters
    #[arg(long)]
    all: bool,
    /// At most so many, those kept first
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// Says what would be tried again, changes nothing
    #[arg(long)]
    dry_run: bool,
    /// The outcome as one JSON object
    #[arg(long)]
    json: bool,
}

/// What became of the letters.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    /// Letters looked at.
    letters: i64,
    /// Events in the outbox again.
    requeued: i64,
    /// Events stored now.
    committed: i64,
    /// Events that were stored already.
    duplicates: i64,
    /// Letters that were refused again as a whole, and events of others that became letters of their own.
    refused: i64,
    /// Letters that keep only a part of what was received.
    cut: i64,
    /// Letters whose event is no longer stored.
    expired: i64,
    /// Letters that somebody else redrove or purged meanwhile.
    gone: i64,
}

impl Arguments {
    pub(super) async fn run(&self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        let filter = self.which.filter(&self.ids);
        let (all, last) = filter.extent(pool).await?;
        let all = self.limit.map_or(all, |limit| all.min(limit));
        if !config.elasticsearch.enabled {
            writeln!(
                std::io::stderr(),
                "note: elasticsearch.enabled is false here; events in the outbox wait for a service that mirrors"
            )
            .ok();
        }
        let redecoder = app::redecoder(config)?;
        let action = if self.dry_run {
            None
        } else {
            let target = target(&filter, self.limit, None);
            let running = ActionOutcome::Running;
            Some(timescale::record(pool, &Actor::of_process(), "dead-letters redrive", &target, 0, running).await?)
        };
        let clock = Clock::default();
        clock.look(pool).await?;
        let mut work = Work {
            clock,
            config,
            pool,
            action,
            redecoder,
            // Also the name of its row in the books.
            name: format!("dead-letters {}", app::instance()),
            committer: None,
            outcome: Outcome::default(),
            progress: Progress::new("redrive", "letters", all),
        };
        let done = work.redrive(&filter, all, last).await;
        // What was done is done, whatever happened then.
        self.tell(&work.outcome)?;
        let ended = match action {
            Some(action) => timescale::end(pool, action, done.is_err()).await,
            None => Ok(()),
        };
        done?;
        ended?;
        let Outcome {
            refused, cut, expired, ..
        } = work.outcome;
        if action.is_some() && refused + cut + expired > 0 {
            bail!(
                "not all could be redriven: {refused} refused again, {cut} cut when they were kept, {expired} no longer stored"
            );
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
        print(&format!("{dry}{outcome}\n"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            letters,
            requeued,
            committed,
            duplicates,
            refused,
            cut,
            expired,
            gone,
        } = self;
        write!(
            out,
            "{letters} letters: {requeued} events in the outbox again, {committed} events stored, {duplicates} stored \
             before, {refused} refused again, {cut} cut, {expired} no longer stored, {gone} gone meanwhile"
        )
    }
}

struct Work<'a> {
    clock: Clock,
    config: &'a Config,
    pool: &'a PgPool,
    redecoder: Redecoder,
    name: String,
    /// Connected when first needed.
    committer: Option<Committer>,
    outcome: Outcome,
    progress: Progress,
    /// Absent in a dry run.
    action: Option<ActionId>,
}

impl Work<'_> {
    /// In the order of their numbers, up to those that were there at the beginning: what is refused again ends it.
    async fn redrive(&mut self, filter: &LetterFilter, all: i64, last: i64) -> anyhow::Result<()> {
        let mut after = i64::MIN;
        while self.outcome.letters < all {
            let limit = GROUP.min(all - self.outcome.letters);
            let letters = filter.redrivable(self.pool, after, last, limit).await?;
            let Some(highest) = letters.last() else { break };
            after = highest.id;
            let (stored, raw): (Vec<Redrivable>, Vec<Redrivable>) =
                letters.into_iter().partition(|letter| letter.is_stored);
            self.requeue(&stored).await?;
            for letter in raw {
                self.recommit(letter).await?;
                self.progress.show(self.outcome.letters);
            }
            self.progress.show(self.outcome.letters);
        }
        Ok(())
    }

    async fn requeue(&mut self, letters: &[Redrivable]) -> anyhow::Result<()> {
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        let selected = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        self.outcome.letters += selected;
        let Some(action) = self.action else {
            self.outcome.requeued += selected;
            return Ok(());
        };
        if ids.is_empty() {
            return Ok(());
        }
        let database = &self.config.database;
        let mut attempt = 1;
        let done = loop {
            let (events_max, bytes_max) = (database.batch_rows_max, database.batch_bytes_max);
            match Requeued::requeue(self.pool, &self.name, Some(action), &ids, events_max, bytes_max).await {
                Err(error) if passes(&error, attempt) => attempt += 1,
                done => break done?,
            }
        };
        self.outcome.requeued += done.requeued;
        self.outcome.expired += done.gone;
        self.outcome.gone += selected - done.requeued - done.gone;
        Ok(())
    }

    async fn recommit(&mut self, letter: Redrivable) -> anyhow::Result<()> {
        self.outcome.letters += 1;
        if !letter.is_whole {
            self.outcome.cut += 1;
            return Ok(());
        }
        let Some(raw) = RawLetter::read(self.pool, letter.id).await? else {
            self.outcome.gone += 1;
            return Ok(());
        };
        let key = (raw.id, raw.attempts);
        let mut request = self
            .redecoder
            .decode(raw, self.clock.now().await)
            .with_context(|| format!("decoding dead letter {}", letter.id))?;
        let Some(action) = self.action else {
            self.outcome.committed += i64::try_from(request.rows.len()).unwrap_or(i64::MAX);
            self.outcome.refused += i64::try_from(request.dead_letters.len()).unwrap_or(i64::MAX);
            return Ok(());
        };
        let database = &self.config.database;
        // A second more for every 5,000 rows, as any large request gets that goes alone.
        let seconds = u64::try_from(request.rows.len() / 5_000).unwrap_or(0);
        let mode = CommitMode {
            lock_timeout: database.lock_timeout,
            transaction_timeout: database.transaction_timeout + std::time::Duration::from_secs(seconds),
            bisect: true,
        };
        let mut attempt = 1;
        let done = loop {
            let mut committer = match self.committer.take() {
                Some(committer) => committer,
                None => Committer::connect(database, &self.name).await?,
            };
            let done = committer.recommit(key, action, &mut request, &mode).await;
            self.committer = Some(committer);
            match done {
                Err(error) if passes(&error, attempt) => attempt += 1,
                done => break done?,
            }
        };
        match done {
            Recommitted::Done(receipt) => {
                self.outcome.committed += i64::from(receipt.committed);
                self.outcome.duplicates += i64::from(receipt.duplicates);
                self.outcome.refused += i64::from(receipt.dead_lettered);
            }
            Recommitted::Refused => self.outcome.refused += 1,
            Recommitted::Gone => self.outcome.gone += 1,
        }
        Ok(())
    }
}

/// Whether the same is to be tried again: others were in the way.
fn passes(error: &StoreError, attempt: u32) -> bool {
    attempt < ATTEMPTS && matches!(error.kind(), StoreErrorKind::Conflict | StoreErrorKind::LockTimeout)
}

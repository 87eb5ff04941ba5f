//! `purge`.

use std::time::Duration;

use anyhow::bail;
use clap::{ArgGroup, Args};
use sqlx::PgPool;

use super::{
    Progress,
    which::{FILTERS, Which, target},
};
use crate::{
    cli::print,
    timescale::{self, ActionId, ActionOutcome, Actor, LetterFilter, count_purgeable, purge_letters},
};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what to purge").required(true).multiple(true).args(FILTERS).arg("all"))]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// All letters that are old enough
    #[arg(long)]
    all: bool,
    /// Leaves letters alone that failed last within this time
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// At most so many, the oldest first
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// Says what would be deleted, deletes nothing
    #[arg(long)]
    dry_run: bool,
    /// Deletes without asking; nothing is deleted without it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// The outcome as one JSON object
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(&self, pool: &PgPool) -> anyhow::Result<()> {
        let filter = self.which.filter(&[]);
        let limit = self.limit.unwrap_or(i64::MAX);
        let all = count_purgeable(pool, &filter, self.older_than).await?.min(limit);
        let age = humantime::format_duration(self.older_than);
        if !self.yes {
            self.tell(all, false)?;
            if !self.dry_run && all == 0 {
                bail!(
                    "there is nothing to delete: no dead letter older than {age} matches; --older-than says how old they must be"
                );
            }
            if !self.dry_run {
                bail!("nothing was deleted: {all} dead letters older than {age} match; add --yes to delete them");
            }
            return Ok(());
        }
        let target = target(&filter, self.limit, Some(self.older_than));
        let running = ActionOutcome::Running;
        let action = timescale::record(pool, &Actor::of_process(), "dead-letters purge", &target, 0, running).await?;
        let purged = self
            .purge(pool, action, &filter, Progress::new("purge", "letters", all))
            .await;
        let ended = timescale::end(pool, action, purged.is_err()).await;
        self.tell(purged?, true)?;
        Ok(ended?)
    }

    async fn purge(
        &self,
        pool: &PgPool,
        action: ActionId,
        filter: &LetterFilter,
        mut progress: Progress,
    ) -> anyhow::Result<i64> {
        let limit = self.limit.unwrap_or(i64::MAX);
        let mut purged = 0;
        while purged < limit {
            let gone = purge_letters(pool, Some(action), filter, self.older_than, limit - purged).await?;
            if gone == 0 {
                break;
            }
            purged = purged.saturating_add(i64::try_from(gone).unwrap_or(i64::MAX));
            progress.show(purged);
        }
        Ok(purged)
    }

    fn tell(&self, letters: i64, is_done: bool) -> anyhow::Result<()> {
        if self.json {
            let name = if is_done { "purged" } else { "would_purge" };
            return print(&format!("{}\n", serde_json::json!({ name: letters })));
        }
        let age = humantime::format_duration(self.older_than);
        let verb = if is_done { "purged" } else { "would purge" };
        print(&format!("{verb} {letters} dead letters older than {age}\n"))
    }
}

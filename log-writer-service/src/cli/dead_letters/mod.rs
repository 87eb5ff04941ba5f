//! `dead-letters`: finds, shows, redrives and purges what could not be decoded, stored or indexed.
//!
//! Works on the database alone; no service need run. Nothing of a letter reaches a terminal but escaped: it is what
//! strangers sent.

mod list;
mod purge;
mod redrive;
mod which;

use clap::Subcommand;

use super::{Given, block_on, progress::Progress, unreachable};
use crate::{config::Config, timescale};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists letters, those that failed last first
    List(list::List),
    /// Shows all that is known of one letter
    Show(list::Show),
    /// Tries letters again; exit code 1 if some of them could not be
    Redrive(redrive::Arguments),
    /// Deletes letters; the books keep counting them
    Purge(purge::Arguments),
}

impl Command {
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<()> {
        let config = given.load()?.config;
        block_on(async {
            let pool = timescale::connect_pool(&config.database).await?;
            self.run_on(&config, &pool).await
        })
        .map_err(|error| unreachable::explain(error, &config.database))
    }

    async fn run_on(&self, config: &Config, pool: &sqlx::PgPool) -> anyhow::Result<()> {
        match self {
            Self::List(arguments) => arguments.run(pool).await,
            Self::Show(arguments) => arguments.run(pool).await,
            Self::Redrive(arguments) => arguments.run(config, pool).await,
            Self::Purge(arguments) => arguments.run(pool).await,
        }
    }
}

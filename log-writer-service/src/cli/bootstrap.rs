//! `bootstrap`: templates and policy in Elasticsearch, as `serve` applies them in the background.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{Given, block_on, print, unreachable};
use crate::{
    config::{Config, Database, Elasticsearch, url_without_secrets},
    elasticsearch::{self, BootstrapMode, BootstrapReport, Client},
    timescale::{self, ActionOutcome, Actor, StoreError},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Changes nothing; exit code 1 if something would be changed or stands in the way
    #[arg(long, conflicts_with = "force")]
    check: bool,
    /// Takes over objects of the same names that others made
    #[arg(long)]
    force: bool,
}

impl Arguments {
    /// Applies or compares, and prints what became of each object.
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<()> {
        let Config {
            elasticsearch: settings,
            database,
            ..
        } = given.begin()?;
        if !settings.enabled {
            bail!("elasticsearch.enabled is false: there is nothing to bootstrap");
        }
        let mode = match (self.check, self.force) {
            (true, _) => BootstrapMode::Check,
            (false, true) => BootstrapMode::Force,
            (false, false) => BootstrapMode::Apply,
        };
        let report = block_on(async {
            let applied = async {
                let client = Client::new(&settings)?;
                let applied = elasticsearch::bootstrap(&client, &settings, mode).await;
                applied.with_context(|| what_to_do(&settings))
            };
            if self.force {
                recorded(&database, &settings, applied).await
            } else {
                applied.await
            }
        })?;
        print(&report)?;
        match report.problem() {
            None => Ok(()),
            Some(problem) => bail!("{problem}"),
        }
    }
}

/// Taking over what others made leaves its trace in the database, before anything is changed.
async fn recorded(
    database: &Database,
    settings: &Elasticsearch,
    applied: impl Future<Output = anyhow::Result<BootstrapReport>>,
) -> anyhow::Result<BootstrapReport> {
    let needed =
        "`bootstrap --force` is recorded in log_writer.audit, so it needs the migrated database; nothing was changed";
    let explained = |error: StoreError| unreachable::explain(error.into(), database);
    let pool = timescale::connect_pool(database)
        .await
        .map_err(explained)
        .context(needed)?;
    let target = json!({ "elasticsearch": shown_urls(settings), "dataset": settings.dataset });
    let running = ActionOutcome::Running;
    let action = timescale::record(&pool, &Actor::of_process(), "bootstrap --force", &target, 0, running)
        .await
        .map_err(explained)
        .context(needed)?;
    let report = applied.await;
    timescale::end(&pool, action, report.is_err())
        .await
        .map_err(explained)?;
    report
}

fn shown_urls(settings: &Elasticsearch) -> Vec<String> {
    let urls = settings.urls.iter();
    urls.map(|url| url_without_secrets(url.as_str())).collect()
}

fn what_to_do(settings: &Elasticsearch) -> String {
    format!(
        "templates and policy are not applied to Elasticsearch at {}; start one with `make up`, or name yours in \
         ELASTICSEARCH_URL",
        shown_urls(settings).join(", ")
    )
}

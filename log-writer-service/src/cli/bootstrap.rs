//! `bootstrap`: templates and policy in Elasticsearch, as `serve` applies them in the background.

use anyhow::{Context, bail};
use clap::Args;

use super::{Given, block_on, print};
use crate::{
    config::{Elasticsearch, url_without_secrets},
    elasticsearch::{self, BootstrapMode, Client},
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
        let settings = given.begin()?.elasticsearch;
        if !settings.enabled {
            bail!("elasticsearch.enabled is false: there is nothing to bootstrap");
        }
        let mode = match (self.check, self.force) {
            (true, _) => BootstrapMode::Check,
            (false, true) => BootstrapMode::Force,
            (false, false) => BootstrapMode::Apply,
        };
        let report = block_on(async {
            let client = Client::new(&settings)?;
            Ok(elasticsearch::bootstrap(&client, &settings, mode).await?)
        })
        .with_context(|| what_to_do(&settings))?;
        print(&report)?;
        match report.problem() {
            None => Ok(()),
            Some(problem) => bail!("{problem}"),
        }
    }
}

fn what_to_do(settings: &Elasticsearch) -> String {
    let urls: Vec<String> = settings
        .urls
        .iter()
        .map(|url| url_without_secrets(url.as_str()))
        .collect();
    format!(
        "templates and policy are not applied to Elasticsearch at {}; start one with `make up`, or name yours in \
         ELASTICSEARCH_URL",
        urls.join(", ")
    )
}

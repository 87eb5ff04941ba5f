//! `mcp`: the tools for agents over standard input and output, for a client that starts a program.

use anyhow::{Context, anyhow, ensure};

use super::{Given, begin_with, block_on};
use crate::{
    app,
    ask::{Asking, Sight, Tools},
    timescale::Actor,
};

/// Serves until standard input ends. Whoever may start it has the rights of its configuration.
pub(super) fn run(given: &Given) -> anyhow::Result<()> {
    let config = begin_with(given.load()?)?;
    ensure!(config.api.enabled, "api.enabled is false: questions are not answered");
    block_on(async move {
        let asker = app::lone_asker(&config).await?.context("questions are not answered")?;
        let tools = Tools::new(asker, |_| Asking {
            sight: Sight::All,
            may_annotate: true,
            actor: Actor::of_process(),
        });
        tools.over_stdio().await.map_err(|error| anyhow!("{error}"))
    })
}

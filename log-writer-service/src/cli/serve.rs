//! `serve`: the service, until SIGTERM or SIGINT.

use super::{Given, begin_with, block_on, unreachable};
use crate::app;

/// Runs the service.
pub(super) fn run(given: &Given) -> anyhow::Result<()> {
    let config = begin_with(given.load_to_serve()?)?;
    let database = config.database.clone();
    block_on(app::serve(config)).map_err(|error| unreachable::explain(error, &database))
}

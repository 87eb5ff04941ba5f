//! `config check` and `config default`.

use std::io::{self, Write};

use clap::Subcommand;

use super::{Given, print};
use crate::config::DEFAULT_FILE;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints the merged configuration and where each value came from, or all mistakes (exit code 2)
    Check,
    /// Prints the default file: every key, its unit, its default
    Default,
}

impl Command {
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<()> {
        match self {
            Self::Default => print(&DEFAULT_FILE),
            Self::Check => {
                let loaded = given.load_to_serve()?;
                for note in &loaded.notes {
                    // Not a part of the TOML on standard output.
                    writeln!(io::stderr(), "note: {note}").ok();
                }
                print(&loaded.to_toml())
            }
        }
    }
}

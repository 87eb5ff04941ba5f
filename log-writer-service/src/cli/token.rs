//! `token new` and `token hash`: what stands in the file of tokens, and the one time that a secret is shown.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use anyhow::{Context, anyhow, bail, ensure};
use chrono::Utc;
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};

use super::print;
use crate::{
    auth::{Entry, Scope, entry, expiry, hash_of, new_secret},
    config::tenant_mistake,
};

/// Longest secret that is hashed, in bytes; a request could not carry a longer one.
const SECRET_BYTES_MAX: u64 = 768;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes a token: prints its entry for the file, and once its secret (on standard error)
    New(New),
    /// Reads a secret from standard input and prints its hash as the file has it
    Hash,
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// Name: told in the log; the user of Basic authentication
    #[arg(long)]
    name: String,
    /// What it allows; may be repeated
    #[arg(long = "scope", value_enum, required = true)]
    scopes: Vec<Scope>,
    /// The tenant that its events are stored under [default: `events.default_tenant`]
    #[arg(long)]
    tenant: Option<String>,
    /// When it ends: 2027-01-31T00:00:00Z, or 90d from now [default: never]
    #[arg(long)]
    expires: Option<String>,
    /// Writes the secret to a new file that only its owner can read, in place of printing it
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::New(arguments) => arguments.run(),
            Self::Hash => {
                let hash = hash_of(read_secret()?.expose_secret())?;
                print(&format!("blake3 = \"{hash}\"\n"))
            }
        }
    }
}

impl New {
    fn run(&self) -> anyhow::Result<()> {
        let mut scopes = self.scopes.clone();
        scopes.sort_unstable();
        scopes.dedup();
        let expires = self.expires.as_deref().map(|text| expiry(text, Utc::now())).transpose();
        if let Some(mistake) = self.tenant.as_deref().and_then(tenant_mistake) {
            bail!("--tenant {mistake}: ingest would refuse the file");
        }
        let secret = new_secret();
        let entry = entry(&Entry {
            name: &self.name,
            blake3: &hash_of(secret.expose_secret())?,
            scopes: &scopes,
            tenant: self.tenant.as_deref(),
            expires: expires.map_err(|error| anyhow!("--expires {error}, or like 90d"))?,
        })
        .map_err(anyhow::Error::msg)?;
        match &self.secret_file {
            Some(path) => {
                let mut file = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .with_context(|| format!("making {}", path.display()))?;
                writeln!(file, "{}", secret.expose_secret())
                    .with_context(|| format!("writing to {}", path.display()))?;
            }
            None => writeln!(
                io::stderr(),
                "secret, shown this once (the file has its hash alone): {}",
                secret.expose_secret()
            )
            .context("writing the secret to standard error")?,
        }
        print(&format!("{entry}\n"))
    }
}

fn read_secret() -> anyhow::Result<SecretString> {
    let mut text = String::new();
    io::stdin()
        .take(SECRET_BYTES_MAX + 2)
        .read_to_string(&mut text)
        .context("reading the secret from standard input")?;
    let secret = text.trim_end_matches(['\r', '\n']);
    let length = u64::try_from(secret.len()).unwrap_or(u64::MAX);
    ensure!(
        length <= SECRET_BYTES_MAX,
        "the secret has more than {SECRET_BYTES_MAX} bytes"
    );
    Ok(SecretString::from(secret.to_owned()))
}

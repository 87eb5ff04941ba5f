//! What the service proves itself and asks others with: certificate and tokens, replaced on SIGHUP.
//!
//! A file that is wrong or cannot be read changes nothing, and the log says so loudly. Nor does a certificate out of its time,
//! but at the start, where there is no other one: the service runs, and the log and a metric tell.

use std::{sync::Arc, thread};

use anyhow::anyhow;
use axum_server::tls_rustls::RustlsConfig;
use tokio::{signal::unix::Signal, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Credentials, Terms, Tls, server_config},
    config::{self, Config},
    telemetry::metric,
};

/// Tokens and certificate in force.
pub(super) struct Keys {
    pub(super) credentials: Option<Credentials>,
    pub(super) tls: Option<RustlsConfig>,
    files: config::Tls,
}

impl Keys {
    /// Reads the files that the configuration names.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let credentials = Credentials::open(config).map_err(|mistakes| anyhow!("{}", told(&mistakes)))?;
        let tls = server_config(&config.tls).map_err(|mistakes| anyhow!("{}", told(&mistakes)))?;
        if credentials.is_some() && tls.is_none() && !config.http.listen.ip().to_canonical().is_loopback() {
            tracing::warn!("tokens come in the clear: turn on [tls], or put a proxy with TLS in front");
        }
        if let Some(tls) = &tls {
            tell_terms(&tls.terms);
        }
        Ok(Self {
            credentials,
            tls: tls.map(|tls| RustlsConfig::from_config(tls.config)),
            files: config.tls.clone(),
        })
    }

    /// Whether there is anything to replace.
    pub(super) fn is_any(&self) -> bool {
        self.credentials.is_some() || self.tls.is_some()
    }

    /// Replaces them on each signal.
    pub(super) async fn keep(self, mut hangups: Signal, stopping: CancellationToken) {
        self.tell_expired();
        let keys = Arc::new(self);
        loop {
            tokio::select! {
                _ = hangups.recv() => {}
                () = stopping.cancelled() => return,
            }
            // A file may be on a disk that does not answer. So on a thread of its own: it holds nobody up, nor the end.
            let (keys, (done, ended)) = (Arc::clone(&keys), oneshot::channel::<()>());
            thread::spawn(move || {
                keys.reload();
                drop(done);
            });
            tokio::select! {
                _ = ended => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    fn reload(&self) {
        match self.credentials.as_ref().map(Credentials::reload) {
            None => {}
            Some(Ok(tokens)) => {
                tracing::info!(tokens, "SIGHUP: the tokens were read again and are in force");
                self.tell_expired();
            }
            Some(Err(mistakes)) => tracing::error!(
                mistakes = told(&mistakes),
                "SIGHUP: the new files of tokens and keys are not used; THE OLD TOKENS STAY IN FORCE"
            ),
        }
        let Some(tls) = &self.tls else { return };
        match server_config(&self.files).and_then(in_time) {
            Ok(Some(new)) => {
                tls.reload_from_config(new.config);
                tracing::info!("SIGHUP: the certificate was read again; new connections get it");
                tell_terms(&new.terms);
            }
            Ok(None) => {}
            Err(mistakes) => tracing::error!(
                mistakes = told(&mistakes),
                "SIGHUP: the new files of [tls] are not used; THE OLD CERTIFICATE STAYS IN FORCE"
            ),
        }
    }

    fn tell_expired(&self) {
        let expired = self
            .credentials
            .as_ref()
            .map(|credentials| credentials.expired(chrono::Utc::now()));
        let expired = expired.unwrap_or_default();
        if !expired.is_empty() {
            tracing::warn!(
                tokens = expired.join(", "),
                "tokens are past their end: requests with them are answered 401"
            );
        }
    }
}

/// Refuses what is of no use now.
fn in_time(tls: Option<Tls>) -> Result<Option<Tls>, Vec<(String, String)>> {
    let now = chrono::Utc::now();
    let terms = tls.iter().flat_map(|tls| &tls.terms);
    let mistakes: Vec<(String, String)> = terms
        .filter_map(|terms| Some((terms.key.to_owned(), terms.mistake(now)?)))
        .collect();
    if mistakes.is_empty() { Ok(tls) } else { Err(mistakes) }
}

/// Shows when what is in force ends, and what of it does not count now.
fn tell_terms(terms: &[Terms]) {
    let now = chrono::Utc::now();
    for terms in terms {
        if let Some(end) = terms.end() {
            metric::certificate_end(terms.key, end);
        }
        for mistake in terms.out_of_time(now) {
            tracing::error!(file = terms.key, "{mistake}: put a new one there, then send SIGHUP");
        }
    }
}

fn told(mistakes: &[(String, String)]) -> String {
    let told: Vec<String> = mistakes
        .iter()
        .map(|(key, message)| format!("{key}: {message}"))
        .collect();
    told.join("; ")
}

//! What the service proves itself and asks others with: certificate and tokens, replaced on SIGHUP.
//!
//! A file that is wrong or cannot be read changes nothing, and the log says so loudly.

use std::{sync::Arc, thread};

use anyhow::anyhow;
use axum_server::tls_rustls::RustlsConfig;
use tokio::{signal::unix::Signal, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Credentials, server_config},
    config::{self, Config},
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
        Ok(Self {
            credentials,
            tls: tls.map(RustlsConfig::from_config),
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
        match server_config(&self.files) {
            Ok(Some(new)) => {
                tls.reload_from_config(new);
                tracing::info!("SIGHUP: the certificate was read again; new connections get it");
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

fn told(mistakes: &[(String, String)]) -> String {
    let told: Vec<String> = mistakes
        .iter()
        .map(|(key, message)| format!("{key}: {message}"))
        .collect();
    told.join("; ")
}

//! The certificate that the listener proves itself with, and the CAs of its clients.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::WebPkiClientVerifier,
};

use super::validity::{Needed, Terms};
use crate::config;

/// What the files of `[tls]` hold.
#[derive(Debug)]
pub struct Tls {
    /// For the listener.
    pub config: Arc<ServerConfig>,
    /// From when until when their certificates count; it is for the caller to judge.
    pub terms: Vec<Terms>,
}

/// Reads the files of `[tls]`; `None` if TLS is off.
///
/// # Errors
/// Keys and what is wrong with their files; nothing of a key stands in it.
pub fn server_config(tls: &config::Tls) -> Result<Option<Tls>, Vec<(String, String)>> {
    // Without one of them the configuration has said so itself.
    let (true, Some(cert_file), Some(key_file)) = (tls.enabled, &tls.cert_file, &tls.key_file) else {
        return Ok(None);
    };
    let wrong = |key: &str, message: String| vec![(key.to_owned(), message)];
    let chain = certificates(cert_file).map_err(|message| wrong("tls.cert_file", message))?;
    let mut terms = vec![Terms::of("tls.cert_file", &chain, Needed::First)];
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| wrong("tls.key_file", explain(&error, "private key")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("tls.enabled", error.to_string()))?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let of_clients = |message| wrong("tls.client_ca_file", message);
            let mut roots = RootCertStore::empty();
            let authorities = certificates(path).map_err(of_clients)?;
            terms.push(Terms::of("tls.client_ca_file", &authorities, Needed::Any));
            for certificate in authorities {
                roots
                    .add(certificate)
                    .map_err(|error| of_clients(format!("a certificate cannot be used: {error}")))?;
            }
            // Health checks come without a certificate; what else needs one is decided for each path.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| of_clients(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        wrong(
            "tls.cert_file",
            format!("the certificate and tls.key_file cannot be used: {error}"),
        )
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    Ok(Some(Tls { config, terms }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| explain(&error, "certificate"))?;
    if found.is_empty() {
        return Err("the file holds no certificate in PEM".to_owned());
    }
    Ok(found)
}

/// Without anything of what the file holds.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum may grow, and all the rest is told alike"
)]
fn explain(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("the file cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("the file holds no {what} in PEM"),
        _ => format!("the file is no PEM with a {what}"),
    }
}

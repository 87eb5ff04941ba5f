//! Section `[tls]`: what the listener proves itself with, and whom it asks to.

use std::path::PathBuf;

use serde::Deserialize;

/// Section `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Whether the listener takes TLS only.
    pub enabled: bool,
    /// PEM file of the certificate and what leads to its CA.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub key_file: Option<PathBuf>,
    /// PEM file of the CAs of clients; with it they need a certificate.
    pub client_ca_file: Option<PathBuf>,
}

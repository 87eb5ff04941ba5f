//! Certificates of clients as credentials: the name in one says who its sender is.
//!
//! Only names of the extension `subjectAltName` count, whole and as they are written; a common name is nobody's (RFC 9525,
//! section 2). rustls has checked by then that one of `tls.client_ca_file` signed the certificate.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::grant::Grant;

/// A name that a certificate has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A host's, in lower case.
    Dns(String),
    /// A URI, as SPIFFE's are.
    Uri(String),
}

/// The names of a certificate.
#[must_use]
pub fn subjects(certificate: &CertificateDer<'_>) -> Vec<Subject> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let hosts = certificate
        .valid_dns_names()
        .map(|name| Subject::Dns(name.to_ascii_lowercase()));
    let uris = certificate.valid_uri_names().map(|name| Subject::Uri(name.to_owned()));
    hosts.chain(uris).collect()
}

/// One certificate of the file.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) grant: Grant,
    pub(super) subject: Subject,
}

/// The one holder of these names; none if they are of several, as nobody could tell which one is meant.
pub(super) fn find<'a>(holders: &'a [Holder], subjects: &[Subject]) -> Option<&'a Holder> {
    let mut found = holders.iter().filter(|holder| subjects.contains(&holder.subject));
    let holder = found.next();
    if found.next().is_some() { None } else { holder }
}

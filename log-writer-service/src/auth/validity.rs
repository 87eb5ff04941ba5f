//! From when until when certificates of `[tls]` count.
//!
//! rustls proves itself with an expired certificate as with any other, and webpki does not look at the dates of a CA that
//! it was told to trust. So whoever reads the files has to say it.

use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;

/// The times of the certificates of one file.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The key that names the file.
    pub key: &'static str,
    terms: Vec<Term>,
    /// What of the file is enough for it to be of use.
    needed: Needed,
}

/// What of a file must be in its time for it to be of use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Needed {
    /// The first: what follows leads to the CA, and some of it may be there for old clients.
    First,
    /// One: others may be there for what they signed once.
    Any,
}

#[derive(Debug, Clone)]
struct Term {
    subject: String,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Terms {
    /// Reads them; one whose times cannot be read, which rustls would not use either, is passed over.
    pub(super) fn of(key: &'static str, certificates: &[CertificateDer<'_>], needed: Needed) -> Self {
        let term = |certificate: &CertificateDer<'_>| {
            let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
            let validity = certificate.validity();
            Some(Term {
                subject: certificate.subject().to_string(),
                from: DateTime::from_timestamp(validity.not_before.timestamp(), 0)?,
                until: DateTime::from_timestamp(validity.not_after.timestamp(), 0)?,
            })
        };
        Self {
            key,
            terms: certificates.iter().filter_map(term).collect(),
            needed,
        }
    }

    /// When the first of them ends.
    #[must_use]
    pub fn end(&self) -> Option<DateTime<Utc>> {
        self.terms.iter().map(|term| term.until).min()
    }

    /// What is told of each that does not count now.
    #[must_use]
    pub fn out_of_time(&self, now: DateTime<Utc>) -> Vec<String> {
        self.terms.iter().filter_map(|term| term.mistake(now)).collect()
    }

    /// Why the file is of no use now; `None` if it is.
    #[must_use]
    pub fn mistake(&self, now: DateTime<Utc>) -> Option<String> {
        let mut mistakes = self.terms.iter().map(|term| term.mistake(now));
        match self.needed {
            Needed::First => mistakes.next()?,
            Needed::Any => mistakes.collect::<Option<Vec<String>>>()?.into_iter().next(),
        }
    }
}

impl Term {
    fn mistake(&self, now: DateTime<Utc>) -> Option<String> {
        let Self { subject, from, until } = self;
        if now < *from {
            Some(format!("the certificate {subject} is not valid before {from}"))
        } else if *until < now {
            Some(format!("the certificate {subject} expired at {until}"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(needed: Needed, years: &[(i32, i32)]) -> Terms {
        let year = |year| format!("{year}-01-01T00:00:00Z").parse().unwrap();
        let term = |(number, &(from, until)): (usize, &(i32, i32))| Term {
            subject: format!("CN={number}"),
            from: year(from),
            until: year(until),
        };
        Terms {
            key: "tls.cert_file",
            terms: years.iter().enumerate().map(term).collect(),
            needed,
        }
    }

    #[test]
    fn a_file_is_of_no_use_by_its_first_certificate_or_by_all_of_its_cas() {
        let now = "2026-11-21T00:00:00Z".parse().unwrap();
        for (years, first, any) in [
            (&[(2026, 2027), (2020, 2026)][..], None, None),
            (&[(2020, 2026), (2026, 2027)], Some("CN=0 expired at 2026-01-01"), None),
            (
                &[(2027, 2028)],
                Some("CN=0 is not valid before 2027"),
                Some("CN=0 is not valid before 2027"),
            ),
            (
                &[(2020, 2026), (2027, 2028)],
                Some("CN=0 expired"),
                Some("CN=0 expired"),
            ),
            (&[], None, None),
        ] {
            for (needed, expected) in [(Needed::First, first), (Needed::Any, any)] {
                let told = terms(needed, years).mistake(now);
                let is_expected = match (&told, expected) {
                    (Some(told), Some(part)) => told.contains(part),
                    (told, part) => told.is_none() && part.is_none(),
                };
                assert!(is_expected, "{years:?}, {needed:?}: {told:?}");
            }
        }
        let told = terms(Needed::Any, &[(2020, 2026), (2026, 2027), (2027, 2028)]);
        assert_eq!(told.out_of_time(now).len(), 2);
        assert_eq!(told.end(), Some("2026-01-01T00:00:00Z".parse().unwrap()));
    }
}

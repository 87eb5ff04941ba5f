//! Reads the header `Authorization`: Bearer (RFC 6750), Basic (RFC 7617; the name of a token and its secret).

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Longest credential that is looked at, in bytes; a signed token with many claims has a few thousand.
const CREDENTIAL_BYTES_MAX: usize = 8192;

/// A credential as it was sent.
#[derive(PartialEq, Eq)]
pub(super) struct Presented {
    /// The name, if the scheme has one.
    pub(super) name: Option<Vec<u8>>,
    pub(super) secret: Vec<u8>,
}

/// Not a credential that could be anyone's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Presented {
    /// Reads the values of all headers `Authorization`; `None` if there is none.
    pub(super) fn of<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, Malformed> {
        let mut headers = headers.into_iter();
        let Some(header) = headers.next() else {
            return Ok(None);
        };
        // A proxy and this service may each take another one of two.
        if headers.next().is_some() || header.len() > CREDENTIAL_BYTES_MAX {
            return Err(Malformed);
        }
        let header = header.trim_ascii();
        let end = header.iter().position(|byte| *byte == b' ').ok_or(Malformed)?;
        let (scheme, rest) = header.split_at_checked(end).ok_or(Malformed)?;
        let rest = rest.trim_ascii();
        if rest.is_empty() {
            return Err(Malformed);
        }
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Ok(Some(Self {
                name: None,
                secret: rest.to_vec(),
            }));
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(Malformed);
        }
        let pair = STANDARD.decode(rest).map_err(|_| Malformed)?;
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let (name, secret) = pair.split_at_checked(colon).ok_or(Malformed)?;
        Ok(Some(Self {
            name: Some(name.to_vec()),
            secret: secret.get(1..).unwrap_or_default().to_vec(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[&str]) -> Result<Option<(Option<String>, String)>, Malformed> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let presented = Presented::of(headers.iter().map(|header| header.as_bytes()))?;
        Ok(presented.map(|presented| (presented.name.map(text), text(presented.secret))))
    }

    #[test]
    fn bearer_and_basic_are_read_whatever_the_case_of_their_name() {
        for (header, name, secret) in [
            ("Bearer abc", None, "abc"),
            ("bearer  abc ", None, "abc"),
            ("BASIC ZnJvbnQ6YTpi", Some("front"), "a:b"),
            ("Basic Zjo=", Some("f"), ""),
        ] {
            let expected = Some((name.map(str::to_owned), secret.to_owned()));
            assert_eq!(of(&[header]), Ok(expected), "{header}");
        }
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn what_is_no_credential_is_malformed() {
        let long = format!("Bearer {}", "x".repeat(CREDENTIAL_BYTES_MAX));
        for headers in [
            &["Bearer"][..],
            &["Bearer "],
            &[""],
            &["abc"],
            &["Digest username=x"],
            &["Basic !!!"],
            &["Basic bm9jb2xvbg=="],
            &["Bearer one", "Bearer two"],
            &[&long],
        ] {
            assert_eq!(of(headers), Err(Malformed), "{headers:?}");
        }
    }
}

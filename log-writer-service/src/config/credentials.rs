//! Brings each credential to the one place where its module looks for it: the database's password into the URL,
//! Elasticsearch's out of the URLs into user and password.

use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    Config,
    load::{Merge, read_secret},
    secret,
};

/// Moves the credentials and notes what contradicts itself.
pub(super) fn settle(config: &mut Config, merge: &mut Merge) {
    database(config, merge);
    elasticsearch(config, merge);
}

fn database(config: &mut Config, merge: &mut Merge) {
    const KEY: &str = "database.url";
    let mut url = match Url::parse(config.database.url.expose_secret().trim()) {
        Ok(url) => url,
        Err(error) => {
            let how = "write postgres://user:password@host:port/database, with other characters than letters, digits \
                       and -._~ in user and password as %XX";
            return merge.refuse(&[KEY], format!("is no URL ({error}); {how}"));
        }
    };
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return merge.refuse(
            &[KEY],
            "is no PostgreSQL URL; write postgres://user:password@host:port/database",
        );
    }
    if url.fragment().is_some() {
        return merge.refuse(&[KEY], "has a `#`; in a password it is written %23");
    }
    if let Some(wrong) = url
        .query_pairs()
        .find_map(|(name, value)| parameter_mistake(&name, &value))
    {
        return merge.refuse(&[KEY], wrong);
    }
    if let Some(path) = config.database.password_file.clone() {
        let in_url = url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password");
        let rank = |key| merge.winner(key).map_or(0, |setting| setting.origin.rank());
        if in_url && rank(KEY) > rank("database.password_file") {
            merge
                .notes
                .push("database.password_file is not read: a later database.url has a password".to_owned());
        } else {
            match read_secret(&path) {
                Ok(password) => put_password(&mut url, &password),
                Err(message) => return merge.refuse(&["database.password_file"], message),
            }
        }
    }
    config.database.url = SecretString::from(String::from(url));
}

/// What is wrong with a parameter of the URL, without what it says: it may be the end of a password.
fn parameter_mistake(name: &str, value: &str) -> Option<String> {
    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    match name {
        "sslmode" | "ssl-mode" if !MODES.contains(&value) => Some(format!(
            "has an sslmode that is not known; it is one of {}",
            MODES.join(", ")
        )),
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key"
            if !value.starts_with("-----BEGIN") =>
        {
            let error = std::fs::metadata(value).err()?;
            Some(format!("names a file in {name} that cannot be read: {error}"))
        }
        known if secret::is_url_parameter(known) => None,
        _ => Some("has a parameter that is not known; if a `?` is part of the password, it is written %3F".to_owned()),
    }
}

/// A URL without a host (a socket in `?host=`) cannot hold a password before it; sqlx reads it as a parameter as well.
fn put_password(url: &mut Url, password: &str) {
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != "password")
        .map(|(n, v)| (n.into_owned(), v.into_owned()))
        .collect();
    let placed = url.set_password(Some(&escaped(password))).is_ok();
    url.set_query(None);
    if !others.is_empty() {
        url.query_pairs_mut().extend_pairs(&others);
    }
    if !placed {
        url.query_pairs_mut().append_pair("password", password);
    }
}

fn elasticsearch(config: &mut Config, merge: &mut Merge) {
    const URLS: &str = "elasticsearch.urls";
    let section = &mut config.elasticsearch;
    let mut found: Option<(String, Option<String>)> = None;
    for url in &mut section.urls {
        if !url.username().is_empty() || url.password().is_some() {
            let here = (unescaped(url.username()), url.password().map(unescaped));
            if found.as_ref().is_some_and(|before| *before != here) {
                return merge.refuse(&[URLS], "have different users or passwords; one pair serves all nodes");
            }
            found = Some(here);
            let cleared = url.set_password(None).and_then(|()| url.set_username(""));
            if cleared.is_err() {
                return merge.refuse(&[URLS], "cannot hold a user; write http:// or https://");
            }
        }
    }
    let Some((username, password)) = found else { return };
    if section.username.as_ref().is_some_and(|other| *other != username) {
        return merge.refuse(&[URLS, "elasticsearch.username"], "name two users; give one");
    }
    section.username = Some(username);
    if let Some(password) = password {
        if section.password.is_some() {
            return merge.refuse(&[URLS, "elasticsearch.password"], "hold a password each; give one");
        }
        section.password = Some(SecretString::from(password));
    }
}

/// Percent-encodes all but the unreserved characters (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                let _infallible = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_survives_the_way_into_a_url_and_out_of_it() {
        for password in [
            "hunter2",
            "p@ss:w/rd?#%",
            "%41",
            "sp ace+",
            "p\u{e4}ss\u{1f600}",
            "'\"\\",
        ] {
            let mut url = Url::parse("postgres://me@db:5432/logs?sslmode=require").unwrap();
            put_password(&mut url, password);
            assert_eq!(unescaped(url.password().unwrap()), password);
            assert_eq!(
                (url.host_str(), url.path(), url.query()),
                (Some("db"), "/logs", Some("sslmode=require"))
            );
        }
    }

    #[test]
    fn a_url_of_a_socket_takes_the_password_as_a_parameter() {
        let mut url = Url::parse("postgres:///logs?host=/run/postgresql&user=me").unwrap();
        put_password(&mut url, "p&ss=1");
        let pairs: Vec<_> = url
            .query_pairs()
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect();
        assert!(
            pairs.contains(&("password".to_owned(), "p&ss=1".to_owned())),
            "{pairs:?}"
        );
        assert!(
            pairs.contains(&("host".to_owned(), "/run/postgresql".to_owned())),
            "{pairs:?}"
        );
    }
}

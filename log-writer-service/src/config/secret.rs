//! What may be shown of a value: passwords, keys and what could be a part of them never.

use toml::Value;
use url::Url;

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// Parameters of a database URL that sqlx 0.8.6 knows and that are no secrets; it logs a name it does not know with its
/// value, so such a URL is refused.
const OPEN_PARAMETERS: [&str; 14] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
];
/// Those that are secrets or may hold one.
const SECRET_PARAMETERS: [&str; 4] = ["password", "sslkey", "ssl-key", "options"];

/// The value of a key as it may be printed.
pub(super) fn shown(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("elasticsearch.password" | "elasticsearch.api_key", _) => Value::String(HIDDEN.to_owned()),
        ("database.url" | "api.database_url" | "elasticsearch.urls", Value::String(text)) => Value::String(url(text)),
        ("elasticsearch.urls", Value::Array(items)) => {
            Value::Array(items.iter().map(|item| shown("elasticsearch.urls", item)).collect())
        }
        ("database.url" | "api.database_url" | "elasticsearch.urls", _) => Value::String(HIDDEN.to_owned()),
        _ => value.clone(),
    }
}

/// Whether the value of a key is a secret, or has one in it.
pub(super) fn is_in(key: &str, text: &str) -> bool {
    match key {
        "elasticsearch.password" | "elasticsearch.api_key" => !text.is_empty(),
        "database.url" | "api.database_url" | "elasticsearch.urls" => text
            .split([',', '"', '[', ']', ' '])
            .any(|piece| piece.contains(['@', '?']) && url(piece).contains(HIDDEN)),
        _ => false,
    }
}

/// A URL without its secrets: made anew of the parts that are known to be none.
///
/// An unescaped `#`, `?` or `/` in a password moves its end into other parts, so those are not copied unseen.
#[must_use]
pub fn url(text: &str) -> String {
    let Ok(url) = Url::parse(text.trim()) else {
        return HIDDEN.to_owned();
    };
    let Some(host) = url.host_str().or(Some("")).filter(|_| !url.cannot_be_a_base()) else {
        return HIDDEN.to_owned();
    };
    let mut shown = format!("{}://", url.scheme());
    if !url.username().is_empty() || url.password().is_some() {
        shown.push_str(url.username());
        if url.password().is_some() {
            shown.push(':');
            shown.push_str(HIDDEN);
        }
        shown.push('@');
    }
    shown.push_str(host);
    if let Some(port) = url.port() {
        shown.push_str(&format!(":{port}"));
    }
    if url.path().contains('@') {
        shown.push('/');
        shown.push_str(HIDDEN);
    } else if url.path() != "/" {
        shown.push_str(url.path());
    }
    let mut separator = '?';
    for (name, value) in url.query_pairs() {
        let pair = if OPEN_PARAMETERS.contains(&name.as_ref()) {
            format!("{separator}{name}={value}")
        } else if SECRET_PARAMETERS.contains(&name.as_ref()) {
            format!("{separator}{name}={HIDDEN}")
        } else {
            format!("{separator}{HIDDEN}")
        };
        shown.push_str(&pair);
        separator = '&';
    }
    if url.fragment().is_some() {
        shown.push('#');
        shown.push_str(HIDDEN);
    }
    shown
}

/// Whether sqlx knows this parameter of a database URL.
pub(super) fn is_url_parameter(name: &str) -> bool {
    OPEN_PARAMETERS.contains(&name) || SECRET_PARAMETERS.contains(&name) || name.starts_with("options[")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (given, expected) in [
            (
                "postgres://me:hunter2@db:5432/logs?sslmode=require",
                "postgres://me:***@db:5432/logs?sslmode=require",
            ),
            ("postgres://me@db/logs", "postgres://me@db/logs"),
            (
                "postgres:///logs?host=/run/postgresql&password=hunter2",
                "postgres:///logs?host=/run/postgresql&password=***",
            ),
            ("http://elastic:hunter2@es:9200", "http://elastic:***@es:9200"),
            (
                "http://elastic:hunter2@es:9200/path/",
                "http://elastic:***@es:9200/path/",
            ),
            ("https://es", "https://es"),
        ] {
            assert_eq!(url(given), expected);
        }
    }

    #[test]
    fn no_part_of_a_password_that_was_not_escaped_is_shown() {
        for given in [
            "postgres://me:hunter2#hunter2@db/logs",
            "postgres://me:hunter2?hunter2@db/logs",
            "postgres://me:5432?hunter2@db/logs",
            "postgres://me:5432#hunter2@db/logs",
            "postgres://me:5432/hunter2@db/logs",
            "postgres://me:hunter2/hunter2@db/logs",
            "postgres://me:hunter2@hunter2@db/logs",
            "me:hunter2@db/logs",
            "elastic:hunter2@es:9200",
            "postgres:me:hunter2@db",
        ] {
            let shown = url(given);
            assert!(!shown.contains("hunter2"), "{given} is shown as {shown}");
        }
    }
}

//! `config.default.toml`: what the other files are compared with.

use std::fs;

use log_writer_service::config::Config;
use log_writer_tests::vector_programs::repository;

fn default_file() -> String {
    fs::read_to_string(repository().join("log-writer-service/config.default.toml")).unwrap()
}

/// The defaults, as the service reads them.
pub(crate) fn defaults() -> Config {
    toml::from_str(&default_file()).unwrap()
}

/// Whether `LOG_WRITER__SECTION__KEY` names a key, with a default or (`#key = …`) without.
pub(crate) fn is_variable(variable: &str) -> bool {
    let Some(path) = variable.strip_prefix("LOG_WRITER__") else {
        return matches!(variable, "DATABASE_URL" | "ELASTICSEARCH_URL" | "RUST_LOG");
    };
    let text: String = default_file()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut value: toml::Value = text.parse::<toml::Table>().unwrap().into();
    for name in path.split("__") {
        let Some(inner) = value.get(name.to_lowercase()) else {
            return false;
        };
        value = inner.clone();
    }
    !value.is_table()
}

#[test]
fn a_misspelt_variable_is_found() {
    assert!(is_variable("LOG_WRITER__HTTP__LISTEN") && is_variable("LOG_WRITER__DATABASE__URL_FILE"));
    for wrong in [
        "LOG_WRITER__HTTP__LISTN",
        "LOG_WRITER_HTTP_LISTEN",
        "LOG_WRITER__HTTP",
        "LOGWRITER__HTTP__LISTEN",
    ] {
        assert!(!is_variable(wrong), "{wrong}");
    }
}

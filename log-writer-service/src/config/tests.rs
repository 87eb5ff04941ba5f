//! What people write into files, variables and flags, and what they are told.

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{Config, DEFAULT_FILE, Loaded, Report, Sources, SynchronousCommit, known, load, load_with};

/// A folder with a configuration file in it, and variables and flags beside it.
struct Given {
    folder: TempDir,
    sources: Sources,
}

impl Given {
    fn nothing() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let usual_file = folder.path().join("absent.toml");
        Self {
            folder,
            sources: Sources {
                file: None,
                flags: Vec::new(),
                environment: Vec::new(),
                usual_file,
            },
        }
    }

    fn file(mut self, text: &str) -> Self {
        self.sources.file = Some(self.secret("given.toml", text));
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources
            .environment
            .push((OsString::from(name), OsString::from(value)));
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        self.sources
            .flags
            .push(("--set".to_owned(), key.to_owned(), value.to_owned()));
        self
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<Loaded, Report> {
        load(&self.sources)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|report| panic!("{report}")).config
    }

    fn report(&self) -> String {
        self.load()
            .map(|loaded| loaded.to_toml())
            .expect_err("a mistake was expected")
            .to_string()
    }
}

/// The variable of a key.
fn variable(key: &str) -> String {
    format!("LOG_WRITER__{}", key.to_uppercase().replace('.', "__"))
}

fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("`{part}` is not (in this order) in:\n{text}")
        };
        rest = after;
    }
}

#[test]
fn the_embedded_default_is_a_configuration_without_mistakes_or_notes() {
    let loaded = Given::nothing().load().unwrap();
    let config = &loaded.config;
    assert_eq!(loaded.notes, Vec::<String>::new());
    assert_eq!(config.http.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert_eq!(config.http.body_bytes_max, 100 << 20);
    assert_eq!(config.events.accept_past, Duration::from_secs(7 * 86400));
    assert_eq!(config.database.synchronous_commit, SynchronousCommit::On);
    assert_eq!(config.database.batch_bytes_max, 8_000_000);
    assert_eq!(config.elasticsearch.refresh_interval, "1s");
    assert_eq!(config.delivery.lease, Duration::from_secs(30));
}

#[test]
fn many_mistakes_of_many_sources_are_told_at_once_with_their_places() {
    let report = Given::nothing()
        .file(
            "[http]\nlisten = \"localhost:8080\"\nanswer_timeout = 30\n\n[delivery]\nleese = \"1m\"\n\
             [database]\nsynchronous_commit = \"off\"\ncommitters = -1\n[elastcsearch]\nenabled = true\n",
        )
        .env("LOG_WRITER__DATABASE__LOCK_TIMEOUT", "20 secs and more")
        .env("LOG_WRITER__SERVICE_HOST", "10.0.0.1")
        .flag("events.depth_max", "many")
        .flag("delivery.renew_every", "20s")
        .report();
    assert_in_order(
        &report,
        &[
            "the configuration has 10 mistakes",
            "delivery.leese (",
            "given.toml, line 6)",
            "did you mean `delivery.lease`?",
            "elastcsearch (",
            "line 10",
            "did you mean [elasticsearch]?",
            "service_host (environment LOG_WRITER__SERVICE_HOST)",
            "http.",
            "database.",
        ],
    );
    for part in [
        "http.listen = \"localhost:8080\" (",
        "given.toml, line 2)",
        "write numbers, not a name",
        "http.answer_timeout = 30 (",
        "write \"30s\"",
        "events.depth_max = \"many\" (flag --set)\n   is text, not a whole number",
        "database.lock_timeout = \"20 secs and more\" (environment LOG_WRITER__DATABASE__LOCK_TIMEOUT)",
        "write \"off_and_accept_loss\"",
        "database.committers = -1 (",
        "is a negative number, not a whole number in range",
        "delivery.lease = \"30s\" (default)\n   delivery.renew_every = \"20s\" (flag --set)\n   a claim must outlive",
        "config default",
    ] {
        assert!(report.contains(part), "`{part}` is missing in:\n{report}");
    }
}

/// Key, value, and a part of what is told.
const SINGLE_MISTAKES: &[(&str, &str, &str)] = &[
    ("http.listen", ":8080", "is no address with a port"),
    ("http.body_bytes_max", "1 gig", "is no size"),
    ("http.body_bytes_max", "1GiB", "it could never be taken"),
    ("http.body_bytes_max", "0", "at least 1"),
    ("http.answer_timeout", "1m", "below 60s"),
    ("http.drain_timeout", "25", "write \"25s\""),
    ("http.connections_max", "1e3", "is text, not a whole number"),
    ("events.depth_max", "5000", "at most 1000"),
    ("events.default_tenant", "a/b", "has '/'"),
    ("events.body_tenants", "shop,Default", "differ only in case"),
    ("events.body_tenants", "shop,SHOP", "differ only in case"),
    ("events.body_tenants", "a b", "has ' '"),
    ("database.url", "127.0.0.1:5432/logs", "is no URL"),
    ("database.url", "mysql://h/logs", "is no PostgreSQL URL"),
    ("database.url", "postgres://u:1#b@h/logs", "%23"),
    (
        "database.url",
        "postgres://h/logs?sslmod=require",
        "a parameter that is not known",
    ),
    ("database.url", "postgres://h/logs?sslmode=on", "one of disable, allow"),
    (
        "database.url",
        "postgres://h/logs?sslmode=verify-ca&sslrootcert=/nonexistent.pem",
        "in sslrootcert that cannot be read",
    ),
    ("delivery.renew_every", "500000000000y", "a claim must outlive"),
    ("database.committers", "0", "at least 1"),
    ("database.synchronous_commit", "of", "did you mean \"on\"?"),
    ("database.migrate_on_start", "yes", "is text, not true or false"),
    ("database.lock_timeout", "15s", "a transaction must outlive"),
    ("database.chunk_interval", "1s", "at least 1m"),
    ("elasticsearch.urls", "", "names no node"),
    ("elasticsearch.urls", "localhost:9200", "must begin with http://"),
    ("elasticsearch.urls", "http://a,b", "number 2 is no URL"),
    (
        "elasticsearch.urls",
        "http://u:p@a,http://u:q@b",
        "different users or passwords",
    ),
    ("elasticsearch.username", "elastic", "a user without a password"),
    ("elasticsearch.password", "x", "a password without a user"),
    ("elasticsearch.ca_file", "/nonexistent/ca.pem", "cannot be read"),
    ("elasticsearch.naming", "datastream", "did you mean \"data_stream\"?"),
    ("elasticsearch.dataset", "my-app", "must have no `-`"),
    ("elasticsearch.dataset", "App", "lower case"),
    ("elasticsearch.dataset", "", "must not be empty"),
    ("elasticsearch.replicas", "-1", "a negative number"),
    (
        "elasticsearch.refresh_interval",
        "1 second",
        "is no time of Elasticsearch's",
    ),
    (
        "elasticsearch.refresh_interval",
        "1.5s",
        "is no time of Elasticsearch's",
    ),
    ("elasticsearch.promote.order_id", "text", "is one of keyword"),
    ("elasticsearch.bulk_bytes_max", "200MB", "at most 100MiB"),
    ("elasticsearch.request_timeout", "35s", "above 35s"),
    ("delivery.workers", "0", "at least 1"),
    ("delivery.lease", "20s", "a claim must outlive two renewals"),
    ("delivery.retry_min", "1m", "longer than the longest"),
    ("delivery.poll_every", "0s", "at least 1ms"),
    ("delivery.linger", "61s", "a minute at most"),
    ("storage.profile", "columns", "is one of row, columnar"),
    ("log.format", "yaml", "is one of auto, text, json"),
    ("log.filter", "info,=loud=", "is no filter"),
    ("http", "x", "is a section"),
    ("listen", "x", "did you mean `http.listen`?"),
    ("delivery.urls", "x", "did you mean `elasticsearch.urls`?"),
    ("htpp.listen", "x", "did you mean `http.listen`?"),
    ("colour", "x", "the sections are http, auth, auth.jwt, tls, events"),
];

#[test]
fn a_single_mistake_is_named_with_what_to_write() {
    for &(key, value, part) in SINGLE_MISTAKES {
        let variable = variable(key);
        let report = Given::nothing().env(&variable, value).report();
        assert!(
            report.starts_with("the configuration has a mistake\n"),
            "{key}={value}:\n{report}"
        );
        assert!(
            report.contains(part),
            "{key}={value} is told without `{part}`:\n{report}"
        );
        assert!(
            report.contains(&format!("environment {variable}")),
            "{key}={value} is told without its source:\n{report}"
        );
    }
}

#[test]
fn a_later_source_goes_over_an_earlier_one() {
    let file = "[database]\nurl = \"postgres://file/x\"\n[log]\nfilter = \"warn\"\n";
    let url = |given: &Given| given.config().database.url.expose_secret().to_owned();
    let origin = |given: &Given| given.load().unwrap().origin("database.url").unwrap();

    let given = Given::nothing().file(file);
    assert_eq!(
        (url(&given).as_str(), given.config().log.filter.as_str()),
        ("postgres://file/x", "warn")
    );
    assert!(origin(&given).ends_with("given.toml, line 2"));

    let given = given
        .env("DATABASE_URL", "postgres://platform/x")
        .env("RUST_LOG", "debug");
    assert_eq!(
        (url(&given).as_str(), given.config().log.filter.as_str()),
        ("postgres://platform/x", "debug")
    );
    assert_eq!(origin(&given), "environment DATABASE_URL");

    let given = given
        .env("LOG_WRITER__DATABASE__URL", "postgres://ours/x")
        .env("LOG_WRITER__LOG__FILTER", "error");
    assert_eq!(
        (url(&given).as_str(), given.config().log.filter.as_str()),
        ("postgres://ours/x", "error")
    );

    let given = given
        .flag("database.url", "postgres://flag/x")
        .flag("database.url", "postgres://last/x");
    assert_eq!(
        (url(&given).as_str(), origin(&given).as_str()),
        ("postgres://last/x", "flag --set")
    );
}

#[test]
fn the_file_is_found_by_flag_then_variable_then_its_usual_place() {
    let mut given = Given::nothing();
    let dataset = |given: &Given| given.config().elasticsearch.dataset;
    let toml = |name: &str| format!("elasticsearch.dataset = \"{name}\"\n");
    given.sources.usual_file = given.secret("usual.toml", &toml("usual"));
    assert_eq!(dataset(&given), "usual");
    let named = given.secret("named.toml", &toml("variable"));
    let given = given.env("LOG_WRITER_CONFIG", named.to_str().unwrap());
    assert_eq!(dataset(&given), "variable");
    assert_eq!(dataset(&given.file(&toml("flag"))), "flag");
}

#[test]
fn a_file_that_is_missing_or_broken_is_a_mistake_beside_the_others() {
    let given = Given::nothing()
        .env("LOG_WRITER_CONFIG", "/nonexistent/x.toml")
        .flag("delivery.workers", "0");
    let report = given.report();
    assert_in_order(
        &report,
        &[
            "2 mistakes",
            "/nonexistent/x.toml, named by environment LOG_WRITER_CONFIG, cannot be read",
            "delivery.workers",
        ],
    );
    let report = Given::nothing().file("[http]\nlisten = \n").report();
    assert_in_order(&report, &["given.toml, line 2 is not TOML"]);
    let report = Given::nothing()
        .file("[elasticsearch]\npassword = \"hunter2\nusername = 'x'\n")
        .report();
    assert!(
        report.contains("line 2 is not TOML") && !report.contains("hunter2"),
        "{report}"
    );
}

#[test]
fn text_from_the_environment_is_not_guessed_into_numbers_or_truths() {
    for secret in [
        "12345",
        "0123",
        "true",
        "[x]",
        "1e5",
        "{a=1}",
        "\"quoted\"",
        " space ",
        "a,b",
        "0x10",
    ] {
        let config = Given::nothing()
            .env("LOG_WRITER__ELASTICSEARCH__USERNAME", secret)
            .env("LOG_WRITER__ELASTICSEARCH__PASSWORD", secret)
            .config();
        assert_eq!(config.elasticsearch.username.as_deref(), Some(secret));
        assert_eq!(config.elasticsearch.password.unwrap().expose_secret(), secret);
    }
    let config = Given::nothing()
        .env("LOG_WRITER__EVENTS__DEFAULT_TENANT", "007")
        .env("LOG_WRITER__ELASTICSEARCH__DATASET", "true")
        .env("LOG_WRITER__EVENTS__BODY_TENANTS", "1,true")
        .env("LOG_WRITER__HTTP__BODY_BYTES_MAX", "1048576")
        .env("LOG_WRITER__DATABASE__MIGRATE_ON_START", "False")
        .env("LOG_WRITER__DATABASE__COMMITTERS", " 4 ")
        .config();
    assert_eq!(
        (
            config.events.default_tenant.as_str(),
            config.elasticsearch.dataset.as_str()
        ),
        ("007", "true")
    );
    assert_eq!(config.events.body_tenants, ["1", "true"]);
    assert_eq!((config.http.body_bytes_max, config.database.committers), (1_048_576, 4));
    assert!(!config.database.migrate_on_start);
}

#[test]
fn lists_are_written_with_commas_or_as_toml() {
    let expected = ["http://a:9200/", "https://b/"];
    for text in [
        "http://a:9200,https://b",
        " http://a:9200 , https://b ,",
        "[http://a:9200,https://b]",
        "[\"http://a:9200\", 'https://b']",
    ] {
        for name in ["ELASTICSEARCH_URL", "LOG_WRITER__ELASTICSEARCH__URLS"] {
            let urls = Given::nothing().env(name, text).config().elasticsearch.urls;
            assert_eq!(
                urls.iter().map(url::Url::as_str).collect::<Vec<_>>(),
                expected,
                "{name}={text}"
            );
        }
    }
    let wrappers = Given::nothing()
        .env("LOG_WRITER__EVENTS__WRAPPERS", "")
        .config()
        .events
        .wrappers;
    assert_eq!(wrappers, Vec::<String>::new());
}

#[test]
fn tables_are_written_member_by_member_or_whole_and_add_up() {
    let promote = Given::nothing()
        .file("[elasticsearch.promote]\nshop = \"keyword\"\n\"order.id\" = \"long\"\n")
        .env("LOG_WRITER__ELASTICSEARCH__PROMOTE__PRICE", "double")
        .flag("elasticsearch.promote", "{ shop = \"ip\" }")
        .config()
        .elasticsearch
        .promote;
    let promote: Vec<_> = promote
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(promote, [("order.id", "long"), ("price", "double"), ("shop", "ip")]);
    let report = Given::nothing()
        .file("[elasticsearch.promote]\na = 1\nb = true\n")
        .report();
    assert_in_order(
        &report,
        &[
            "2 mistakes",
            "elasticsearch.promote.a = 1",
            "elasticsearch.promote.b = true",
        ],
    );
}

#[test]
fn variables_of_kubernetes_and_empty_ones_of_compose_change_nothing() {
    let given = Given::nothing()
        .env("LOG_WRITER_SERVICE_HOST", "10.0.0.1")
        .env("LOG_WRITER_PORT", "tcp://10.0.0.1:8080")
        .env("DATABASE_URL", "")
        .env("ELASTICSEARCH_URL", "")
        .env("RUST_LOG", "")
        .env("LOG_WRITER_CONFIG", "")
        .env("LOG_WRITER__ELASTICSEARCH__API_KEY", "")
        .env("LOG_WRITER__DATABASE__PASSWORD_FILE", "");
    let loaded = given.load().unwrap();
    assert_eq!(loaded.to_toml(), Given::nothing().load().unwrap().to_toml());
    assert_eq!(loaded.notes, Vec::<String>::new());
}

#[test]
fn a_columnar_profile_is_noted_with_what_it_does_not_promise() {
    let loaded = Given::nothing().flag("storage.profile", "columnar").load().unwrap();
    assert!(
        loaded
            .notes
            .join("\n")
            .contains("an event that comes in another request twice")
    );
}

#[test]
fn a_variable_with_one_underscore_too_few_is_noted() {
    let loaded = Given::nothing()
        .env("LOG_WRITER_HTTP__LISTEN", "0.0.0.0:1")
        .load()
        .unwrap();
    assert_eq!(
        loaded.notes,
        ["environment LOG_WRITER_HTTP__LISTEN is not read; LOG_WRITER__HTTP__LISTEN is, with two underscores"]
    );
}

#[test]
fn secrets_are_read_from_files_without_the_line_end() {
    let given = Given::nothing();
    let password = given.secret("password", "p@ss/word \r\n");
    let key = given.secret("key", "a2V5\n");
    let given = given
        .env("DATABASE_URL", "postgres://me:old@db:5432/logs?sslmode=require")
        .env("LOG_WRITER__DATABASE__PASSWORD_FILE", password.to_str().unwrap())
        .env("LOG_WRITER__ELASTICSEARCH__API_KEY_FILE", key.to_str().unwrap());
    let loaded = given.load().unwrap();
    let url = loaded.config.database.url.expose_secret();
    assert_eq!(url, "postgres://me:p%40ss%2Fword%20@db:5432/logs?sslmode=require");
    assert_eq!(
        loaded.config.elasticsearch.api_key.as_ref().unwrap().expose_secret(),
        "a2V5"
    );
    let origin = loaded.origin("elasticsearch.api_key").unwrap();
    assert_in_order(
        &origin,
        &["key, named by elasticsearch.api_key_file from environment LOG_WRITER__ELASTICSEARCH__"],
    );

    let given = Given::nothing();
    let url_file = given.secret("url", "postgres://me:x@other/logs\n");
    let given = given.file(&format!("[database]\nurl_file = {:?}\n", url_file.to_str().unwrap()));
    assert_eq!(
        given.config().database.url.expose_secret(),
        "postgres://me:x@other/logs"
    );
    let given = given.env("DATABASE_URL", "postgres://later/logs");
    let loaded = given.load().unwrap();
    assert_eq!(loaded.config.database.url.expose_secret(), "postgres://later/logs");
    assert_in_order(
        &loaded.notes.join("\n"),
        &["database.url_file is not read", "environment DATABASE_URL"],
    );
}

#[test]
fn files_of_secrets_that_are_missing_empty_or_in_doubt_are_told_together() {
    let given = Given::nothing();
    let empty = given.secret("empty", "\n");
    let report = given
        .file(&format!(
            "[database]\npassword_file = \"/nonexistent/password\"\n[elasticsearch]\nusername = \"me\"\n\
             password_file = {:?}\napi_key = \"hunter2\"\napi_key_file = \"/nonexistent/key\"\n",
            empty.to_str().unwrap()
        ))
        .report();
    for part in [
        "elasticsearch.password_file = ",
        "the file is empty",
        "elasticsearch.api_key = \"***\" (",
        "both are given in the same place",
        "database.password_file = \"/nonexistent/password\" (",
        "the file cannot be read: No such file",
    ] {
        assert!(report.contains(part), "`{part}` is missing in:\n{report}");
    }
    assert!(!report.contains("a user without a password"), "{report}");
}

#[test]
fn a_password_of_a_later_url_goes_over_the_file_of_an_earlier_source() {
    let given = Given::nothing();
    let password = given.secret("password", "old");
    let given = given.file(&format!(
        "[database]\nurl = \"postgres://me@db/x\"\npassword_file = {password:?}\n"
    ));
    let url = |given: &Given| given.config().database.url.expose_secret().to_owned();
    assert_eq!(url(&given), "postgres://me:old@db/x");
    let given = given.env("DATABASE_URL", "postgres://me@later/x");
    assert_eq!(url(&given), "postgres://me:old@later/x");
    let given = given.env("LOG_WRITER__DATABASE__URL", "postgres://me:new@last/x");
    assert_eq!(url(&given), "postgres://me:new@last/x");
    assert_in_order(
        &given.load().unwrap().notes.join("\n"),
        &["database.password_file is not read"],
    );
}

#[test]
fn a_value_that_cannot_be_read_is_not_compared_with_others() {
    // The default of the lease, 30s, would be too short for 20s.
    let report = Given::nothing()
        .flag("delivery.lease", "60")
        .flag("delivery.renew_every", "20s")
        .report();
    assert!(
        report.contains("has a mistake") && report.contains("`60` has no unit"),
        "{report}"
    );
}

#[test]
fn what_is_switched_off_is_not_checked_further() {
    let given = Given::nothing()
        .flag("elasticsearch.urls", "")
        .flag("elasticsearch.username", "me");
    assert!(given.report().contains("2 mistakes"));
    assert!(
        !given
            .flag("elasticsearch.enabled", "false")
            .config()
            .elasticsearch
            .enabled
    );
}

#[test]
fn users_in_elasticsearch_urls_become_user_and_password() {
    let given = Given::nothing().env(
        "ELASTICSEARCH_URL",
        "http://elastic:p%40ss@a:9200,http://elastic:p%40ss@b:9200",
    );
    let section = given.config().elasticsearch;
    assert_eq!(section.username.as_deref(), Some("elastic"));
    assert_eq!(section.password.unwrap().expose_secret(), "p@ss");
    assert_eq!(
        section.urls.iter().map(url::Url::as_str).collect::<Vec<_>>(),
        ["http://a:9200/", "http://b:9200/"]
    );
    let report = given.env("LOG_WRITER__ELASTICSEARCH__API_KEY", "x").report();
    assert!(report.contains("or an API key: give one of the two"), "{report}");
}

#[test]
fn no_secret_is_printed_in_a_configuration_a_report_or_a_debug_text() {
    let secrets = |given: Given| {
        given
            .env("DATABASE_URL", "postgres://me:hunter2@db/logs?password=hunter2")
            .env("ELASTICSEARCH_URL", "http://elastic:hunter2@es:9200")
    };
    let loaded = secrets(Given::nothing()).load().unwrap();
    for text in [
        loaded.to_toml(),
        loaded.changes().join("\n"),
        format!("{loaded:?}"),
        format!(
            "{:?}",
            secrets(Given::nothing())
                .flag("database.url", "postgres://a:hunter2@b")
                .sources
        ),
        format!("{:?}", loaded.config),
        format!("{:#?}", loaded.config),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(
        loaded.to_toml().contains("urls = [\"http://elastic:***@es:9200\"]"),
        "{}",
        loaded.to_toml()
    );
    for (key, value) in [
        ("elasticsearch.api_key", "hunter2"),
        ("elasticsearch.password", "hunter2"),
        ("elasticsearch.passwrd", "hunter2"),
        ("elasticsearch.urls", "elastic:hunter2@es"),
        ("elasticsearch.urls", "http://elastic:hunter2@es:port"),
        ("elasticsearch.urls", "ftp://elastic:hunter2@es"),
        ("database.url", "me:hunter2@db"),
        ("database.url", "postgres://me:hunter2/hunter2@db/logs"),
        ("database.url", "postgres://me:1?hunter2@db/logs"),
        ("database.url", "postgres://me:1#hunter2@db/logs"),
        ("database.url", "mysql://me:hunter2@db/logs"),
    ] {
        let variable = variable(key);
        for given in [
            Given::nothing().env(&variable, value),
            Given::nothing().flag(key, value),
        ] {
            let report = secrets(given).report();
            assert!(!report.contains("hunter2"), "{key}={value}:\n{report}");
        }
    }
    let file = "[elasticsearch]\npassword = [\"hunter2\"]\napi_key = { hunter2 = 1 }\nurls = \"hunter2\"\n[database]\nurl = 1\n";
    let report = Given::nothing().file(file).report();
    assert!(report.contains("4 mistakes") && !report.contains("hunter2"), "{report}");
}

#[test]
fn a_secret_in_an_argument_is_a_mistake() {
    for (key, value) in [
        ("elasticsearch.password", "hunter2"),
        ("elasticsearch.api_key", "hunter2"),
        ("elasticsearch.urls", "http://elastic:hunter2@es:9200"),
        ("database.url", "postgres://me:hunter2@db/logs"),
        ("database.url", "postgres://me@db/logs?password=hunter2"),
        ("api.database_url", "postgres://me:hunter2@db/logs"),
    ] {
        let report = Given::nothing().flag(key, value).report();
        assert!(report.contains("arguments of a process"), "{key}={value}:\n{report}");
    }
    assert!(
        Given::nothing()
            .flag("database.url", "postgres://me@db/logs")
            .load()
            .is_ok()
    );
}

#[test]
fn the_printed_configuration_is_toml_with_the_source_of_every_value() {
    let given = Given::nothing()
        .file("[http]\n# where\nlisten = \"0.0.0.0:9000\"\n")
        .env("LOG_WRITER__DELIVERY__WORKERS", "8")
        .flag("log.format", "json");
    let text = given.load().unwrap().to_toml();
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(
        line("listen = \"0.0.0.0:9000\"").ends_with("given.toml, line 3"),
        "{text}"
    );
    assert!(
        line("workers = 8").ends_with("# environment LOG_WRITER__DELIVERY__WORKERS"),
        "{text}"
    );
    assert!(line("format = \"json\"").ends_with("# flag --set"), "{text}");
    assert!(line("lease = \"30s\"").ends_with("# default"), "{text}");
    assert!(line("# api_key is not set").len() < 30, "{text}");
    let again: toml::Table = toml::from_str(&text).unwrap();
    let defaults: toml::Table = toml::from_str(DEFAULT_FILE).unwrap();
    let names = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    for section in ["http", "events", "database", "elasticsearch", "delivery", "log"] {
        let (left, right) = (
            again[section].as_table().unwrap(),
            defaults[section].as_table().unwrap(),
        );
        assert_eq!(names(left), names(right), "[{section}]");
    }
}

#[test]
fn what_others_find_wrong_stands_in_the_same_report() {
    let given = Given::nothing()
        .flag("delivery.workers", "0")
        .flag("events.aliases.host", "service");
    let further = |config: &Config| {
        let name = config.events.aliases.host.join(" ");
        vec![("events.aliases.host".to_owned(), format!("`{name}` is taken"))]
    };
    let report = load_with(&given.sources, further).unwrap_err().to_string();
    let parts = [
        "2 mistakes",
        "delivery.workers = 0",
        "events.aliases.host = [\"service\"] (flag --set)",
        "`service` is taken",
    ];
    assert_in_order(&report, &parts);
}

#[test]
fn every_key_can_be_given_as_a_variable_and_as_a_flag() {
    for known in known::all() {
        let Some(default) = &known.default else { continue };
        let text = default
            .as_str()
            .map_or_else(|| super::print::value(default), str::to_owned);
        let name = variable(&known.key);
        let loaded = Given::nothing()
            .env(&name, &text)
            .load()
            .unwrap_or_else(|report| panic!("{name}={text}: {report}"));
        if !matches!(default, toml::Value::Table(_)) {
            assert_eq!(loaded.origin(&known.key).unwrap(), format!("environment {name}"));
        }
        Given::nothing()
            .flag(&known.key, &text)
            .load()
            .unwrap_or_else(|report| panic!("{report}"));
    }
}

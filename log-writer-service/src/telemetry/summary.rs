//! What a person who starts the service in a terminal wants to know: where it listens, what it writes to, what to try.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use secrecy::ExposeSecret;

use crate::{
    config::{Config, Naming, url_without_secrets},
    telemetry::logging,
};

/// Shows the summary if a person looks at the log; call it once the listener is bound.
pub fn show_on_a_terminal(config: &Config, listening: SocketAddr) {
    if logging::is_live(&config.log) {
        // A terminal that went away is no reason to stop.
        io::stderr()
            .write_all(startup_summary(config, listening).as_bytes())
            .ok();
    }
}

/// The summary, several lines, without secrets.
#[must_use]
pub fn startup_summary(config: &Config, listening: SocketAddr) -> String {
    let local = reachable(listening);
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(out, "  {name:<15} {value}").ok();
    };
    line("", "");
    line("log writer", env!("CARGO_PKG_VERSION"));
    let scheme = if config.tls.enabled { "https" } else { "http" };
    let credential = credential(config);
    line(
        "listens on",
        &format!("{scheme}://{listening}{}", who_may_come(listening)),
    );
    line("commits to", &url_without_secrets(config.database.url.expose_secret()));
    line("mirrors to", &mirror(config));
    let (past, future) = (config.events.accept_past, config.events.accept_future);
    let (past, future) = (humantime::format_duration(past), humantime::format_duration(future));
    line("accepts times", &format!("from {past} ago to {future} ahead"));
    line("", "");
    line(
        "send an event",
        &format!(
            "curl {scheme}://{local}/ingest{credential} -H 'content-type: application/json' \\\n{:20}-d '[{{\"service\":\"demo\",\"level\":\"info\",\"message\":\"hello\"}}]'",
            ""
        ),
    );
    line("state", &format!("curl {scheme}://{local}/api/v1/status{credential}"));
    line("metrics", &format!("curl {scheme}://{local}/metrics{credential}"));
    line("configuration", "log-writer-service config check");
    line("stop", "Ctrl-C");
    line("", "");
    out.lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn mirror(config: &Config) -> String {
    let section = &config.elasticsearch;
    if !section.enabled {
        return "nothing: elasticsearch.enabled is false".to_owned();
    }
    let urls: Vec<String> = section
        .urls
        .iter()
        .map(|url| url_without_secrets(url.as_str()))
        .collect();
    let tenant = config.events.default_tenant.to_lowercase();
    let target = match section.naming {
        Naming::DataStream => format!("logs-{}-{tenant}", section.dataset),
        Naming::Monthly => format!("logs-{tenant}-YYYY.MM"),
    };
    format!("{} as {target}", urls.join(", "))
}

/// What a request needs besides its body.
fn credential(config: &Config) -> &'static str {
    if config.auth.enabled {
        " -H \"authorization: Bearer $TOKEN\""
    } else {
        ""
    }
}

fn who_may_come(listening: SocketAddr) -> &'static str {
    if listening.ip().is_loopback() {
        " (this machine only; http.listen = \"0.0.0.0:8080\" for others)"
    } else {
        ""
    }
}

/// The address by which this machine reaches a listener: one that listens everywhere is reached by loopback.
#[must_use]
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => other,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use crate::config::{Sources, load};

    use super::*;

    fn configuration(settings: &[(&str, &str)]) -> Config {
        let variable = |key: &str| format!("LOG_WRITER__{}", key.to_uppercase().replace('.', "__"));
        let environment = settings.iter().map(|(key, value)| (variable(key).into(), value.into()));
        let sources = Sources {
            file: None,
            flags: Vec::new(),
            environment: environment.collect(),
            usual_file: "/nonexistent".into(),
        };
        load(&sources).unwrap().config
    }

    #[test]
    fn the_summary_says_where_and_what_to_try_and_no_password() {
        let config = configuration(&[
            ("database.url", "postgres://me:hunter2@db:5432/logs"),
            ("elasticsearch.urls", "http://elastic:hunter2@es:9200"),
            ("events.default_tenant", "Shop"),
        ]);
        let text = startup_summary(&config, SocketAddr::from(([0, 0, 0, 0], 9000)));
        for part in [
            "http://0.0.0.0:9000\n",
            "postgres://me:***@db:5432/logs",
            "http://es:9200 as logs-app-shop",
            "from 7days ago to 1h ahead",
            "curl http://127.0.0.1:9000/ingest",
            "curl http://127.0.0.1:9000/api/v1/status",
        ] {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.lines().any(|line| line.ends_with(' ')), "{text}");
    }

    #[test]
    fn the_summary_says_when_nobody_else_can_come_and_when_nothing_is_mirrored() {
        let config = configuration(&[("elasticsearch.enabled", "false")]);
        let text = startup_summary(&config, SocketAddr::from((Ipv6Addr::LOCALHOST, 8080)));
        assert!(text.contains("http://[::1]:8080 (this machine only"), "{text}");
        assert!(text.contains("nothing: elasticsearch.enabled is false"), "{text}");
    }
}

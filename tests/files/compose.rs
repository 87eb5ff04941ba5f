//! `docker-compose.elasticsearch.yml`.

use std::collections::BTreeSet;

use log_writer_tests::vector_programs::repository;
use serde_yaml_ng::Value;

use crate::{
    settings::{defaults, is_variable},
    yaml::{
        VECTOR, at, documents, list, names, port, seconds, text, vector_api_port, vector_ports, vector_target, version,
    },
};

/// Keys of a service in the Compose Specification, as far as they are used here.
const SERVICE_KEYS: [&str; 18] = [
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "profiles",
    "read_only",
    "restart",
    "security_opt",
    "shm_size",
    "stop_grace_period",
    "stop_signal",
    "ulimits",
    "volumes",
    "entrypoint",
];
const HEALTHCHECK_KEYS: [&str; 5] = ["interval", "retries", "start_period", "test", "timeout"];

fn compose() -> Value {
    let [document] = documents("docker-compose.elasticsearch.yml").try_into().unwrap();
    document
}

fn service(name: &str) -> Value {
    at(&compose(), &format!("services.{name}")).clone()
}

/// `published:target`, the variable's default taken, of every port of a service.
fn ports(service: &Value) -> Vec<(String, u16)> {
    let ports = list(service, "ports");
    ports
        .iter()
        .map(|entry| {
            let entry = entry.as_str().unwrap().split('/').next().unwrap();
            let (published, target) = entry.rsplit_once(':').unwrap();
            (published.to_owned(), target.parse().unwrap())
        })
        .collect()
}

#[test]
fn the_services_and_their_keys_are_the_ones_that_others_name() {
    let compose = compose();
    assert_eq!(names(&compose), ["name", "services", "volumes"]);
    let services: BTreeSet<_> = names(at(&compose, "services")).into_iter().collect();
    assert_eq!(
        services,
        BTreeSet::from(["elasticsearch", "kibana", "log-writer", "timescaledb", "vector"])
    );
    for name in services {
        for key in names(at(&compose, &format!("services.{name}"))) {
            assert!(SERVICE_KEYS.contains(&key), "{name}: {key}");
        }
        for key in names(at(&compose, &format!("services.{name}.healthcheck"))) {
            assert!(HEALTHCHECK_KEYS.contains(&key), "{name}: healthcheck.{key}");
        }
    }
}

#[test]
fn every_image_is_pinned_to_a_patch_version() {
    let compose = compose();
    for name in names(at(&compose, "services")) {
        let image = text(&compose, &format!("services.{name}.image")).to_owned();
        assert!(version(&image).is_some(), "{image}");
    }
    let image = |name: &str| text(&compose, &format!("services.{name}.image")).to_owned();
    assert_eq!(version(&image("elasticsearch")), version(&image("kibana")));
    assert_eq!(version(&image("vector")), Some(VECTOR));
    assert_eq!(version(&image("log-writer")), Some(env!("CARGO_PKG_VERSION")));
    let timescaledb = image("timescaledb");
    assert!(
        timescaledb.contains("-pg17") && !timescaledb.contains("oss"),
        "{timescaledb}"
    );
    for floating in ["vector:latest", "vector:0.57", "vector:0.57.x", "vector"] {
        assert_eq!(version(floating), None);
    }
}

#[test]
fn every_port_is_published_on_loopback_alone() {
    let compose = compose();
    let mut published = BTreeSet::new();
    for name in names(at(&compose, "services")) {
        let service = service(name);
        for (address, _) in ports(&service) {
            let port = address
                .strip_prefix("127.0.0.1:")
                .unwrap_or_else(|| panic!("{name}: {address}"));
            assert!(published.insert(port.to_owned()), "{name}: {port} twice");
        }
        assert!(service.get("network_mode").is_none(), "{name}");
    }
    for wanted in [
        "${TIMESCALEDB_PORT:-5432}",
        "${ELASTICSEARCH_PORT:-9200}",
        "5601",
        "8080",
    ] {
        assert!(published.contains(wanted), "{wanted}");
    }
}

#[test]
fn every_service_is_waited_for_by_a_health_check_that_exists() {
    let compose = compose();
    for name in names(at(&compose, "services")) {
        let service = service(name);
        let test = at(&service, "healthcheck.test").as_sequence().unwrap();
        assert!(
            test.len() >= 2 && matches!(test[0].as_str(), Some("CMD" | "CMD-SHELL")),
            "{name}"
        );
        let Some(needed) = service.get("depends_on") else {
            continue;
        };
        for other in names(needed) {
            assert_eq!(text(needed, &format!("{other}.condition")), "service_healthy", "{name}");
            assert!(
                at(&compose, "services")
                    .get(other)
                    .is_some_and(|other| other.get("healthcheck").is_some())
            );
        }
    }
}

#[test]
fn stores_and_kibana_start_without_a_profile_and_need_nothing_of_it() {
    for (name, profiles) in [
        ("timescaledb", 0),
        ("elasticsearch", 0),
        ("kibana", 0),
        ("log-writer", 1),
        ("vector", 1),
    ] {
        assert_eq!(list(&service(name), "profiles").len(), profiles, "{name}");
    }
    assert!(service("timescaledb").get("depends_on").is_none() && service("elasticsearch").get("depends_on").is_none());
    assert_eq!(names(at(&service("kibana"), "depends_on")), ["elasticsearch"]);
}

#[test]
fn every_mounted_file_exists_and_every_volume_is_declared() {
    let compose = compose();
    let mut used = BTreeSet::new();
    for name in names(at(&compose, "services")) {
        for volume in list(&service(name), "volumes") {
            let source = volume.as_str().unwrap().split(':').next().unwrap().to_owned();
            if let Some(file) = source.strip_prefix("./") {
                assert!(repository().join(file).is_file(), "{name}: {file}");
            } else if source != "/var/run/docker.sock" {
                used.insert(source);
            }
        }
    }
    let declared: BTreeSet<_> = names(at(&compose, "volumes")).into_iter().map(str::to_owned).collect();
    assert_eq!(used, declared);
}

#[test]
fn the_service_in_the_container_listens_where_the_others_look_for_it() {
    let service = service("log-writer");
    let defaults = defaults();
    let environment = at(&service, "environment");
    for variable in names(environment) {
        assert!(is_variable(variable), "{variable}");
    }
    let listen = port(text(environment, "LOG_WRITER__HTTP__LISTEN"));
    assert_eq!(listen, defaults.http.listen.port());
    assert_eq!(ports(&service), [(format!("127.0.0.1:{listen}"), listen)]);
    assert_eq!(
        vector_target("compose.toml"),
        format!("http://log-writer:{listen}/ingest")
    );
    for (variable, store) in [("DATABASE_URL", "timescaledb"), ("ELASTICSEARCH_URL", "elasticsearch")] {
        let url = text(environment, variable);
        let [(_, target)] = ports(&self::service(store)).try_into().unwrap();
        assert!(url.contains(&format!("{store}:{target}")), "{url}");
    }
    let database = text(&self::service("timescaledb"), "environment.POSTGRES_DB").to_owned();
    assert!(text(environment, "DATABASE_URL").ends_with(&format!("/{database}")));
    // Only because the one published port is on loopback, as asserted above.
    assert_eq!(text(environment, "LOG_WRITER__HTTP__ALLOW_UNAUTHENTICATED"), "true");
    assert!(seconds(text(&service, "stop_grace_period")) > defaults.http.drain_timeout.as_secs());
    assert!(repository().join(text(&service, "build.dockerfile")).is_file());
}

#[test]
fn vector_in_the_container_is_published_where_it_listens() {
    let vector = service("vector");
    let mut targets: Vec<_> = ports(&vector).into_iter().map(|(_, target)| target).collect();
    targets.sort_unstable();
    assert_eq!(targets, vector_ports("compose.toml"));
    let probe = text(&vector, "healthcheck.test.3").to_owned();
    assert!(
        probe.contains(&format!("/dev/tcp/127.0.0.1/{} ", vector_api_port("compose.toml"))),
        "{probe}"
    );
    let mounted = list(&vector, "volumes");
    let file = text(&vector, "command.1").to_owned();
    assert!(
        mounted
            .iter()
            .any(|volume| volume.as_str() == Some(&format!("./vector/compose.toml:{file}:ro")))
    );
}

#[test]
fn only_stores_on_loopback_go_without_a_password() {
    let text = std::fs::read_to_string(repository().join("docker-compose.elasticsearch.yml")).unwrap();
    let warning = text.find("!!! FOR DEVELOPMENT").unwrap();
    assert!(warning < text.find("services:").unwrap());
    assert!(text.contains("POSTGRES_HOST_AUTH_METHOD: trust") && text.contains("xpack.security.enabled: \"false\""));
}

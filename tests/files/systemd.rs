//! `deploy/systemd/log-writer.service`.

use std::fs;

use log_writer_tests::vector_programs::repository;

use crate::{
    settings::{defaults, is_variable},
    yaml::seconds,
};

/// Keys of systemd 250 (`systemd.unit`, `systemd.service`, `systemd.exec`, `systemd.kill`), as far as they are used here.
const KEYS: [(&str, &[&str]); 3] = [
    ("Unit", &["After", "Description", "Wants"]),
    (
        "Service",
        &[
            "AmbientCapabilities",
            "CapabilityBoundingSet",
            "DynamicUser",
            "Environment",
            "ExecStart",
            "LimitNOFILE",
            "LoadCredential",
            "LockPersonality",
            "MemoryDenyWriteExecute",
            "NoNewPrivileges",
            "PrivateDevices",
            "PrivateTmp",
            "ProcSubset",
            "ProtectClock",
            "ProtectControlGroups",
            "ProtectHome",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "ProtectKernelTunables",
            "ProtectProc",
            "ProtectSystem",
            "RemoveIPC",
            "Restart",
            "RestartSec",
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "RestrictRealtime",
            "RestrictSUIDSGID",
            "SystemCallArchitectures",
            "SystemCallFilter",
            "TimeoutStopSec",
            "Type",
            "UMask",
        ],
    ),
    ("Install", &["WantedBy"]),
];

/// Section, key and value of every line that has them.
fn entries() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(repository().join("deploy/systemd/log-writer.service")).unwrap();
    let mut section = String::new();
    let mut entries = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').unwrap().to_owned();
        } else {
            let (key, value) = line.split_once('=').unwrap();
            entries.push((section.clone(), key.to_owned(), value.to_owned()));
        }
    }
    entries
}

fn values(key: &str) -> Vec<String> {
    let found = entries().into_iter().filter(|(_, name, _)| name == key);
    found.map(|(_, _, value)| value).collect()
}

#[test]
fn every_key_stands_in_its_section() {
    for (section, key, _) in entries() {
        let (_, known) = KEYS.iter().find(|(name, _)| *name == section).unwrap();
        assert!(known.contains(&key.as_str()), "[{section}] {key}");
    }
}

#[test]
fn it_starts_the_binary_with_variables_that_exist_and_stops_it_in_time() {
    assert_eq!(values("ExecStart"), ["/usr/local/bin/log-writer-service serve"]);
    for assignment in values("Environment") {
        let (variable, _) = assignment.split_once('=').unwrap();
        assert!(is_variable(variable), "{variable}");
    }
    let [credential] = values("LoadCredential").try_into().unwrap();
    let (name, _) = credential.split_once(':').unwrap();
    assert!(values("Environment").contains(&format!("LOG_WRITER__DATABASE__URL_FILE=%d/{name}")));
    let [stop] = values("TimeoutStopSec").try_into().unwrap();
    assert!(seconds(&stop) > defaults().http.drain_timeout.as_secs());
}

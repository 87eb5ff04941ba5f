//! `deploy/kubernetes/*.yaml`.

use std::fs;

use log_writer_tests::vector_programs::repository;
use serde_yaml_ng::Value;

use crate::{
    settings::{defaults, is_variable},
    yaml::{VECTOR, at, documents, list, names, port, text, vector_api_port, vector_target, version},
};

/// Group and version of every kind that is used.
const KINDS: [(&str, &str); 8] = [
    ("ClusterRole", "rbac.authorization.k8s.io/v1"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1"),
    ("DaemonSet", "apps/v1"),
    ("Deployment", "apps/v1"),
    ("Job", "batch/v1"),
    ("PodDisruptionBudget", "policy/v1"),
    ("Service", "v1"),
    ("ServiceAccount", "v1"),
];
const POD_KEYS: [&str; 9] = [
    "automountServiceAccountToken",
    "containers",
    "restartPolicy",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
    "nodeSelector",
];
const CONTAINER_KEYS: [&str; 10] = [
    "args",
    "env",
    "image",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "volumeMounts",
];

fn all() -> Vec<Value> {
    let files = fs::read_dir(repository().join("deploy/kubernetes")).unwrap();
    let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files
        .flat_map(|file| documents(&format!("deploy/kubernetes/{file}")))
        .collect()
}

fn find(kind: &str, name: &str) -> Value {
    let found = all()
        .into_iter()
        .find(|object| text(object, "kind") == kind && text(object, "metadata.name") == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The pods of all objects that make some.
fn pods() -> Vec<(String, Value)> {
    let with_pod = all()
        .into_iter()
        .filter(|object| matches!(text(object, "kind"), "Deployment" | "DaemonSet" | "Job"));
    with_pod
        .map(|object| {
            (
                text(&object, "metadata.name").to_owned(),
                at(&object, "spec.template.spec").clone(),
            )
        })
        .collect()
}

fn variables(container: &Value) -> Vec<(String, Option<String>)> {
    let entries = list(container, "env");
    let value = |entry: &Value| entry.get("value").and_then(Value::as_str).map(str::to_owned);
    entries
        .iter()
        .map(|entry| (text(entry, "name").to_owned(), value(entry)))
        .collect()
}

#[test]
fn every_object_has_a_known_kind_and_its_pods_known_keys() {
    let objects = all();
    assert_eq!(objects.len(), 8);
    for object in &objects {
        let kind = text(object, "kind");
        assert!(KINDS.contains(&(kind, text(object, "apiVersion"))), "{kind}");
        if !kind.starts_with("ClusterRole") {
            assert_eq!(text(object, "metadata.namespace"), "log-writer", "{kind}");
        }
    }
    for (name, pod) in pods() {
        assert!(names(&pod).iter().all(|key| POD_KEYS.contains(key)), "{name}");
        let container = at(&pod, "containers.0");
        assert!(
            names(container).iter().all(|key| CONTAINER_KEYS.contains(key)),
            "{name}"
        );
        assert!(version(text(container, "image")).is_some(), "{name}");
        assert_eq!(
            at(container, "securityContext.readOnlyRootFilesystem"),
            &Value::Bool(true),
            "{name}"
        );
        assert_eq!(
            at(container, "securityContext.allowPrivilegeEscalation"),
            &Value::Bool(false),
            "{name}"
        );
        let volumes: Vec<_> = list(&pod, "volumes")
            .iter()
            .map(|volume| text(volume, "name").to_owned())
            .collect();
        let mounts: Vec<_> = list(container, "volumeMounts")
            .iter()
            .map(|mount| text(mount, "name").to_owned())
            .collect();
        assert_eq!(volumes, mounts, "{name}");
    }
}

#[test]
fn the_service_finds_the_pods_and_the_pods_the_port() {
    let deployment = find("Deployment", "log-writer");
    let labels = at(&deployment, "spec.template.metadata.labels");
    for selector in [
        at(&deployment, "spec.selector.matchLabels"),
        at(&find("Service", "log-writer"), "spec.selector"),
        at(&find("PodDisruptionBudget", "log-writer"), "spec.selector.matchLabels"),
    ] {
        assert_eq!(selector, labels);
    }
    let service = find("Service", "log-writer");
    let container = at(&deployment, "spec.template.spec.containers.0").clone();
    assert_eq!(
        text(&service, "spec.ports.0.targetPort"),
        text(&container, "ports.0.name")
    );
    let open = at(&container, "ports.0.containerPort").as_u64();
    let variables = variables(&container);
    let listen = variables
        .iter()
        .find(|(name, _)| name == "LOG_WRITER__HTTP__LISTEN")
        .unwrap()
        .1
        .clone()
        .unwrap();
    assert_eq!(open, Some(u64::from(port(&listen))));
    for (probe, path) in [("livenessProbe", "/health"), ("readinessProbe", "/ready")] {
        assert_eq!(text(&container, &format!("{probe}.httpGet.path")), path);
        assert_eq!(
            text(&container, &format!("{probe}.httpGet.port")),
            text(&container, "ports.0.name")
        );
    }
    let published = at(&service, "spec.ports.0.port").as_u64().unwrap();
    let target = format!("http://log-writer.log-writer.svc.cluster.local:{published}/ingest");
    assert_eq!(vector_target("kubernetes.toml"), target);
    let grace = at(&deployment, "spec.template.spec.terminationGracePeriodSeconds")
        .as_u64()
        .unwrap();
    let delay = variables
        .iter()
        .find(|(name, _)| name == "LOG_WRITER__HTTP__SHUTDOWN_DELAY")
        .and_then(|(_, value)| value.as_deref()?.strip_suffix('s')?.parse::<u64>().ok())
        .unwrap();
    // Then five seconds each for the tasks and for the release of claims.
    assert!(grace > delay + defaults().http.drain_timeout.as_secs() + 10);
}

#[test]
fn the_service_and_the_job_read_their_own_secret_by_variables_that_exist() {
    for (name, command, secret) in [
        ("log-writer", "serve", "log-writer"),
        ("log-writer-migrate", "migrate", "log-writer-owner"),
    ] {
        let (_, pod) = pods().into_iter().find(|(pod, _)| pod == name).unwrap();
        let container = at(&pod, "containers.0");
        assert_eq!(text(container, "args.0"), command);
        let variables = variables(container);
        for (variable, _) in &variables {
            assert!(is_variable(variable), "{name}: {variable}");
        }
        let file = variables
            .iter()
            .find(|(name, _)| name == "LOG_WRITER__DATABASE__URL_FILE")
            .unwrap()
            .1
            .clone()
            .unwrap();
        assert_eq!(
            file,
            format!("{}/database_url", text(container, "volumeMounts.0.mountPath"))
        );
        assert_eq!(text(&pod, "volumes.0.secret.secretName"), secret);
        assert_eq!(at(&pod, "securityContext.runAsNonRoot"), &Value::Bool(true));
        assert_eq!(version(text(container, "image")), Some(env!("CARGO_PKG_VERSION")));
    }
    let deployment = find("Deployment", "log-writer");
    let variables = variables(at(&deployment, "spec.template.spec.containers.0"));
    for (variable, value) in [
        ("LOG_WRITER__DATABASE__MIGRATE_ON_START", "false"),
        ("LOG_WRITER__AUTH__ENABLED", "true"),
        ("LOG_WRITER__AUTH__TOKENS_FILE", "/run/secrets/log-writer/tokens.toml"),
    ] {
        assert!(
            variables.contains(&(variable.to_owned(), Some(value.to_owned()))),
            "{variable}"
        );
    }
    assert!(
        !variables
            .iter()
            .any(|(name, _)| name.ends_with("ALLOW_UNAUTHENTICATED")),
        "other pods can connect"
    );
}

#[test]
fn the_agent_sends_the_token_of_its_secret() {
    let agent = find("DaemonSet", "vector-agent");
    let pod = at(&agent, "spec.template.spec");
    let mounted = list(at(pod, "containers.0"), "volumeMounts");
    let token = mounted.iter().find(|mount| text(mount, "name") == "token").unwrap();
    let volumes = list(pod, "volumes");
    let volume = volumes.iter().find(|volume| text(volume, "name") == "token").unwrap();
    assert_eq!(text(volume, "secret.secretName"), "vector-agent");
    let configs = log_writer_tests::vector_programs::configs().unwrap();
    let config = configs.iter().find(|config| config.name == "kubernetes.toml").unwrap();
    let backend = &config.table["secret"]["credentials"];
    assert_eq!(backend["type"].as_str(), Some("directory"));
    assert_eq!(backend["path"].as_str(), Some(text(token, "mountPath")));
    let auth = &config.table["sinks"]["log_writer"]["auth"];
    assert_eq!(auth["strategy"].as_str(), Some("bearer"));
    assert_eq!(auth["token"].as_str(), Some("SECRET[credentials.log_writer_token]"));
    let manifest = fs::read_to_string(repository().join("deploy/kubernetes/vector-agent.yaml")).unwrap();
    assert!(manifest.contains("create secret generic vector-agent --from-file=log_writer_token="));
}

#[test]
fn the_agent_runs_the_vector_whose_options_are_checked_and_leaves_itself_out() {
    let agent = find("DaemonSet", "vector-agent");
    assert_eq!(at(&agent, "spec.selector.matchLabels").as_mapping().unwrap().len(), 1);
    let labels = at(&agent, "spec.template.metadata.labels");
    assert_eq!(labels.get("vector.dev/exclude").and_then(Value::as_str), Some("true"));
    let pod = at(&agent, "spec.template.spec");
    let container = at(pod, "containers.0");
    assert_eq!(version(text(container, "image")), Some(VECTOR));
    assert_eq!(
        at(container, "ports.0.containerPort").as_u64(),
        Some(u64::from(vector_api_port("kubernetes.toml")))
    );
    assert_eq!(
        text(container, "readinessProbe.httpGet.port"),
        text(container, "ports.0.name")
    );
    assert_eq!(variables(container), [("VECTOR_SELF_NODE_NAME".to_owned(), None)]);
    let account = text(pod, "serviceAccountName");
    let binding = find("ClusterRoleBinding", "log-writer-vector-agent");
    assert_eq!(
        text(&binding, "subjects.0.name"),
        text(&find("ServiceAccount", account), "metadata.name")
    );
    assert_eq!(
        text(&binding, "roleRef.name"),
        text(&find("ClusterRole", "log-writer-vector-agent"), "metadata.name")
    );
    let (file, folder) = (text(container, "args.1"), text(container, "volumeMounts.0.mountPath"));
    assert_eq!(file, format!("{folder}/vector.toml"));
}

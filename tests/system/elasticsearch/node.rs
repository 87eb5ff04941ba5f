//! A node under test, a dataset of a test's own, and events.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use log_writer_service::{
    config,
    elasticsearch::{BulkBody, Client, DocumentId, DocumentWriter, Verdict, document_id},
    event::{StoredEvent, StoredTexts, TextColumns, Timestamp},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// 2026-11-21T00:00:00Z: no test depends on the day it runs.
pub(crate) const NOVEMBER: i64 = 1_795_219_200_000_000;

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) url: String,
    http: reqwest::Client,
    password: Option<String>,
    /// CA file of a secured node.
    pub(crate) ca: Option<String>,
}

/// A dataset of its own on a node.
#[derive(Clone)]
pub(crate) struct Dataset {
    pub(crate) node: Node,
    pub(crate) name: String,
    pub(crate) settings: config::Elasticsearch,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the servers under test are given by the environment"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: it names the Elasticsearch to test with"))
}

impl Node {
    pub(crate) fn plain() -> Self {
        Self {
            url: variable("TEST_ELASTICSEARCH_URL"),
            http: http().build().unwrap(),
            password: None,
            ca: None,
        }
    }

    pub(crate) fn secured() -> Self {
        let ca = variable("TEST_ELASTICSEARCH_SECURE_CA");
        let certificate = reqwest::Certificate::from_pem(&std::fs::read(&ca).unwrap()).unwrap();
        Self {
            url: variable("TEST_ELASTICSEARCH_SECURE_URL"),
            http: http().add_root_certificate(certificate).build().unwrap(),
            password: Some(variable("TEST_ELASTICSEARCH_SECURE_PASSWORD")),
            ca: Some(ca),
        }
    }

    /// Asks the node past the module under test; status and body.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self
            .http
            .request(method, format!("{}/{path}", self.url.trim_end_matches('/')));
        if let Some(password) = &self.password {
            request = request.basic_auth("elastic", Some(password));
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub(crate) async fn put(&self, path: &str, body: Value) {
        let (status, answer) = self.ask(Method::PUT, path, Some(body)).await;
        assert_eq!(status, 200, "PUT {path}: {answer}");
    }

    pub(crate) async fn post(&self, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(Method::POST, path, body).await;
        assert_eq!(status, 200, "POST {path}: {answer}");
        answer
    }
}

fn http() -> reqwest::ClientBuilder {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// Runs a test on a dataset of its own and removes the dataset's objects and streams, whatever came of it.
pub(crate) async fn with_dataset<F: Future<Output = ()>>(node: Node, test: impl FnOnce(Dataset) -> F) {
    let name = format!("t{:08x}", Uuid::new_v4().as_fields().0);
    let settings = settings(&node, &name);
    let dataset = Dataset { node, name, settings };
    let outcome = AssertUnwindSafe(test(dataset.clone())).catch_unwind().await;
    dataset.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn settings(node: &Node, dataset: &str) -> config::Elasticsearch {
    let mut settings = json!({
        "enabled": true, "urls": [node.url], "naming": "data_stream", "dataset": dataset, "replicas": 0,
        "refresh_interval": "1s", "bootstrap": true, "promote": {}, "gzip": "auto", "bulk_documents_max": 2000,
        "bulk_bytes_max": 5_000_000, "request_timeout": "45s"
    });
    if let (Some(ca), Some(password)) = (&node.ca, &node.password) {
        settings["ca_file"] = json!(ca);
        settings["username"] = json!("elastic");
        settings["password"] = json!(password);
    }
    serde_json::from_value(settings).unwrap()
}

impl Dataset {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.settings).unwrap()
    }

    pub(crate) fn writer(&self) -> DocumentWriter {
        DocumentWriter::new(&self.settings).unwrap()
    }

    pub(crate) fn stream(&self) -> String {
        format!("logs-{}-default", self.name)
    }

    /// Name of one of our objects.
    pub(crate) fn object(&self, file: &str) -> String {
        format!("{file}_{}", self.name)
    }

    pub(crate) fn body(&self, events: &[StoredEvent]) -> BulkBody {
        let mut body = BulkBody::new(self.settings.naming);
        let writer = self.writer();
        for event in events {
            body.push(&self.stream(), &id_of(event), event, &writer);
        }
        body
    }

    /// Sends events and expects that each of them was created.
    pub(crate) async fn index(&self, events: &[StoredEvent]) {
        let verdicts = self.client().bulk(&self.body(events)).await.unwrap();
        for (event, verdict) in events.iter().zip(&verdicts) {
            assert!(matches!(verdict, Verdict::Indexed { .. }), "{verdict:?}: {event:?}");
        }
    }

    pub(crate) async fn refresh(&self) {
        self.node.post(&format!("logs-{}-*/_refresh", self.name), None).await;
    }

    pub(crate) async fn roll_over(&self) {
        let answer = self.node.post(&format!("{}/_rollover", self.stream()), None).await;
        assert_eq!(answer["rolled_over"], true, "{answer}");
    }

    async fn remove(&self) {
        let name = &self.name;
        for path in [
            format!("_data_stream/logs-{name}-*"),
            format!("_index_template/*{name}*"),
            format!("_component_template/*{name}*"),
            format!("_ilm/policy/logs_policy_{name}"),
        ] {
            // Absent is fine; what could not be removed is under a name that nobody uses again.
            self.node.ask(Method::DELETE, &path, None).await;
        }
    }
}

/// An event whose id and time come from a number.
pub(crate) fn event(number: u32) -> StoredEvent {
    StoredEvent {
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | u128::from(number)),
        timestamp: Timestamp(NOVEMBER + i64::from(number)),
        ingested_at: Timestamp(NOVEMBER + 1_000_000),
        batch_id: 1,
        tenant: Arc::from("default"),
        texts: StoredTexts::from(TextColumns {
            level: "INFO",
            service: "checkout",
            host: Some("web-1"),
            message: &format!("payment {number} done"),
            fields: Some(r#"{"status": 200}"#),
            performance_metrics: Some(r#"{"ms": 12.5}"#),
            tags: vec!["eu"],
            ..TextColumns::default()
        }),
    }
}

pub(crate) fn id_of(event: &StoredEvent) -> DocumentId {
    document_id(event.id, event.timestamp, &event.tenant, "default")
}

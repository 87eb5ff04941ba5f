//! What a running service is asked over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::Service;
use crate::{
    client::{Answer, Connection, Receipt, Request, send},
    conditions::{SOON, eventually},
    stack::Database,
};

/// How long delivery may take: a request that is never answered is given up after `elasticsearch.request_timeout` (45 s),
/// and then sent again.
const DRAINED: Duration = Duration::from_secs(90);

impl Service {
    /// Sends a request.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn send(&self, request: &Request) -> Answer {
        send(self.address, request)
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.path))
    }

    /// Posts JSON to `/ingest`; its receipt.
    pub async fn ingest(&self, events: &Value) -> Receipt {
        self.send(&Request::json(events)).await.receipt()
    }

    /// The same as [`Service::send_until_taken`].
    pub async fn ingest_until_taken(&self, events: &Value) -> Receipt {
        self.send_until_taken(&Request::json(events)).await
    }

    /// Sends the same bytes until they are taken, as Vector does; the last receipt. Where `http.answer_timeout` is
    /// short, a slow machine needs more than one attempt.
    pub async fn send_until_taken(&self, request: &Request) -> Receipt {
        eventually("the request to be taken", SOON, || async {
            let answer = self.send(request).await;
            assert!(
                matches!(answer.status, 200 | 503),
                "{}: {}",
                answer.status,
                answer.text()
            );
            (answer.status == 200).then(|| answer.receipt())
        })
        .await
    }

    /// Sends requests over connections of their own, each without the last half of its body, and waits until every head
    /// was read: what a head announces is held from then on, and no more before the body is whole. Nothing else may be
    /// in flight.
    pub async fn send_halves(&self, requests: &[Request]) -> Vec<Connection> {
        let mut connections = Vec::new();
        for request in requests {
            let mut connection = Connection::open(self.address).await.expect("it listens");
            let bytes = request.encode();
            let first = &bytes[..bytes.len() - request.body.len().div_ceil(2)];
            connection.write(first).await.expect("it reads");
            connections.push(connection);
        }
        let announced: usize = requests.iter().map(|request| request.body.len()).sum();
        self.until_status("every head to be read", |status| {
            status["inflight"]["bytes"].as_u64() >= Some(announced as u64)
        })
        .await;
        connections
    }

    /// The same, and then the rest of each body.
    pub async fn send_begun(&self, requests: &[Request]) -> Vec<Connection> {
        let mut connections = self.send_halves(requests).await;
        for (connection, request) in connections.iter_mut().zip(requests) {
            let rest = &request.body[request.body.len() / 2..];
            connection.write(rest).await.expect("it reads");
        }
        connections
    }

    /// Waits, with `log_writer.requests` locked, until a request is held: by a committer or for one.
    pub async fn until_held(&self, database: &Database) {
        // One that connects meanwhile may wait for the lock, too, but not in a transaction.
        let locked_out = "select count(*) from pg_stat_activity where datname = current_database()
            and wait_event_type = 'Lock' and application_name like 'log-writer committer%' and query like 'begin%'";
        eventually("a request to be held", SOON, || async {
            let inflight = &self.status().await["inflight"];
            let waits = inflight["waiting"] != 0 || inflight["waiting_late"] != 0;
            (waits || database.number(locked_out).await > 0).then_some(())
        })
        .await;
    }

    /// `GET /api/v1/status`.
    pub async fn status(&self) -> Value {
        let answer = self.send(&Request::get("/api/v1/status")).await;
        assert_eq!(answer.status, 200, "status: {}", answer.text());
        answer.json()
    }

    /// The status once PostgreSQL has told all that it is asked for, for which it has half a second each time.
    pub async fn known_status(&self) -> Value {
        self.known_status_by(&Request::get("/api/v1/status")).await
    }

    /// The same by a request with a credential.
    pub async fn known_status_by(&self, request: &Request) -> Value {
        eventually("PostgreSQL to tell everything of the status", SOON, || async {
            let answer = self.send(request).await;
            assert_eq!(answer.status, 200, "status: {}", answer.text());
            let status = answer.json();
            (status["unknown"] == json!([])).then_some(status)
        })
        .await
    }

    /// Waits until the status meets a condition.
    pub async fn until_status(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(what, SOON, || async {
            let status = self.status().await;
            condition(&status).then_some(status)
        })
        .await
    }

    /// Waits until a path answers with JSON that meets a condition.
    pub async fn until_answer(&self, path: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{path} to answer as expected"), SOON, || async {
            let answer = self.send(&Request::get(path)).await;
            (answer.status == 200).then(|| answer.json()).filter(&condition)
        })
        .await
    }

    /// Waits until nothing is left to deliver.
    pub async fn until_delivered(&self) -> Value {
        eventually("the backlog to drain", DRAINED, || async {
            let status = self.status().await;
            (status["books"]["outstanding"] == 0).then_some(status)
        })
        .await
    }
}

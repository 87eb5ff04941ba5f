//! What a running service is asked over HTTP.

use serde_json::{Value, json};

use super::Service;
use crate::{
    client::{Answer, Receipt, Request, send},
    conditions::{SOON, eventually},
};

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
        self.until_status("the backlog to drain", |status| status["books"]["outstanding"] == 0)
            .await
    }
}

//! The real binary on a real TimescaleDB with an Elasticsearch that fails as told.
//!
//! `lost_answers`: what was applied although nobody said so. `refusals`: what Elasticsearch will not have. `outages`:
//! what stops a stream and must stop nothing else. `gathering`: how small claims become larger ones.
//! `replicas`: two services on one outbox. `dead_letters` and `dead_letters_kept`: the commands for what was refused.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken expectation is a failed test"
)]

mod dead_letters;
mod dead_letters_kept;
mod gathering;
mod lost_answers;
mod outages;
mod refusals;
mod replicas;

use std::ops::Range;

use chrono::Utc;
use log_writer_tests::{
    fake_elasticsearch::FakeElasticsearch,
    invariants::assert_delivered_exactly_once,
    rows::{DeadLetterRow, StoredRow, dead_letters},
    service::{Service, Settings},
    stack::Database,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// The stream of the default tenant.
const STREAM: &str = "logs-app-default";

/// A service between a database of its own and a fake.
#[derive(Debug)]
struct FakeStores {
    service: Service,
    fake: FakeElasticsearch,
    database: Database,
}

impl FakeStores {
    /// With the defaults of the tests; bootstrapped.
    async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    /// With further settings; bootstrapped.
    async fn start_with(set: impl FnOnce(Settings) -> Settings) -> Self {
        let (database, fake) = (Database::create().await, FakeElasticsearch::start().await);
        let service = Service::start(set(Settings::new(database.url(), &fake.url(), "default"))).await;
        service
            .until_status("the bootstrap", |status| {
                status["elasticsearch"]["bootstrapped"] == true
            })
            .await;
        Self {
            service,
            fake,
            database,
        }
    }

    /// Waits until everything is delivered and compares both stores.
    async fn assert_delivered_exactly_once(&self, acknowledged: u64) -> Vec<StoredRow> {
        self.service.until_delivered().await;
        let documents = self.fake.documents(STREAM);
        assert_delivered_exactly_once(&self.service, &self.database, &documents, acknowledged).await
    }

    /// Dead letters of delivery.
    async fn refused(&self) -> Vec<DeadLetterRow> {
        let mut letters = dead_letters(self.database.pool()).await;
        letters.retain(|letter| letter.stage == "index");
        letters
    }
}

/// Events with ids and times of just now.
fn fresh(count: usize) -> Value {
    numbered(0..u64::try_from(count).expect("a small number"))
}

/// The same with these numbers.
fn numbered(numbers: Range<u64>) -> Value {
    let events = numbers.map(|number| {
        json!({ "event_id": Uuid::now_v7(), "timestamp": Utc::now().to_rfc3339(), "level": "error",
            "service": "system", "message": format!("event {number}"), "number": number })
    });
    Value::Array(events.collect())
}

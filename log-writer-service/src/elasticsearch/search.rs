//! Finding events by their text: only their identity comes back, the rows are PostgreSQL's.

use chrono::{DateTime, Utc};
use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    client::{Client, read, segment},
    error::SearchError,
};

/// An event that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEvent {
    /// `@timestamp`, in microseconds.
    pub timestamp: DateTime<Utc>,
    /// `event.id`.
    pub id: Uuid,
    /// `tenant`.
    pub tenant: String,
}

impl Client {
    /// Runs a search that sorts by time, id and tenant; what it found, in its order. An index that is not there has none.
    ///
    /// # Errors
    /// See [`SearchError`]; shards that failed are one too: their events would be missing unseen.
    pub async fn search(&self, index: &str, body: &Value) -> Result<Vec<FoundEvent>, SearchError> {
        #[derive(Deserialize)]
        struct Answer {
            timed_out: bool,
            #[serde(rename = "_shards")]
            shards: Shards,
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Shards {
            failed: u64,
        }
        #[derive(Deserialize)]
        struct Hits {
            hits: Vec<Hit>,
        }
        #[derive(Deserialize)]
        struct Hit {
            sort: (DateTime<Utc>, Uuid, String),
        }
        let path = format!(
            "{}/_search?ignore_unavailable=true&allow_partial_search_results=false",
            segment(index)
        );
        let request = "POST /_search";
        let answer: Answer = read(request, &self.call(Method::Post, &path, Some(body)).await?)?;
        if answer.timed_out || answer.shards.failed > 0 {
            return Err(SearchError::Unreadable {
                request: request.to_owned(),
                detail: "not all shards answered".to_owned(),
            });
        }
        let found = answer.hits.hits.into_iter().map(|hit| {
            let (timestamp, id, tenant) = hit.sort;
            FoundEvent { timestamp, id, tenant }
        });
        Ok(found.collect())
    }
}

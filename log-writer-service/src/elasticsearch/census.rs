//! What a comparison of both stores asks Elasticsearch: counts by time, documents by time and id, a random few whole.
//!
//! Searches see what was refreshed, so what they miss may be there; the caller looks it up by id (`lookup`). Shards that fail are
//! an error: their documents would be missing unseen.

use chrono::{DateTime, Utc};
use elasticsearch::http::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    client::{Client, read, segment},
    document_id::DocumentId,
    error::SearchError,
};
use crate::event::Timestamp;

/// Buckets of one answer; Elasticsearch allows 65,536.
const BUCKETS: usize = 10_000;

/// Documents of a tenant within a bucket of time.
#[derive(Debug, Clone, PartialEq)]
pub struct SummedBucket {
    /// Whose; `None` for documents that name nobody.
    pub tenant: Option<String>,
    /// Its beginning.
    pub start: Timestamp,
    /// Documents, copies included.
    pub documents: i64,
    /// Sum of `event.id_tail`; exact up to 2^53.
    pub tails: f64,
}

/// A document that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDocument {
    /// The index that holds it.
    pub index: String,
    /// Its `_id`.
    pub id: DocumentId,
    /// `@timestamp`, in microseconds.
    pub timestamp: Timestamp,
    /// `event.id`; `None` if it has none that is a UUID.
    pub event: Option<Uuid>,
    /// Where the next page begins.
    sort: Value,
}

/// A range of time: from, until.
pub type Range = (Timestamp, Timestamp);

#[derive(Deserialize)]
struct Answer<A, S> {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: Hits<S>,
    aggregations: Option<A>,
}

#[derive(Deserialize)]
struct Shards {
    failed: u64,
}

#[derive(Deserialize)]
struct Hits<S> {
    hits: Vec<Hit<S>>,
}

#[derive(Deserialize)]
struct Hit<S> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    sort: Value,
    #[serde(rename = "_source")]
    source: Option<S>,
}

#[derive(Deserialize)]
struct Aggregations {
    by_time: Composite,
}

#[derive(Deserialize)]
struct Composite {
    after_key: Option<Value>,
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    key: Key,
    doc_count: i64,
    tails: Sum,
}

#[derive(Deserialize)]
struct Key {
    tenant: Option<String>,
    start: i64,
}

#[derive(Deserialize)]
struct Sum {
    value: f64,
}

impl Client {
    /// Time of the first document in a range; `None` if there is none, or no such index.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn first_document(&self, indices: &str, range: Range) -> Result<Option<Timestamp>, SearchError> {
        let body = json!({
            "size": 1, "_source": false, "track_total_hits": false,
            "query": in_range(range, &[]), "sort": [by_time()],
        });
        let answer: Answer<Value, Value> = self.census(indices, &body).await?;
        let first = answer.hits.hits.first();
        first.map(|hit| sort_time(hit.sort.get(0))).transpose()
    }

    /// Counts documents and sums their ids' tails, by tenant and bucket of so many seconds; one tenant's if it is named.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn sum_buckets(
        &self,
        indices: &str,
        range: Range,
        seconds: u64,
        tenant: Option<&str>,
    ) -> Result<Vec<SummedBucket>, SearchError> {
        let tenants: Vec<Value> = tenant.map(|tenant| of_tenant(Some(tenant))).into_iter().collect();
        let mut buckets = Vec::new();
        let mut after: Option<Value> = None;
        loop {
            let mut by_time = json!({ "size": BUCKETS, "sources": [
                { "tenant": { "terms": { "field": "tenant", "missing_bucket": true } } },
                { "start": { "date_histogram": { "field": "@timestamp", "fixed_interval": format!("{seconds}s") } } },
            ] });
            if let (Some(after), Some(composite)) = (after.take(), by_time.as_object_mut()) {
                composite.insert("after".to_owned(), after);
            }
            let body = json!({
                "size": 0, "track_total_hits": false, "query": in_range(range, &tenants),
                "aggs": { "by_time": { "composite": by_time, "aggs": { "tails": { "sum": { "field": "event.id_tail" } } } } },
            });
            let answer: Answer<Aggregations, Value> = self.census(indices, &body).await?;
            // Absent if there is no index.
            let Some(Aggregations { by_time }) = answer.aggregations else {
                return Ok(buckets);
            };
            buckets.extend(by_time.buckets.into_iter().map(|bucket| SummedBucket {
                tenant: bucket.key.tenant,
                start: Timestamp(bucket.key.start.saturating_mul(1000)),
                documents: bucket.doc_count,
                tails: bucket.tails.value,
            }));
            after = by_time.after_key;
            if after.is_none() {
                return Ok(buckets);
            }
        }
    }

    /// The next documents of a tenant within a range, by time and event id, after the last one that is known.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn documents(
        &self,
        indices: &str,
        tenant: Option<&str>,
        range: Range,
        after: Option<&FoundDocument>,
        limit: usize,
    ) -> Result<Vec<FoundDocument>, SearchError> {
        let mut body = json!({
            "size": limit, "_source": false, "track_total_hits": false,
            "query": in_range(range, &[of_tenant(tenant)]),
            // Copies of one document differ in their index alone.
            "sort": [by_time(), { "event.id": "asc" }, { "_index": "asc" }],
        });
        if let (Some(after), Some(body)) = (after, body.as_object_mut()) {
            body.insert("search_after".to_owned(), after.sort.clone());
        }
        let answer: Answer<Value, Value> = self.census(indices, &body).await?;
        answer
            .hits
            .hits
            .into_iter()
            .map(|hit| {
                let event = hit.sort.get(1).and_then(Value::as_str);
                Ok(FoundDocument {
                    timestamp: sort_time(hit.sort.get(0))?,
                    event: event.and_then(|id| id.parse().ok()),
                    index: hit.index,
                    id: DocumentId::known(hit.id),
                    sort: hit.sort,
                })
            })
            .collect()
    }

    /// A few documents of a tenant within a range, chosen at random, with what they hold.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn sample(
        &self,
        indices: &str,
        tenant: &str,
        range: Range,
        count: usize,
    ) -> Result<Vec<(String, DocumentId, Value)>, SearchError> {
        let body = json!({
            "size": count, "track_total_hits": false,
            "query": { "function_score": { "query": in_range(range, &[of_tenant(Some(tenant))]), "random_score": {} } },
        });
        let answer: Answer<Value, Value> = self.census(indices, &body).await?;
        let sampled = answer.hits.hits.into_iter();
        Ok(sampled
            .map(|hit| (hit.index, DocumentId::known(hit.id), hit.source.unwrap_or_default()))
            .collect())
    }

    async fn census<A: DeserializeOwned, S: DeserializeOwned>(
        &self,
        indices: &str,
        body: &Value,
    ) -> Result<Answer<A, S>, SearchError> {
        let path = format!(
            "{}/_search?ignore_unavailable=true&allow_partial_search_results=false",
            segment(indices)
        );
        let answer: Answer<A, S> = read(REQUEST, &self.call(Method::Post, &path, Some(body)).await?)?;
        if answer.timed_out || answer.shards.failed > 0 {
            return Err(unreadable("not all shards answered"));
        }
        Ok(answer)
    }
}

const REQUEST: &str = "POST /_search";

fn unreadable(detail: &str) -> SearchError {
    SearchError::Unreadable {
        request: REQUEST.to_owned(),
        detail: detail.to_owned(),
    }
}

fn by_time() -> Value {
    json!({ "@timestamp": { "order": "asc", "format": "strict_date_optional_time_nanos" } })
}

fn sort_time(value: Option<&Value>) -> Result<Timestamp, SearchError> {
    let time = value
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<DateTime<Utc>>().ok());
    time.map(Timestamp::from)
        .ok_or_else(|| unreadable("a time that cannot be read"))
}

fn in_range((from, until): Range, more: &[Value]) -> Value {
    let mut filters =
        vec![json!({ "range": { "@timestamp": { "gte": from.to_rfc3339(), "lt": until.to_rfc3339() } } })];
    filters.extend_from_slice(more);
    json!({ "bool": { "filter": filters } })
}

fn of_tenant(tenant: Option<&str>) -> Value {
    match tenant {
        Some(tenant) => json!({ "term": { "tenant": tenant } }),
        None => json!({ "bool": { "must_not": { "exists": { "field": "tenant" } } } }),
    }
}

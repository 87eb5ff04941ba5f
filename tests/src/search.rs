//! The real Elasticsearch as a test asks it: plain JSON over HTTP, and all documents of a stream.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::stack::required;

/// One document of a data stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its `_id`.
    pub id: String,
    /// The backing index that holds it.
    pub index: String,
    /// Its `_source`.
    pub source: Value,
}

/// A client that knows no retries and no types: what the server says is what the test sees.
#[derive(Debug, Clone)]
pub struct Search {
    url: String,
    client: reqwest::Client,
}

impl Search {
    /// For the cluster at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        // Chosen here too: two providers may be compiled in, and the first use must not depend on the order of tests.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            client: reqwest::Client::builder().no_proxy().build().expect("no HTTP client"),
        }
    }

    /// The secured cluster of the tests, as its superuser.
    ///
    /// # Panics
    /// If one of the variables `TEST_ELASTICSEARCH_SECURE_…` is missing.
    #[must_use]
    pub fn secured() -> Self {
        let plain = Self::new(&required(
            "TEST_ELASTICSEARCH_SECURE_URL",
            "an Elasticsearch with security on",
        ));
        let pair = format!("elastic:{}", secured_password());
        let mut credential = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).expect("a header");
        credential.set_sensitive(true);
        let ca = std::fs::read(secured_ca()).expect("the file of the cluster's CA");
        let client = reqwest::Client::builder()
            .no_proxy()
            .add_root_certificate(reqwest::Certificate::from_pem(&ca).expect("a certificate"))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, credential)]))
            .build()
            .expect("no HTTP client");
        Self { client, ..plain }
    }

    /// URL of the cluster.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// One request; the answer's status and JSON (`null` for an empty body).
    ///
    /// # Errors
    /// If the cluster cannot be reached.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), reqwest::Error> {
        self.call_with(method, path, "application/json", body.map(Value::to_string))
            .await
    }

    /// One request with a body of any type, as `_bulk` takes.
    ///
    /// # Errors
    /// If the cluster cannot be reached.
    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<impl Into<reqwest::Body>>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("not a method");
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", content_type).body(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// One request that must succeed.
    ///
    /// # Panics
    /// With the answer, if it is another than 2xx.
    pub async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self
            .call(method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Makes everything written so far visible to a search.
    pub async fn refresh(&self, stream: &str) {
        let path = format!("/{stream}/_refresh");
        let (status, answer) = self.call("POST", &path, None).await.expect("cannot refresh");
        assert!(matches!(status, 200 | 404), "{path}: {status} {answer}");
    }

    /// Documents that a search finds now, without a refresh; 0 if there is no such stream.
    pub async fn count(&self, stream: &str, query: &Value) -> u64 {
        let path = format!("/{stream}/_count");
        match self.call("POST", &path, Some(&json!({ "query": query }))).await {
            Ok((200, answer)) => answer["count"].as_u64().expect("no count"),
            Ok((404 | 503, _)) => 0,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// All documents of a stream, after a refresh; none if there is no such stream.
    pub async fn documents(&self, stream: &str) -> Vec<Document> {
        self.refresh(stream).await;
        self.some_documents(stream, usize::MAX).await
    }

    /// Documents of a stream that a search finds now, as many as are asked for or all that there are.
    pub async fn some_documents(&self, stream: &str, most: usize) -> Vec<Document> {
        let first = json!({ "size": 2000, "sort": ["_doc"] });
        let hits = self.hits(stream, &first, most).await;
        hits.into_iter()
            .take(most)
            .map(|mut hit| Document {
                id: text(&hit["_id"]),
                index: text(&hit["_index"]),
                source: hit["_source"].take(),
            })
            .collect()
    }

    /// `_id` of every document that a query finds now, doubles included.
    pub async fn ids(&self, stream: &str, query: &Value) -> Vec<String> {
        let first = json!({ "size": 10_000, "sort": ["_doc"], "_source": false, "query": query });
        let hits = self.hits(stream, &first, usize::MAX).await;
        hits.iter().map(|hit| text(&hit["_id"])).collect()
    }

    async fn hits(&self, stream: &str, first: &Value, most: usize) -> Vec<Value> {
        let (status, mut page) = self
            .call("POST", &format!("/{stream}/_search?scroll=1m"), Some(first))
            .await
            .expect("cannot search");
        if status == 404 {
            return Vec::new();
        }
        assert_eq!(status, 200, "cannot search {stream}: {page}");
        let mut all = Vec::new();
        loop {
            let scroll = page["_scroll_id"].clone();
            let hits = page["hits"]["hits"]
                .as_array_mut()
                .map(std::mem::take)
                .unwrap_or_default();
            if hits.is_empty() || all.len() >= most {
                self.ok("DELETE", "/_search/scroll", Some(&json!({ "scroll_id": scroll })))
                    .await;
                return all;
            }
            all.extend(hits);
            page = self
                .ok(
                    "POST",
                    "/_search/scroll",
                    Some(&json!({ "scroll": "1m", "scroll_id": scroll })),
                )
                .await;
        }
    }

    /// Backing indices of a stream, oldest first; none if there is no such stream.
    pub async fn backing_indices(&self, stream: &str) -> Vec<String> {
        let (status, answer) = self
            .call("GET", &format!("/_data_stream/{stream}"), None)
            .await
            .expect("cannot ask for the stream");
        if status == 404 {
            return Vec::new();
        }
        answer["data_streams"][0]["indices"]
            .as_array()
            .unwrap_or_else(|| panic!("no indices in {answer}"))
            .iter()
            .map(|index| text(&index["index_name"]))
            .collect()
    }
}

/// File of the CA of the secured cluster.
///
/// # Panics
/// If the variable is missing.
#[must_use]
pub fn secured_ca() -> String {
    required("TEST_ELASTICSEARCH_SECURE_CA", "an Elasticsearch with security on")
}

/// Password of its superuser `elastic`.
///
/// # Panics
/// If the variable is missing.
#[must_use]
pub fn secured_password() -> String {
    required(
        "TEST_ELASTICSEARCH_SECURE_PASSWORD",
        "an Elasticsearch with security on",
    )
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
        .to_owned()
}

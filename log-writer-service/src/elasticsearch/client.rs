//! The connection to the cluster: nodes in turn, credentials, TLS, compression, time limits.
//!
//! Hides the client crate, an alpha: nothing of it is seen outside this file. It has no retries and takes nodes blindly
//! in turn, so the nodes are chosen here: a node that did not answer is set aside for a while, and where nothing was
//! sent yet (no connection) the next one is asked at once. Anything else is the caller's decision, since it may have
//! been applied.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use elasticsearch::http::{Method, headers::HeaderMap};
use serde::Deserialize;
use serde_json::Value;

use super::{
    bulk_request::BulkBody,
    bulk_response,
    error::{BulkFailure, SearchError, read_refusal},
    node::{Answer, NoAnswer, Node, compress, lines_headers},
    verdict::{self, Verdict},
};
use crate::config;

/// How long a node that did not answer is asked only if no other is left.
const SET_ASIDE: Duration = Duration::from_secs(30);

/// The cluster as `GET /` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its name.
    pub name: String,
    /// Version of the node that answered, such as `8.19.2`.
    pub version: String,
}

/// A cluster; cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Vec<Node>,
    next: AtomicUsize,
    started: Instant,
    timeout: Duration,
    naming: config::Naming,
}

/// Lines for `_bulk`, or JSON.
pub(super) enum Payload {
    Json(Bytes),
    Lines(Bytes),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&str> = self.inner.nodes.iter().map(|node| node.name.as_str()).collect();
        f.debug_struct("Client").field("nodes", &nodes).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares the connections; asks nothing yet. A default `rustls` provider must have been installed.
    ///
    /// # Errors
    /// [`SearchError::Settings`]: no URL, credentials in a URL, a CA file that cannot be read.
    pub fn new(settings: &config::Elasticsearch) -> Result<Self, SearchError> {
        if settings.urls.is_empty() {
            return Err(SearchError::Settings("elasticsearch.urls is empty".to_owned()));
        }
        let nodes = settings
            .urls
            .iter()
            .map(|url| Node::new(settings, url))
            .collect::<Result<_, _>>()?;
        let inner = Inner {
            nodes,
            next: AtomicUsize::new(0),
            started: Instant::now(),
            timeout: settings.request_timeout,
            naming: settings.naming,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How this client's indices are named.
    pub(super) fn naming(&self) -> config::Naming {
        self.inner.naming
    }

    /// Asks for the cluster's name and version.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn info(&self) -> Result<ClusterInfo, SearchError> {
        #[derive(Deserialize)]
        struct Root {
            cluster_name: String,
            version: RootVersion,
        }
        #[derive(Deserialize)]
        struct RootVersion {
            number: String,
        }
        let body = self.call(Method::Get, "", None).await?;
        let mut root = read("GET /", &body);
        if let Err(SearchError::Unreadable { detail, .. }) = &mut root {
            detail.push_str("; is what elasticsearch.urls names an Elasticsearch?");
        }
        let root: Root = root?;
        Ok(ClusterInfo {
            name: root.cluster_name,
            version: root.version.number,
        })
    }

    /// Sends documents; one verdict for each, in order.
    ///
    /// # Errors
    /// A [`BulkFailure`] is about the request as a whole; after `Unanswered` and `Miscounted` documents may be indexed.
    ///
    /// # Cancel safety
    /// Dropping it is like losing the answer: the documents may be indexed.
    pub async fn bulk(&self, body: &BulkBody) -> Result<Vec<Verdict>, BulkFailure> {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.lines(body.path(), body.lines()).await?;
        if body.creates() {
            bulk_response::read_created(&answer, body.len())
        } else {
            bulk_response::read_overwritten(&answer, body.len())
        }
    }

    /// Sends lines to `_bulk` and takes what is no 200 for a failure of the whole request.
    pub(super) async fn lines(&self, path: &str, lines: Bytes) -> Result<Bytes, BulkFailure> {
        let answer = self
            .ask(Method::Post, path, Some(Payload::Lines(lines)))
            .await
            .map_err(|failure| {
                if failure.nothing_sent {
                    BulkFailure::Unreachable(failure.detail)
                } else {
                    BulkFailure::Unanswered(failure.detail)
                }
            })?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(verdict::judge_request(answer.status, read_refusal(&answer.body)))
    }

    /// Asks for JSON; a status that is no 2xx is an error.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, SearchError> {
        let request = || format!("{} /{}", name_of(method), path.split('?').next().unwrap_or_default());
        let payload = body.map(|value| Payload::Json(Bytes::from(value.to_string())));
        let answer = self
            .ask(method, path, payload)
            .await
            .map_err(|failure| SearchError::Unanswered {
                request: request(),
                detail: failure.detail,
            })?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let refusal = read_refusal(&answer.body);
        Err(SearchError::Refused {
            request: request(),
            status: answer.status,
            error_type: refusal.error_type.unwrap_or_else(|| "unknown".to_owned()),
            reason: refusal.reason,
        })
    }

    /// One request to the first node that takes the connection.
    async fn ask(&self, method: Method, path: &str, payload: Option<Payload>) -> Result<Answer, NoAnswer> {
        let mut compressed = None;
        let mut last = NoAnswer::unsent(String::new());
        for node in self.nodes_in_turn() {
            let (headers, body) = match &payload {
                None => (HeaderMap::new(), None),
                Some(Payload::Json(bytes)) => (HeaderMap::new(), Some(bytes.clone())),
                Some(Payload::Lines(bytes)) if !node.gzip => (lines_headers(false), Some(bytes.clone())),
                Some(Payload::Lines(bytes)) => {
                    if compressed.is_none() {
                        compressed = Some(compress(bytes.clone()).await.map_err(NoAnswer::unsent)?);
                    }
                    (lines_headers(true), compressed.clone())
                }
            };
            match node.send(method, path, headers, body, self.inner.timeout).await {
                Ok(answer) => {
                    node.aside_until.store(0, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => {
                    let until = self.inner.started.elapsed().saturating_add(SET_ASIDE).as_millis();
                    node.aside_until
                        .store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
                    last = failure;
                    if !last.nothing_sent {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// All nodes, starting with the next in turn; those set aside come last.
    fn nodes_in_turn(&self) -> Vec<&Node> {
        let Inner { nodes, next, .. } = &*self.inner;
        let first = next.fetch_add(1, Ordering::Relaxed) % nodes.len().max(1);
        let now = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut order: Vec<&Node> = nodes.iter().cycle().skip(first).take(nodes.len()).collect();
        order.sort_by_key(|node| node.aside_until.load(Ordering::Relaxed) > now);
        order
    }
}

/// Reads an answer as JSON.
pub(super) fn read<'a, T: Deserialize<'a>>(request: &str, body: &'a [u8]) -> Result<T, SearchError> {
    serde_json::from_slice(body).map_err(|error| SearchError::Unreadable {
        request: request.to_owned(),
        detail: format!(
            "it is not Elasticsearch's JSON ({:?} at column {})",
            error.classify(),
            error.column()
        ),
    })
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' | b',' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn name_of(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Put => "PUT",
        Method::Post => "POST",
        Method::Delete => "DELETE",
        Method::Head => "HEAD",
    }
}

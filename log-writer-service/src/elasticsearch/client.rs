//! The connection to the cluster: nodes in turn, credentials, TLS, compression, time limits.
//!
//! Hides the client crate, an alpha: nothing of it is seen outside this file. It has no retries and takes nodes blindly
//! in turn, so the nodes are chosen here: a node that did not answer is set aside for a while, and where nothing was
//! sent yet (no connection) the next one is asked at once. Anything else is the caller's decision, since it may have
//! been applied.

use std::{
    fmt,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use elasticsearch::{
    Elasticsearch,
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method,
        headers::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, TransportBuilder},
    },
};
use flate2::{Compression, write::GzEncoder};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use url::{Host, Url};

use super::{
    bulk_request::BulkBody,
    bulk_response,
    error::{BulkFailure, SearchError, read_refusal},
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

struct Node {
    connection: Elasticsearch,
    /// Host and port.
    name: String,
    gzip: bool,
    /// Milliseconds after `started` until which others are asked first.
    aside_until: AtomicU64,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
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
            .map(|url| node(settings, url))
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
        let root: Root = read("GET /", &self.call(Method::Get, "", None).await?)?;
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
        bulk_response::read_created(&answer, body.len())
    }

    /// Sends lines to `_bulk` and takes what is no 200 for a failure of the whole request.
    pub(super) async fn lines(&self, path: &str, lines: Bytes) -> Result<Bytes, BulkFailure> {
        let answer = self
            .ask(Method::Post, path, Some(Payload::Lines(lines)))
            .await
            .map_err(BulkFailure::Unanswered)?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(verdict::judge_request(
            answer.status,
            read_refusal(&answer.body).error_type,
        ))
    }

    /// Asks for JSON; a status that is no 2xx is an error.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, SearchError> {
        let request = || format!("{} /{}", name_of(method), path.split('?').next().unwrap_or_default());
        let payload = body.map(|value| Payload::Json(Bytes::from(value.to_string())));
        let answer = self
            .ask(method, path, payload)
            .await
            .map_err(|detail| SearchError::Unanswered {
                request: request(),
                detail,
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
    async fn ask(&self, method: Method, path: &str, payload: Option<Payload>) -> Result<Answer, String> {
        let mut compressed = None;
        let mut last = String::new();
        for node in self.nodes_in_turn() {
            let (headers, body) = match &payload {
                None => (HeaderMap::new(), None),
                Some(Payload::Json(bytes)) => (HeaderMap::new(), Some(bytes.clone())),
                Some(Payload::Lines(bytes)) if !node.gzip => (lines_headers(false), Some(bytes.clone())),
                Some(Payload::Lines(bytes)) => {
                    if compressed.is_none() {
                        compressed = Some(compress(bytes.clone()).await?);
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
                    last = failure.detail;
                    if !failure.nothing_sent {
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

/// A request that brought no answer.
struct NoAnswer {
    detail: String,
    /// No connection came about: it cannot have been applied.
    nothing_sent: bool,
}

impl Node {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let sent = self
            .connection
            .send(method, path, headers, Option::<&()>::None, body, Some(timeout))
            .await;
        let response = sent.map_err(|error| self.no_answer(&error, timeout))?;
        let status = response.status_code().as_u16();
        // What was read of a body that broke off is no answer.
        let body = response
            .bytes()
            .await
            .map_err(|error| self.no_answer(&error, timeout))?;
        Ok(Answer { status, body })
    }

    /// Says what happened by the causes below the request error, whose own text is the URL.
    fn no_answer(&self, error: &elasticsearch::Error, timeout: Duration) -> NoAnswer {
        let request_error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<reqwest::Error>());
        let nothing_sent = request_error.is_some_and(reqwest::Error::is_connect);
        let mut detail = self.name.clone();
        if error.is_timeout() {
            detail.push_str(&format!(": nothing within {} s", timeout.as_secs()));
        }
        let mut cause = request_error.and_then(std::error::Error::source);
        if cause.is_none() && request_error.is_none() {
            detail.push_str(&format!(": {error}"));
        }
        while let Some(error) = cause {
            detail.push_str(&format!(": {error}"));
            cause = error.source();
        }
        NoAnswer { detail, nothing_sent }
    }
}

fn node(settings: &config::Elasticsearch, url: &Url) -> Result<Node, SearchError> {
    let name = format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    );
    if !url.username().is_empty() || url.password().is_some() {
        let advice = "credentials belong in elasticsearch.username and elasticsearch.password";
        return Err(SearchError::Settings(format!(
            "the URL of {name} holds a user: {advice}"
        )));
    }
    // No proxy from the environment: bulk bodies go to the named nodes and nowhere else.
    let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url.clone()))
        .disable_proxy()
        .enable_meta_header(false);
    if let Some(credentials) = credentials(settings)? {
        builder = builder.auth(credentials);
    }
    if let Some(path) = &settings.ca_file {
        let unusable = |why: String| SearchError::Settings(format!("elasticsearch.ca_file {}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let certificate = Certificate::from_pem(&pem).map_err(|_| unusable("holds no PEM certificate".to_owned()))?;
        builder = builder.cert_validation(CertificateValidation::Full(certificate));
    }
    let transport = builder
        .build()
        .map_err(|error| SearchError::Settings(format!("connection to {name}: {error}")))?;
    Ok(Node {
        connection: Elasticsearch::new(transport),
        name,
        gzip: match settings.gzip {
            config::Gzip::Always => true,
            config::Gzip::Never => false,
            config::Gzip::Auto => !is_loopback(url),
        },
        aside_until: AtomicU64::new(0),
    })
}

fn credentials(settings: &config::Elasticsearch) -> Result<Option<Credentials>, SearchError> {
    if let Some(key) = &settings.api_key {
        let key = key.expose_secret().trim();
        // The crate panics on a key that is no header value.
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let advice = "write the encoded key as Kibana shows it";
            return Err(SearchError::Settings(format!(
                "elasticsearch.api_key is no API key: {advice}"
            )));
        }
        return Ok(Some(Credentials::EncodedApiKey(key.to_owned())));
    }
    match (&settings.username, &settings.password) {
        (Some(user), Some(password)) => Ok(Some(Credentials::Basic(
            user.clone(),
            password.expose_secret().to_owned(),
        ))),
        (None, None) => Ok(None),
        _ => Err(SearchError::Settings(
            "elasticsearch.username and elasticsearch.password go together".to_owned(),
        )),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

fn lines_headers(gzip: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
}

/// Gzip level 1 on a blocking thread: 5 MB take about 6 ms.
async fn compress(plain: Bytes) -> Result<Bytes, String> {
    let work = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 6), Compression::new(1));
        encoder.write_all(&plain)?;
        encoder.finish()
    });
    match work.await {
        Ok(Ok(bytes)) => Ok(Bytes::from(bytes)),
        Ok(Err(error)) => Err(format!("gzip: {error}")),
        Err(error) => Err(format!("gzip: {error}")),
    }
}

/// Reads an answer as JSON.
pub(super) fn read<'a, T: Deserialize<'a>>(request: &str, body: &'a [u8]) -> Result<T, SearchError> {
    serde_json::from_slice(body).map_err(|error| SearchError::Unreadable {
        request: request.to_owned(),
        detail: format!("{:?} at column {}", error.classify(), error.column()),
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

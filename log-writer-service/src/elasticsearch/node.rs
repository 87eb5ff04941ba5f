//! One node: its connection, credentials, TLS and compression. Nothing of the client crate but this is needed of it.

use std::{io::Write as _, sync::atomic::AtomicU64, time::Duration};

use bytes::Bytes;
use elasticsearch::{
    Elasticsearch,
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method,
        headers::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, TransportBuilder},
    },
};
use flate2::{Compression, write::GzEncoder};
use secrecy::ExposeSecret;
use url::{Host, Url};

use super::error::SearchError;
use crate::config;

/// A node of the cluster.
pub(super) struct Node {
    connection: Elasticsearch,
    /// Host and port.
    pub(super) name: String,
    pub(super) gzip: bool,
    /// Milliseconds after `started` until which others are asked first.
    pub(super) aside_until: AtomicU64,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// A request that brought no answer.
pub(super) struct NoAnswer {
    pub(super) detail: String,
    /// No connection came about: it cannot have been applied.
    pub(super) nothing_sent: bool,
}

impl NoAnswer {
    pub(super) fn unsent(detail: String) -> Self {
        let nothing_sent = true;
        Self { detail, nothing_sent }
    }
}

impl Node {
    /// Prepares the connection; asks nothing yet.
    pub(super) fn new(settings: &config::Elasticsearch, url: &Url) -> Result<Self, SearchError> {
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
            let unusable =
                |why: String| SearchError::Settings(format!("elasticsearch.ca_file {}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let certificate =
                Certificate::from_pem(&pem).map_err(|_| unusable("holds no PEM certificate".to_owned()))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder
            .build()
            .map_err(|error| SearchError::Settings(format!("connection to {name}: {error}")))?;
        Ok(Self {
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

    /// Sends one request and reads the answer whole.
    pub(super) async fn send(
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

/// Headers of a `_bulk`; its answer is asked for compressed only if the bulk is.
pub(super) fn lines_headers(gzip: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    headers
}

/// Gzip level 1 on a blocking thread: 5 MB take about 6 ms.
pub(super) async fn compress(plain: Bytes) -> Result<Bytes, String> {
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::TcpListener,
    };

    use super::{super::test_settings::settings, *};

    /// Lines of a request's head, in lower case.
    async fn head_of_next(listener: &TcpListener) -> Vec<String> {
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let mut head = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
            head.push(line.to_lowercase());
        }
        head
    }

    #[tokio::test]
    async fn answers_to_bulks_are_asked_for_as_bulks_are_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let node = Node::new(&settings(), &url).unwrap();
        for (gzip, expected) in [(false, "accept-encoding: identity"), (true, "accept-encoding: gzip")] {
            let body = Some(Bytes::from_static(b"{}\n"));
            let head = tokio::select! {
                head = head_of_next(&listener) => head,
                _ = node.send(Method::Post, "_bulk", lines_headers(gzip), body, Duration::from_secs(60)) => Vec::new(),
            };
            assert!(head.iter().any(|line| line == expected), "{expected}: {head:?}");
        }
    }
}

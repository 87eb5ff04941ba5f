//! A small HTTP/1.1 client that sends exactly the bytes it is told to: header names, order and body as recorded.
//!
//! A client library would add, merge or lower-case headers; here they are part of what is tested. An answer without
//! `Content-Length` is an error: Vector drops a batch whose 200 breaks off, so the service always says how long it is.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// How long one answer may take before the test fails; above the service's own `answer_timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One request, sent as it is; `Host` and `Content-Length` are added.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST`, `PUT`, …
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Header lines in the order they are sent, without `Host` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A request without headers of its own.
    #[must_use]
    pub fn new(method: &str, path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// `GET` of a path.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path, Bytes::new())
    }

    /// `POST /ingest` with a body of JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::new("POST", "/ingest", body.to_string()).header("content-type", "application/json")
    }

    /// `POST /ingest` with a body of text lines.
    #[must_use]
    pub fn text(body: &str) -> Self {
        Self::new("POST", "/ingest", body.to_owned()).header("content-type", "text/plain")
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: 127.0.0.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT") {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none: the test's claim about the answer is wrong.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("answer {} is no JSON ({error}): {}", self.status, self.text()))
    }

    /// The receipt of a 200.
    ///
    /// # Panics
    /// If the answer is another one or a member is missing.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        assert_eq!(self.status, 200, "expected a receipt, got: {}", self.text());
        let body = self.json();
        let number = |name: &str| {
            body[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no `{name}` in the receipt {body}"))
        };
        assert!(body["batch_id"].is_number(), "no `batch_id` in the receipt {body}");
        Receipt {
            received: number("received"),
            committed: number("committed"),
            duplicates: number("duplicates"),
            dead_lettered: number("dead_lettered"),
        }
    }
}

/// What a 200 says became of a request's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Events found in the body.
    pub received: u64,
    /// Stored by this request.
    pub committed: u64,
    /// Stored before.
    pub duplicates: u64,
    /// Kept as dead letters.
    pub dead_lettered: u64,
}

impl Receipt {
    /// A request whose events were all stored.
    #[must_use]
    pub fn all_committed(events: usize) -> Self {
        Self {
            received: events as u64,
            committed: events as u64,
            ..Self::default()
        }
    }

    /// A request whose events were all there before.
    #[must_use]
    pub fn all_duplicates(events: usize) -> Self {
        Self {
            received: events as u64,
            duplicates: events as u64,
            ..Self::default()
        }
    }
}

/// One keep-alive connection, or the half of one that answers are read from.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: BufReader<S>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Writes bytes without waiting for an answer.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// What the socket says, or an answer that is cut or has no length.
    pub async fn send(&mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.encode()).await?;
        self.answer(request.method == "HEAD").await
    }
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// Over what stands already.
    #[must_use]
    pub fn over(stream: BufReader<S>) -> Self {
        Self { stream }
    }

    /// Reads the next answer.
    ///
    /// # Errors
    /// What the socket says, or an answer that is cut, too late or has no length.
    pub async fn answer(&mut self, head_only: bool) -> io::Result<Answer> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.read_answer(head_only))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in 60 s"))?
    }

    async fn read_answer(&mut self, head_only: bool) -> io::Result<Answer> {
        let (start, headers) = read_head(&mut self.stream).await?;
        let status = start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| invalid(format!("no status in {start:?}")))?;
        if status == 100 {
            return Box::pin(self.read_answer(head_only)).await;
        }
        let mut body = Vec::new();
        if !head_only && status != 204 && status != 304 {
            let length = content_length(&headers)
                .ok_or_else(|| invalid(format!("answer {status} without content-length: {headers:?}")))?;
            body.resize(length, 0);
            self.stream.read_exact(&mut body).await?;
        }
        Ok(Answer { status, headers, body })
    }
}

/// Sends one request over a connection of its own.
///
/// # Errors
/// What the socket says, or an answer that is cut or has no length.
pub async fn send(address: SocketAddr, request: &Request) -> io::Result<Answer> {
    let mut connection = Connection::open(address).await?;
    // A service that answers before it has read the body may close early: the answer counts, not the write.
    let written = connection.write(&request.encode()).await;
    match (connection.answer(request.method == "HEAD").await, written) {
        (Ok(answer), _) => Ok(answer),
        (Err(error), Ok(())) | (Err(_), Err(error)) => Err(error),
    }
}

/// Reads a start line and header lines, names in lower case.
pub(crate) async fn read_head(
    stream: &mut BufReader<impl AsyncRead + Unpin>,
) -> io::Result<(String, Vec<(String, String)>)> {
    let start = read_line(stream).await?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            return Ok((start, headers));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid(format!("no header line: {line:?}")))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn read_line(stream: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The value of `content-length`.
pub(crate) fn content_length(headers: &[(String, String)]) -> Option<usize> {
    headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

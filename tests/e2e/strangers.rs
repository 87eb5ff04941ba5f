//! What a stranger learns: nothing. Every route and every bad input, bodies and headers against a short list.

use log_writer_tests::{
    client::{Answer, Connection, Request, send},
    service::{Service, Settings},
    stack::Database,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{credentials::new_token, events::fresh};

/// All that an answer may say beside its body.
const HEADERS: [&str; 6] = [
    "content-type",
    "content-length",
    "connection",
    "date",
    "allow",
    "www-authenticate",
];
/// What would tell of the service's insides.
const INSIDES: [&str; 22] = [
    "0.1.0",
    "axum",
    "hyper",
    "tokio",
    "rust",
    "panic",
    "postgres",
    "timescale",
    "elasticsearch",
    "sqlx",
    "sql",
    "127.0.0.1",
    "lwtest",
    "log_writer",
    "application_logs",
    "/src/",
    "/tmp",
    "/etc",
    "errno",
    "os error",
    "backtrace",
    "acme",
];
const PATHS: [&str; 16] = [
    "/",
    "/ingest",
    "/health",
    "/ready",
    "/metrics",
    "/api/v1/status",
    "/api/v1/search",
    "/api/v1/errors/stats",
    "/api/openapi.json",
    "/mcp",
    "/nothing",
    "/ingest/../metrics",
    "/api/v1/logs/%ff",
    "/%00",
    "/_bulk",
    "/.git/config",
];

fn assert_tells_nothing(answer: &Answer, what: &str) {
    for (name, value) in &answer.headers {
        assert!(HEADERS.contains(&name.as_str()), "{what}: header {name}: {value}");
        let value = value.to_ascii_lowercase();
        assert!(
            !value.contains("0.1.0") && !value.contains("hyper"),
            "{what}: header {name}: {value}"
        );
    }
    let body = answer.text().to_ascii_lowercase();
    for inside in INSIDES {
        assert!(
            !body.contains(inside),
            "{what}: {} tells {inside}: {body}",
            answer.status
        );
    }
}

async fn guarded(database_url: &str, folder: &TempDir) -> (Settings, String) {
    let (entry, secret) = new_token(&["--name", "agent", "--scope", "ingest", "--tenant", "acme"]).await;
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, entry).expect("a file");
    let settings = Settings::new(database_url, "http://127.0.0.1:1", "default")
        .set("http.body_bytes_max", "64KiB")
        .set("auth.enabled", "true")
        .set("auth.tokens_file", file.to_str().expect("text"));
    (settings, secret)
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of routes and inputs")]
async fn no_route_and_no_bad_input_tells_a_stranger_anything() {
    let (database, folder) = (
        Database::create().await,
        TempDir::with_prefix("log-writer-").expect("a folder"),
    );
    let (settings, secret) = guarded(database.url(), &folder).await;
    let service = Service::start(settings).await;
    let credentials = [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer another-secret-of-some-length".to_owned()),
        Some("Basic YWdlbnQ6d3Jvbmc=".to_owned()),
        Some("Bearer eyJhbGciOiJub25lIn0.e30.".to_owned()),
        Some(format!("Bearer {}", "x".repeat(20_000))),
    ];
    let mut refusals = Vec::new();
    for path in PATHS {
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW",
        ] {
            for credential in &credentials {
                for query in ["", "?q=%ff&limit=x&since=0", "?a=%zz"] {
                    let mut request = Request::new(method, &format!("{path}{query}"), "");
                    if let Some(credential) = credential {
                        request = request.header("authorization", credential);
                    }
                    let answer = service.send(&request).await;
                    assert_tells_nothing(&answer, &format!("{method} {path}{query} {credential:?}"));
                    if answer.status == 401 && method != "HEAD" {
                        refusals.push((
                            answer.text(),
                            answer
                                .headers
                                .iter()
                                .filter(|(name, _)| name != "date")
                                .cloned()
                                .collect::<Vec<_>>(),
                        ));
                    }
                    assert!(answer.status != 500, "{method} {path}");
                }
            }
        }
    }
    assert!(refusals.len() > 100, "{} refusals", refusals.len());
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "all refusals are the same: {refusals:#?}");

    // With a credential too: what is wrong with the request is told, and nothing of the service.
    let with = |request: Request| request.header("authorization", &format!("Bearer {secret}"));
    for (request, status) in [
        (Request::json(&json!([])).header("content-encoding", "lzw"), 400),
        (
            Request::new("POST", "/ingest", b"\x1f\x8b\x08broken".to_vec()).header("content-encoding", "gzip"),
            400,
        ),
        (Request::text(&"x".repeat(70_000)), 413),
        (Request::get("/metrics"), 403),
        (Request::get("/api/v1/status"), 403),
        (Request::get("/ingest"), 405),
        (Request::get("/nothing"), 404),
    ] {
        let answer = service.send(&with(request.clone())).await;
        assert_eq!(
            answer.status,
            status,
            "{} {}: {}",
            request.method,
            request.path,
            answer.text()
        );
        let what = format!("{} {}", request.method, request.path);
        assert_tells_nothing(&answer, &what);
    }
    // A request that no handler sees.
    for head in [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "GET /\u{7f} HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
        "POST /ingest HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost x\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(200)),
        format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(500_000)),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
        // It may close before all is written.
        let _cut = stream.write_all(head.as_bytes()).await;
        let _cut = stream.shutdown().await;
        let mut told = Vec::new();
        let _reset = stream.read_to_end(&mut told).await;
        let told = String::from_utf8_lossy(&told).to_ascii_lowercase();
        let shown: String = head.chars().take(60).collect();
        let (lines, body) = told.split_once("\r\n\r\n").unwrap_or((&told, ""));
        for line in lines.lines().skip(1) {
            let name = line.split(':').next().unwrap_or_default();
            assert!(HEADERS.contains(&name), "{shown:?}: {told}");
        }
        assert!(INSIDES.iter().all(|inside| !body.contains(inside)), "{shown:?}: {told}");
    }
    assert_eq!(service.send(&Request::get("/health")).await.status, 200);
}

#[tokio::test]
async fn nobody_is_told_why_nothing_can_be_committed_but_the_log_and_the_status() {
    let folder = TempDir::with_prefix("log-writer-").expect("a folder");
    let (settings, secret) = guarded("postgres://insider:password@127.0.0.1:1/inside", &folder).await;
    let service = Service::start_unready(settings.set("http.answer_timeout", "1s")).await;
    let ready = service.send(&Request::get("/ready")).await;
    assert_eq!(ready.status, 503);
    assert_tells_nothing(&ready, "/ready");
    let request = Request::json(&fresh(1)).header("authorization", &format!("Bearer {secret}"));
    let mut connection = Connection::open(service.address()).await.expect("it listens");
    let answer = connection.send(&request).await.expect("an answer");
    assert_eq!(answer.status, 503);
    assert_tells_nothing(&answer, "/ingest");
    assert!(send(service.address(), &Request::get("/health")).await.is_ok());
    assert!(service.log().contains("127.0.0.1:1"), "the log says where it looked");
}

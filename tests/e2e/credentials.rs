//! Who gets in: tokens and their scopes, tenants that cannot touch each other, tokens replaced while the service runs,
//! and no listener for strangers by accident.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use log_writer_tests::{
    client::{Answer, Connection, Receipt, Request, send},
    conditions::{SOON, eventually},
    rows::dead_letters,
    service::{Service, Settings, run_command},
    stack::Database,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::events::fresh;

/// Secrets are made by the binary itself.
pub(crate) async fn new_token(arguments: &[&str]) -> (String, String) {
    let output = run_command(&[&["token", "new"], arguments].concat(), &Settings::default()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stderr).expect("text");
    let secret = told.trim_end().rsplit(' ').next().expect("a secret").to_owned();
    let entry = String::from_utf8(output.stdout).expect("text");
    assert!(!entry.contains(&secret), "the entry has the hash alone: {entry}");
    (entry, secret)
}

/// A service that asks for tokens, without Elasticsearch.
struct Guarded {
    service: Service,
    database: Database,
    folder: TempDir,
    acme: String,
    shop: String,
    plain: String,
    reader: String,
    expired: String,
}

impl Guarded {
    async fn start() -> Self {
        let folder = TempDir::with_prefix("log-writer-tokens-").expect("a folder");
        let (acme_entry, acme) = new_token(&["--name", "acme-agent", "--scope", "ingest", "--tenant", "Acme"]).await;
        let (shop_entry, shop) = new_token(&["--name", "shop-agent", "--scope", "ingest", "--tenant", "shop"]).await;
        let (plain_entry, plain) = new_token(&["--name", "plain", "--scope", "ingest"]).await;
        let (reader_entry, reader) = new_token(&["--name", "prometheus", "--scope", "read", "--expires", "90d"]).await;
        let (expired_entry, expired) = new_token(&[
            "--name",
            "old",
            "--scope",
            "ingest",
            "--expires",
            "2020-01-01T00:00:00Z",
        ])
        .await;
        let file = folder.path().join("tokens.toml");
        let entries = [acme_entry, shop_entry, plain_entry, reader_entry, expired_entry];
        fs::write(&file, entries.concat()).expect("a file");
        let database = Database::create().await;
        let settings = Settings::new(database.url(), "http://127.0.0.1:1", "house")
            .set("elasticsearch.enabled", "false")
            .set("events.body_tenants", "Acme,shop")
            .set("http.body_bytes_max", "256KiB")
            .set("auth.enabled", "true")
            .set("auth.tokens_file", file.to_str().expect("text"));
        Self {
            service: Service::start(settings).await,
            database,
            folder,
            acme,
            shop,
            plain,
            reader,
            expired,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    async fn ingest(&self, secret: &str, events: &Value) -> Receipt {
        self.service.send(&with(Request::json(events), secret)).await.receipt()
    }

    async fn count(&self, condition: &str) -> i64 {
        let query = format!("select count(*) from public.application_logs where {condition}");
        self.database.number(&query).await
    }

    async fn metric(&self, line: &str) -> u64 {
        let answer = self.service.send(&with(Request::get("/metrics"), &self.reader)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let found = text.lines().find_map(|known| known.strip_prefix(line));
        let value = found.unwrap_or_else(|| panic!("no `{line}` in:\n{text}"));
        value.trim().parse().expect("a number")
    }

    async fn assert_books_balance(&self) {
        let request = with(Request::get("/api/v1/status"), &self.reader);
        let status = self.service.known_status_by(&request).await;
        assert_eq!(status["books"]["balanced"], true, "{status}");
    }
}

fn with(request: Request, secret: &str) -> Request {
    request.header("authorization", &format!("Bearer {secret}"))
}

fn basic(request: Request, name: &str, secret: &str) -> Request {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let pair = STANDARD.encode(format!("{name}:{secret}"));
    request.header("Authorization", &format!("Basic {pair}"))
}

fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"), "{what}");
    let challenges: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "www-authenticate")
        .collect();
    assert_eq!(
        challenges.len(),
        if status == 401 { 2 } else { 0 },
        "{what}: {challenges:?}"
    );
    let told = match status {
        401 => json!({ "error": "unauthorized", "message": "a valid credential is needed" }),
        _ => json!({ "error": "forbidden", "message": "the credential does not allow this" }),
    };
    assert_eq!(answer.json(), told, "{what}: nothing more is told");
}

#[tokio::test]
async fn only_a_good_token_with_the_scope_gets_in() {
    let guarded = Guarded::start().await;
    let service = &guarded.service;
    let wrong = "lwt_0000000000000000000000000000000000000000000000000000000000000000";
    for (method, path) in [("POST", "/ingest"), ("PUT", "/ingest"), ("POST", "/"), ("PUT", "/")] {
        let request = || {
            let mut request = Request::json(&fresh(2));
            (request.method, request.path) = (method.to_owned(), path.to_owned());
            request
        };
        for (what, refused, status) in [
            ("none", request(), 401),
            ("wrong", with(request(), wrong), 401),
            ("expired", with(request(), &guarded.expired), 401),
            ("two", with(with(request(), &guarded.acme), &guarded.shop), 401),
            ("wrong name", basic(request(), "nobody", &guarded.acme), 401),
            ("another's name", basic(request(), "shop-agent", &guarded.acme), 401),
            ("wrong secret", basic(request(), "acme-agent", wrong), 401),
            ("wrong scope", with(request(), &guarded.reader), 403),
        ] {
            assert_refused(
                &service.send(&refused).await,
                status,
                &format!("{method} {path} {what}"),
            );
        }
        let bearer = service.send(&with(request(), &guarded.acme)).await;
        assert_eq!(bearer.receipt(), Receipt::all_committed(2), "{method} {path}");
        let basic = service.send(&basic(request(), "acme-agent", &guarded.acme)).await;
        assert_eq!(basic.receipt(), Receipt::all_committed(2), "{method} {path}");
    }
    for path in ["/metrics", "/api/v1/status"] {
        assert_refused(&service.send(&Request::get(path)).await, 401, path);
        assert_refused(&service.send(&with(Request::get(path), &guarded.acme)).await, 403, path);
        let answer = service.send(&with(Request::get(path), &guarded.reader)).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    for path in ["/health", "/ready", "/"] {
        assert_eq!(service.send(&Request::get(path)).await.status, 200, "{path}");
    }
    assert_eq!(guarded.count("true").await, 16, "nothing of what was refused is stored");
    assert_eq!(dead_letters(guarded.database.pool()).await.len(), 0);
    for (reason, requests) in [
        ("missing", 6),
        ("unknown", 16),
        ("expired", 4),
        ("malformed", 4),
        ("scope", 6),
    ] {
        let line = format!("log_writer_auth_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(guarded.metric(&line).await, requests, "{reason}");
    }
    guarded.assert_books_balance().await;
    let log = service.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("refused for its credential"))
        .collect::<Vec<_>>();
    assert!(
        (5..=20).contains(&lines.len()),
        "loud, and not a line a request: {lines:#?}"
    );
    assert!(lines.iter().all(|line| line.contains("127.0.0.1")), "{lines:#?}");
    assert!(log.contains("expired") && log.contains("prometheus"), "{lines:#?}");
    for secret in [&guarded.acme, &guarded.shop, &guarded.reader, &guarded.expired, wrong] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn the_tenant_is_the_tokens_whatever_the_body_says() {
    let guarded = Guarded::start().await;
    let mut events = fresh(3);
    for event in events.as_array_mut().expect("an array") {
        event["tenant"] = json!("shop");
    }
    assert_eq!(guarded.ingest(&guarded.acme, &events).await, Receipt::all_committed(3));
    assert_eq!(guarded.ingest(&guarded.plain, &events).await, Receipt::all_committed(3));
    assert_eq!(guarded.count("tenant = 'Acme' and fields->>'tenant' = 'shop'").await, 3);
    assert_eq!(
        guarded.count("tenant = 'house' and fields->>'tenant' = 'shop'").await,
        3
    );
    assert_eq!(
        guarded.count("tenant = 'shop'").await,
        0,
        "events.body_tenants does not count"
    );
    let broken = with(
        Request::json(&json!([])).header("content-encoding", "lzw"),
        &guarded.acme,
    );
    assert_eq!(guarded.service.send(&broken).await.status, 400);
    let letters = "select count(*) from log_writer.dead_letters where tenant = 'Acme'";
    assert_eq!(guarded.database.number(letters).await, 1);
}

#[tokio::test]
async fn two_tenants_with_the_same_bytes_and_ids_do_not_see_or_suppress_each_other() {
    let guarded = Guarded::start().await;
    let now = chrono::Utc::now().to_rfc3339();
    let own_ids = json!([
        { "event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "timestamp": now, "message": "same id" },
        { "event_id": "01890a5d-ac96-774b-bcce-b302099a8058", "timestamp": now, "message": "same id too" },
    ]);
    let by_content = fresh(4);
    for events in [&own_ids, &by_content] {
        let many = events.as_array().expect("an array").len();
        for (secret, tenant) in [
            (&guarded.acme, "Acme"),
            (&guarded.shop, "shop"),
            (&guarded.plain, "house"),
        ] {
            assert_eq!(
                guarded.ingest(secret, events).await,
                Receipt::all_committed(many),
                "{tenant}"
            );
            assert_eq!(
                guarded.ingest(secret, events).await,
                Receipt::all_duplicates(many),
                "{tenant} again"
            );
        }
    }
    // The same events in other bytes: known by their keys, and only by those of the same tenant.
    let spaced = Request::new("POST", "/ingest", format!(" {own_ids}")).header("content-type", "application/json");
    for secret in [&guarded.acme, &guarded.shop] {
        let receipt = guarded.service.send(&with(spaced.clone(), secret)).await.receipt();
        assert_eq!(receipt, Receipt::all_duplicates(2));
    }
    for tenant in ["Acme", "shop", "house"] {
        assert_eq!(guarded.count(&format!("tenant = '{tenant}'")).await, 6, "{tenant}");
    }
    // What cannot be read or is too large is kept for each of them, too.
    let large = Request::text(&"x".repeat(300_000));
    let broken = Request::json(&json!([1])).header("content-encoding", "lzw");
    for secret in [&guarded.acme, &guarded.shop, &guarded.acme] {
        assert_eq!(guarded.service.send(&with(large.clone(), secret)).await.status, 413);
        assert_eq!(guarded.service.send(&with(broken.clone(), secret)).await.status, 400);
    }
    for tenant in ["Acme", "shop"] {
        let letters = format!("select count(*) from log_writer.dead_letters where tenant = '{tenant}'");
        assert_eq!(guarded.database.number(&letters).await, 2, "{tenant}");
    }
    guarded.assert_books_balance().await;
}

#[tokio::test]
async fn tokens_are_replaced_on_sighup_and_a_bad_file_keeps_the_old_ones() {
    let guarded = Guarded::start().await;
    let service = &guarded.service;
    let before = fs::read_to_string(guarded.file()).expect("the file");
    let said = |text: &'static str, times: usize| {
        eventually(text, SOON, move || async move {
            (service.log().matches(text).count() >= times).then_some(())
        })
    };
    fs::write(guarded.file(), "[[token]]\nname = 'x'\nscopes = []\n").expect("a file");
    service.signal("HUP");
    said("THE OLD TOKENS STAY IN FORCE", 1).await;
    assert_eq!(
        guarded.ingest(&guarded.acme, &fresh(1)).await,
        Receipt::all_committed(1)
    );
    fs::remove_file(guarded.file()).expect("it is there");
    service.signal("HUP");
    said("THE OLD TOKENS STAY IN FORCE", 2).await;
    assert_eq!(
        guarded.ingest(&guarded.acme, &fresh(1)).await,
        Receipt::all_committed(1)
    );

    // A rotation: first both, then the new one alone.
    let (entry, secret) = new_token(&["--name", "acme-agent-2", "--scope", "ingest", "--tenant", "Acme"]).await;
    assert_eq!(service.send(&with(Request::json(&fresh(1)), &secret)).await.status, 401);
    fs::write(guarded.file(), format!("{before}{entry}")).expect("a file");
    service.signal("HUP");
    said("are in force", 1).await;
    for secret in [&guarded.acme, &secret] {
        assert_eq!(guarded.ingest(secret, &fresh(1)).await, Receipt::all_committed(1));
    }
    fs::write(guarded.file(), &entry).expect("a file");
    service.signal("HUP");
    said("are in force", 2).await;
    let mut connection = Connection::open(service.address()).await.expect("it listens");
    let old = connection.send(&with(Request::json(&fresh(1)), &guarded.acme)).await;
    assert_eq!(old.expect("an answer").status, 401);
    assert_eq!(guarded.ingest(&secret, &fresh(1)).await, Receipt::all_committed(1));
    assert_eq!(guarded.count("tenant = 'Acme'").await, 5);
}

#[tokio::test]
async fn a_tokens_file_that_does_not_end_holds_nobody_up() {
    let mut guarded = Guarded::start().await;
    fs::remove_file(guarded.file()).expect("it is there");
    let made = Command::new("mkfifo").arg(guarded.file()).status().expect("mkfifo");
    assert!(made.success());
    guarded.service.signal("HUP");
    let file = guarded.file();
    // It can be opened for writing once somebody reads it; nothing is written.
    let opened = tokio::task::spawn_blocking(|| fs::File::options().write(true).open(file));
    let _held = opened.await.expect("opened").expect("a pipe");
    for _ in 0..4 {
        assert_eq!(
            guarded.ingest(&guarded.acme, &fresh(1)).await,
            Receipt::all_committed(1)
        );
    }
    guarded.service.terminate();
    assert!(guarded.service.until_ended(SOON).await.success());
}

#[tokio::test]
async fn a_refused_body_is_not_held_and_its_connection_is_closed() {
    let guarded = Guarded::start().await;
    let address = guarded.service.address();
    // Announced, and never sent: the answer does not wait for it.
    let head = "POST /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000000\r\n";
    for more in ["\r\n{", "expect: 100-continue\r\n\r\n"] {
        let mut connection = Connection::open(address).await.expect("it listens");
        connection
            .write(format!("{head}{more}").as_bytes())
            .await
            .expect("it reads");
        let answer = tokio::time::timeout(Duration::from_secs(15), connection.answer(false)).await;
        assert_refused(&answer.expect("in time").expect("an answer"), 401, more);
        let next = connection.answer(false).await.expect_err("the connection is closed");
        assert!(next.kind() != std::io::ErrorKind::TimedOut, "{next}");
    }
    // A whole batch as Vector sends it: its sender reads the 401, not a broken connection.
    let (before, _) = guarded.service.memory();
    let batch = Request::text(&"x".repeat(4_000_000));
    let answers = futures::future::join_all((0..32).map(|_| send(address, &batch))).await;
    for answer in answers {
        assert_refused(&answer.expect("an answer"), 401, "a batch");
    }
    let (_, peak) = guarded.service.memory();
    assert!(
        peak < before + 64 * 1024 * 1024,
        "{before} bytes before, {peak} at most; 128 MB were sent"
    );
    assert_eq!(guarded.metric("log_writer_inflight_bytes ").await, 0);
}

#[tokio::test]
async fn strangers_are_not_let_in_by_accident() {
    let folder = TempDir::with_prefix("log-writer-tokens-").expect("a folder");
    let file = folder.path().join("tokens.toml");
    let (entry, secret) = new_token(&["--name", "agent", "--scope", "ingest"]).await;
    fs::write(&file, &entry).expect("a file");
    let file = file.to_str().expect("text");
    let open = Settings::default().set("http.listen", "0.0.0.0:1");
    for (settings, key, part) in [
        (open.clone(), "http.listen", "http.allow_unauthenticated"),
        (
            open.clone().set("auth.enabled", "true"),
            "auth.tokens_file",
            "token new",
        ),
        (
            Settings::default()
                .set("auth.enabled", "true")
                .set("auth.tokens_file", "/nonexistent/tokens"),
            "auth.tokens_file",
            "cannot be read",
        ),
    ] {
        for command in [&["serve"][..], &["config", "check"]] {
            let output = run_command(command, &settings).await;
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.contains(key) && told.contains(part), "{told}");
        }
    }
    let arguments = [
        "token", "new", "--name", "agent", "--scope", "ingest", "--tenant", "a/b",
    ];
    let output = run_command(&arguments, &Settings::default()).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("--tenant has '/'"), "{told}");
    for settings in [
        open.clone().set("http.allow_unauthenticated", "true"),
        open.set("auth.enabled", "true").set("auth.tokens_file", file),
    ] {
        let output = run_command(&["config", "check"], &settings).await;
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let hash = entry
            .split("blake3 = \"")
            .nth(1)
            .and_then(|rest| rest.get(..64))
            .expect("a hash");
        assert!(!told.contains(&secret) && !told.contains(hash), "{told}");
    }
}

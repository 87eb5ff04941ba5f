//! The tools for agents, asked by the SDK's own client: over HTTP, and over standard input and output.

use std::{borrow::Cow, path::Path};

use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    service::{Service, Settings},
    stack::{Database, Stream, random_word},
};
use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, ReadResourceRequestParams, ResourceContents},
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, TokioChildProcess, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener};

use crate::credentials::new_token;

pub(crate) type Agent = RunningService<RoleClient, ()>;

/// A database with a role that may only read, which is dropped with everything it was granted.
struct WithReader {
    database: Database,
    role: String,
}

impl WithReader {
    async fn create() -> Self {
        Self {
            database: Database::create().await,
            role: format!("lwtest_reader_{}", random_word()),
        }
    }

    fn settings(&self) -> Settings {
        let url = self
            .database
            .url()
            .replacen("postgres://postgres", &format!("postgres://{}", self.role), 1);
        Settings::new(self.database.url(), "http://127.0.0.1:1", "house")
            .set("elasticsearch.enabled", "false")
            .set("api.database_url", &url)
            .set("api.statement_timeout", "30s")
            .set("api.rows_max", "50")
    }

    async fn grant(&self) {
        let role = &self.role;
        sqlx::raw_sql(&format!(
            "create role {role} login; select log_writer.grant_access('{role}', 'reader')"
        ))
        .execute(self.database.pool())
        .await
        .expect("a role");
    }

    async fn end(self) {
        let role = &self.role;
        sqlx::raw_sql(&format!("drop owned by {role}; drop role {role}"))
            .execute(self.database.pool())
            .await
            .expect("dropped");
    }
}

/// The client's way to the service: a socket in a folder, carried on to its port.
pub(crate) async fn by_http(service: &Service, folder: &Path) -> Agent {
    with_token(service, folder, None).await
}

/// The same with a token.
async fn with_token(service: &Service, folder: &Path, token: Option<&str>) -> Agent {
    let path = folder.join(random_word());
    let (listener, address) = (UnixListener::bind(&path).expect("a socket"), service.address());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(address).await.expect("the service listens");
                let _closed = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let mut settings = StreamableHttpClientTransportConfig::with_uri("http://localhost/mcp");
    settings.auth_header = token.map(ToOwned::to_owned);
    let transport = StreamableHttpClientTransport::from_unix_socket_with_config(path.to_str().expect("text"), settings);
    ().serve(transport).await.expect("the protocol is spoken")
}

async fn by_stdio(settings: &Settings) -> Agent {
    let mut command = settings.command();
    command.arg("mcp");
    let transport = TokioChildProcess::new(tokio::process::Command::from(command)).expect("the command starts");
    ().serve(transport).await.expect("the protocol is spoken")
}

/// Whether a tool reports a failure, and what it said.
async fn call(agent: &Agent, tool: impl Into<Cow<'static, str>>, arguments: Value) -> (bool, String) {
    let arguments = arguments.as_object().cloned().expect("an object");
    let result = agent
        .call_tool(CallToolRequestParams::new(tool).with_arguments(arguments))
        .await
        .expect("an answer");
    let text = result
        .content
        .first()
        .and_then(|block| block.as_text())
        .map(|text| text.text.clone());
    (result.is_error == Some(true), text.expect("text"))
}

pub(crate) async fn rows(agent: &Agent, tool: impl Into<Cow<'static, str>>, arguments: Value) -> Vec<Value> {
    let tool = tool.into();
    let (failed, text) = call(agent, tool.clone(), arguments).await;
    assert!(!failed, "{tool}: {text}");
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    answer["rows"].as_array().cloned().expect("rows")
}

async fn use_every_tool(agent: &Agent) {
    let tools = agent.list_all_tools().await.expect("tools");
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    for name in [
        "search_logs",
        "get_error_stats",
        "get_log_context",
        "trace_logs",
        "top_error_patterns",
        "detect_anomalies",
        "run_sql",
    ] {
        assert!(names.contains(&name), "{name} is no tool: {names:?}");
    }
    let writing = tools.iter().filter(|tool| {
        let hints = tool.annotations.as_ref().expect("hints");
        hints.read_only_hint != Some(true)
    });
    assert_eq!(
        writing.map(|tool| tool.name.as_ref()).collect::<Vec<&str>>(),
        ["annotate_log"]
    );
    let found = rows(
        agent,
        "search_logs",
        json!({"query": "refused", "tags": ["t"], "fields": {"n": 1}, "limit": 5}),
    )
    .await;
    assert_eq!(found[0]["message"], "connection refused");
    let id = found[0]["id"].clone();
    assert_eq!(rows(agent, "get_log_context", json!({"id": id})).await.len(), 1);
    assert_eq!(rows(agent, "get_log", json!({"id": id})).await.len(), 1);
    assert_eq!(rows(agent, "trace_logs", json!({"id": "c-1"})).await.len(), 1);
    let annotation =
        json!({"id": id, "timestamp": found[0]["timestamp"], "analysis": {"cause": "disk full"}, "tenant": "house"});
    let (failed, text) = call(agent, "annotate_log", annotation).await;
    assert!(!failed && text.contains("disk full"), "{text}");
    let (failed, text) = call(
        agent,
        "annotate_log",
        json!({"id": id, "timestamp": "2020-01-01T00:00:00Z", "analysis": {}}),
    )
    .await;
    assert!(failed && text.contains("has no event"), "{text}");
    assert_eq!(
        rows(agent, "get_log", json!({"id": id})).await[0]["ai_analysis"]["cause"],
        "disk full"
    );
    assert_eq!(
        rows(agent, "get_error_stats", json!({"window": "6 hours"})).await[0]["errors"],
        1
    );
    for tool in tools.iter().filter(|tool| {
        !matches!(
            tool.name.as_ref(),
            "run_sql" | "annotate_log" | "trace_logs" | "get_log" | "get_log_context"
        )
    }) {
        rows(agent, tool.name.clone(), json!({})).await;
    }
    assert_eq!(
        rows(
            agent,
            "run_sql",
            json!({"sql": "select level, count(*) as n from application_logs group by 1 -- all;"})
        )
        .await,
        [json!({"level": "ERROR", "n": 1})]
    );
}

async fn misuse_run_sql(agent: &Agent) {
    for (sql, said) in [
        ("delete from application_logs returning id", "read-only transaction"),
        (
            "update application_logs set message = '' returning id",
            "read-only transaction",
        ),
        (
            "select 1) select 2; delete from application_logs; with answer as (select 1",
            "multiple commands",
        ),
        ("select * from log_writer.dead_letters", "permission denied"),
        ("select lo_create(0)", "read-only transaction"),
        ("selec 1", "syntax error"),
    ] {
        let (failed, text) = call(agent, "run_sql", json!({"sql": sql})).await;
        assert!(failed && text.contains(said), "{sql}: {text}");
    }
    let (failed, text) = call(
        agent,
        "run_sql",
        json!({"sql": "select n from generate_series(1, 100000) n"}),
    )
    .await;
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        !failed && answer["truncated"] == true && answer["rows"].as_array().map(Vec::len) == Some(50),
        "{text}"
    );
    assert_eq!(
        rows(
            agent,
            "run_sql",
            json!({"sql": "select count(*) as n from application_logs"})
        )
        .await,
        [json!({"n": 1})]
    );
}

async fn read_resources(agent: &Agent) {
    let resources = agent.list_all_resources().await.expect("resources");
    assert_eq!(resources.len(), 2);
    for (resource, what) in resources.iter().zip(["application_logs", "search_logs"]) {
        let read = agent
            .read_resource(ReadResourceRequestParams::new(resource.uri.clone()))
            .await
            .expect("a resource");
        let Some(ResourceContents::TextResourceContents { text, .. }) = read.contents.first() else {
            panic!("no text in {read:?}");
        };
        assert!(text.contains(what), "{text}");
    }
}

#[tokio::test]
async fn an_agent_can_use_every_tool_by_http_and_by_stdio_and_write_with_none() {
    let reader = WithReader::create().await;
    let service = Service::start(reader.settings()).await;
    reader.grant().await;
    let event = json!([{"level": "error", "service": "api", "message": "connection refused", "tags": ["t"], "n": 1, "correlation_id": "c-1"}]);
    service.ingest(&event).await;
    let folder = TempDir::with_prefix("log-writer-agent-").expect("a folder");
    for agent in [
        by_http(&service, folder.path()).await,
        by_stdio(&reader.settings()).await,
    ] {
        use_every_tool(&agent).await;
        misuse_run_sql(&agent).await;
        read_resources(&agent).await;
        agent.cancel().await.expect("the end");
    }
    drop(service);
    reader.end().await;
}

#[tokio::test]
async fn a_question_of_an_agent_ends_at_its_time_limit() {
    let reader = WithReader::create().await;
    let settings = reader.settings().set("api.statement_timeout", "1s");
    let service = Service::start(settings.clone()).await;
    reader.grant().await;
    let folder = TempDir::with_prefix("log-writer-agent-").expect("a folder");
    for agent in [by_http(&service, folder.path()).await, by_stdio(&settings).await] {
        // Shorter than the default limit; PostgreSQL measures both.
        let (failed, text) = call(&agent, "run_sql", json!({"sql": "select pg_sleep(5)"})).await;
        assert!(failed && text.contains("longer than api.statement_timeout"), "{text}");
        agent.cancel().await.expect("the end");
    }
    drop(service);
    reader.end().await;
}

#[tokio::test]
async fn an_answer_ends_at_its_bytes_and_a_row_larger_than_that_never_comes_into_the_service() {
    const MIB: u64 = 1024 * 1024;
    let reader = WithReader::create().await;
    let settings = reader
        .settings()
        .set("api.answer_bytes_max", "4MiB")
        .set("api.rows_max", "50000")
        .set("api.statement_timeout", "30s")
        .set("api.connections_max", "1");
    let service = Service::start(settings).await;
    reader.grant().await;
    let folder = TempDir::with_prefix("log-writer-agent-").expect("a folder");
    let agent = by_http(&service, folder.path()).await;
    let ask = async |sql: &str| {
        let (failed, text) = call(&agent, "run_sql", json!({"sql": sql})).await;
        assert!(!failed, "{sql}: {text}");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let lengths = |answer: &Value| -> Vec<usize> {
        let rows = answer["rows"].as_array().expect("rows").iter();
        rows.map(|row| row["t"].as_str().expect("a text").len()).collect()
    };
    for sql in [
        "select repeat('x', 200000000) as t",
        "values (repeat('x', 200000000), 1), (repeat('y', 5000000), 2)",
        "select array_agg(repeat('x', 1000)) as t from generate_series(1, 200000)",
        // Every byte is six in JSON.
        "select repeat(chr(1), 1000000) as t",
    ] {
        let answer = ask(sql).await;
        assert_eq!(
            (&answer["rows"], &answer["truncated"]),
            (&json!([]), &json!(true)),
            "{sql}: {answer}"
        );
        let note = answer["note"].as_str().expect("a note");
        assert!(
            note.contains("larger than api.answer_bytes_max") && note.contains("left(column"),
            "{note}"
        );
    }
    // The others come, in their order.
    let answer = ask("select repeat('x', n) as t from unnest(array[3, 5000000, 2, 200000000, 1]) n").await;
    assert_eq!(lengths(&answer), [3, 2, 1]);
    assert!(answer["note"].as_str().expect("a note").contains(": 2;"), "{answer}");
    // 45 GB, of which four rows have room; what is left does not keep the one connection from the next question.
    let answer = ask("select repeat('x', 1000000) as t from generate_series(1, 45000)").await;
    assert_eq!(
        (lengths(&answer), &answer["truncated"]),
        (vec![1_000_000; 4], &json!(true))
    );
    assert_eq!(answer["note"], Value::Null);
    assert_eq!(ask("select 'x' as t").await["truncated"], false);
    // PostgreSQL quotes the value.
    let (failed, text) = call(&agent, "run_sql", json!({"sql": "select repeat('x', 3000000)::int"})).await;
    assert!(
        failed && text.contains("invalid input syntax for type integer: \"xxx") && text.len() < 5_000,
        "{}",
        text.len()
    );
    let (_, peak) = service.memory();
    // As docs/OPERATIONS.md has it: itself, and four times an answer.
    assert!(peak < (64 + 4 * 4) * MIB, "{} MiB", peak / MIB);
    agent.cancel().await.expect("the end");
    drop(service);
    reader.end().await;
}

/// A service that asks for tokens, with two tenants' events in both stores.
struct Guarded {
    service: Service,
    streams: [Stream; 2],
    secrets: Vec<String>,
    reader: WithReader,
    folder: TempDir,
}

/// Places among the secrets.
const ACME: usize = 0;
const SHOP: usize = 1;
const ADMIN: usize = 2;
const ANNOTATOR: usize = 3;
const INGEST: usize = 4;
const ANNOTATE_ALONE: usize = 5;
const ADMIN_ALONE: usize = 6;

impl Guarded {
    async fn start() -> Self {
        let (reader, first) = (WithReader::create().await, Stream::create().await);
        let second = first.beside();
        let streams = [first, second];
        let [acme, shop] = [&streams[0].tenant, &streams[1].tenant];
        let folder = TempDir::with_prefix("log-writer-agent-").expect("a folder");
        let (mut entries, mut secrets) = (String::new(), Vec::new());
        for (number, (tenant, scopes)) in [
            (acme, &["ingest", "read"][..]),
            (shop, &["ingest", "read"]),
            (shop, &["read", "admin"]),
            (acme, &["read", "annotate"]),
            (acme, &["ingest"]),
            (acme, &["annotate"]),
            (acme, &["admin"]),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("token-{number}");
            let scopes: Vec<&str> = scopes.iter().flat_map(|scope| ["--scope", scope]).collect();
            let (entry, secret) =
                new_token(&[&["--name", &name, "--tenant", tenant], scopes.as_slice()].concat()).await;
            entries.push_str(&entry);
            secrets.push(secret);
        }
        let file = folder.path().join("tokens.toml");
        std::fs::write(&file, entries).expect("a file");
        let settings = reader
            .settings()
            .set("elasticsearch.enabled", "true")
            .set("elasticsearch.urls", streams[0].search.url())
            .set("api.statement_timeout", "10s")
            .set("auth.enabled", "true")
            .set("auth.tokens_file", file.to_str().expect("text"));
        let service = Service::start(settings).await;
        reader.grant().await;
        let guarded = Self {
            service,
            streams,
            secrets,
            reader,
            folder,
        };
        guarded.fill().await;
        guarded
    }

    /// The same events of both; the tenant's name stands in the names of its services.
    async fn fill(&self) {
        let id = uuid::Uuid::now_v7();
        let time = chrono::Utc::now() - chrono::TimeDelta::minutes(10);
        for (stream, secret) in self.streams.iter().zip(&self.secrets) {
            let event = |service: &str, level: &str| {
                json!({
                    "event_id": id, "timestamp": time, "level": level, "message": "disk 1 is full", "correlation_id": "same",
                    "service": format!("{}-{service}", stream.tenant), "performance_metrics": {"duration_ms": 5},
                })
            };
            let mut second = event("db", "error");
            second["event_id"] = json!(uuid::Uuid::now_v7());
            second["timestamp"] = json!(time + chrono::TimeDelta::seconds(1));
            let request = Request::json(&json!([event("api", "error"), second]));
            let request = request.header("authorization", &format!("Bearer {secret}"));
            assert_eq!(self.service.send(&request).await.receipt().committed, 2);
        }
        eventually(
            "the events to be delivered, and their kind to be noted",
            SOON,
            || async {
                let waiting =
                    "select (select count(*) from log_writer.outbox) + 2 - (select count(*) from log_patterns)";
                (self.reader.database.number(waiting).await == 0).then_some(())
            },
        )
        .await;
        for stream in &self.streams {
            stream.search.refresh(&stream.name()).await;
        }
    }

    async fn agent(&self, whose: usize) -> Agent {
        with_token(&self.service, self.folder.path(), Some(&self.secrets[whose])).await
    }

    /// The id that both tenants have, and its time.
    async fn event(&self) -> (Value, Value) {
        let found = rows(&self.agent(SHOP).await, "trace_logs", json!({"id": "same"})).await;
        (found[0]["id"].clone(), found[0]["timestamp"].clone())
    }

    async fn end(self) {
        drop(self.service);
        self.reader.end().await;
    }
}

#[tokio::test]
async fn an_agent_of_a_tenant_sees_nothing_of_another_by_any_tool_and_one_of_an_admin_sees_all() {
    let guarded = Guarded::start().await;
    let (id, _) = guarded.event().await;
    let [acme, shop, admin] = [
        guarded.agent(ACME).await,
        guarded.agent(SHOP).await,
        guarded.agent(ADMIN).await,
    ];
    let names = [0, 1].map(|number| guarded.streams[number].tenant.as_str());
    let tools = admin.list_all_tools().await.expect("tools");
    let asking = tools.iter().map(|tool| tool.name.clone());
    let asking: Vec<Cow<'static, str>> = asking
        .filter(|tool| tool != "run_sql" && tool != "annotate_log")
        .collect();
    assert!(asking.len() >= 12, "{asking:?}");
    for tool in asking {
        let mut questions = vec![match tool.as_ref() {
            "trace_logs" => json!({"id": "same"}),
            "get_log" | "get_log_context" => json!({"id": id}),
            _ => json!({}),
        }];
        if tool == "search_logs" {
            questions.push(json!({"query": "disk"}));
        }
        for question in questions {
            let (failed, all) = call(&admin, tool.clone(), question.clone()).await;
            assert!(!failed, "{tool}: {all}");
            // One day is too few to differ from; around one event there are those of its tenant.
            assert!(
                matches!(tool.as_ref(), "detect_anomalies" | "get_log_context")
                    || names.iter().all(|name| all.contains(name)),
                "{tool} {question}: {all}"
            );
            if question["query"] == "disk" {
                assert!(all.contains("\"store\":\"elasticsearch\""), "{all}");
            }
            for (agent, own, other) in [(&acme, names[0], names[1]), (&shop, names[1], names[0])] {
                let (failed, told) = call(agent, tool.clone(), question.clone()).await;
                assert!(!failed && !told.contains(other), "{tool} {question}: {told}");
                assert!(
                    tool == "detect_anomalies" || told.contains(own),
                    "{tool} {question}: {told}"
                );
                let mut of_other = question.clone();
                of_other["tenant"] = json!(other);
                let (failed, told) = call(agent, tool.clone(), of_other.clone()).await;
                assert!(
                    failed && told.contains("the credential does not allow this tenant"),
                    "{tool}: {told}"
                );
                let (failed, told) = call(&admin, tool.clone(), of_other).await;
                assert!(!failed && !told.contains(own), "{tool} {question}: {told}");
            }
        }
    }
    guarded.end().await;
}

#[tokio::test]
async fn a_tool_that_the_token_does_not_allow_is_refused_by_name_and_does_nothing() {
    let guarded = Guarded::start().await;
    let (id, time) = guarded.event().await;
    let [acme, shop] = [0, 1].map(|number| guarded.streams[number].tenant.as_str());
    let sql = json!({"sql": "select count(*)::int as n from application_logs"});
    let analysis = |tenant: &str| json!({"id": id, "timestamp": time, "analysis": {"cause": "cron"}, "tenant": tenant});
    for whose in [ACME, SHOP, ANNOTATOR] {
        let (failed, told) = call(&guarded.agent(whose).await, "run_sql", sql.clone()).await;
        assert!(
            failed && told.contains("SQL sees all tenants: it is for credentials of the scope admin"),
            "{told}"
        );
    }
    for whose in [ACME, SHOP, ADMIN] {
        let (failed, told) = call(&guarded.agent(whose).await, "annotate_log", analysis(acme)).await;
        assert!(failed && told.contains("it needs the scope annotate"), "{told}");
    }
    let annotator = guarded.agent(ANNOTATOR).await;
    let (failed, told) = call(&annotator, "annotate_log", analysis(shop)).await;
    assert!(failed && told.contains("does not allow this tenant"), "{told}");
    // Whoever may not read does not even begin.
    let begin =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_sql", "arguments": sql}});
    let begin = Request::new("POST", "/mcp", begin.to_string())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    for whose in [INGEST, ANNOTATE_ALONE, ADMIN_ALONE] {
        let request = begin
            .clone()
            .header("authorization", &format!("Bearer {}", guarded.secrets[whose]));
        let answer = guarded.service.send(&request).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.json()["message"], "the credential does not allow this");
    }
    assert_eq!(guarded.service.send(&begin).await.status, 401);
    let database = &guarded.reader.database;
    let annotated = "select count(*) from application_logs where ai_analysis is not null";
    assert_eq!(database.number(annotated).await, 0);
    let ran = "select count(*) from log_writer.audit where action in ('run_sql', 'annotate')";
    assert_eq!(database.number(ran).await, 0, "what is refused does not begin");

    assert_eq!(
        rows(&guarded.agent(ADMIN).await, "run_sql", sql).await,
        [json!({"n": 4})]
    );
    let mut own = analysis(acme);
    own.as_object_mut().expect("an object").remove("tenant");
    let (failed, told) = call(&annotator, "annotate_log", own).await;
    assert!(!failed && told.contains("cron"), "{told}");
    let of_acme = format!("{annotated} and tenant = '{acme}'");
    assert_eq!(
        (database.number(annotated).await, database.number(&of_acme).await),
        (1, 1)
    );
    assert_eq!(database.number(ran).await, 2);
    guarded.end().await;
}

#[tokio::test]
async fn without_a_reader_nobody_runs_sql_and_with_a_writer_neither() {
    let database = Database::create().await;
    let settings = Settings::new(database.url(), "http://127.0.0.1:1", "house").set("elasticsearch.enabled", "false");
    let service = Service::start(settings.clone()).await;
    let agent = by_stdio(&settings).await;
    assert!(
        agent
            .list_all_tools()
            .await
            .expect("tools")
            .iter()
            .all(|tool| tool.name != "run_sql")
    );
    let agent = by_stdio(&settings.set("api.database_url", database.url())).await;
    let (failed, text) = call(&agent, "run_sql", json!({"sql": "select 1 as n"})).await;
    assert!(failed && text.contains("it may write"), "{text}");
    drop(service);
}

#[tokio::test]
async fn a_statement_is_recorded_before_it_runs_and_with_its_rows_after_it() {
    let reader = WithReader::create().await;
    let settings = reader.settings().set("api.statement_timeout", "60s");
    let mut service = Service::start(settings.clone()).await;
    reader.grant().await;
    let agent = by_stdio(&settings).await;
    call(
        &agent,
        "run_sql",
        json!({"sql": "select n from generate_series(1, 3) n"}),
    )
    .await;
    call(&agent, "run_sql", json!({"sql": "selec 1"})).await;
    agent.cancel().await.expect("the end");
    let folder = TempDir::with_prefix("log-writer-agent-").expect("a folder");
    let agent = by_http(&service, folder.path()).await;
    let slow = tokio::spawn(async move {
        let arguments = json!({"sql": "select pg_sleep(50)"})
            .as_object()
            .cloned()
            .expect("an object");
        agent
            .call_tool(CallToolRequestParams::new("run_sql").with_arguments(arguments))
            .await
    });
    let sleeping = "select count(*) from pg_stat_activity
        where datname = current_database() and query like '%pg_sleep(50)%' and wait_event = 'PgSleep'";
    eventually("the statement to run", SOON, || async {
        (reader.database.number(sleeping).await == 1).then_some(())
    })
    .await;
    service.kill();
    slow.abort();
    let recorded: Vec<(String, String, i64, bool)> = sqlx::query_as(
        "select target ->> 'sql', outcome, affected, ended_at is not null from log_writer.audit
         where action = 'run_sql' order by id",
    )
    .fetch_all(reader.database.pool())
    .await
    .expect("the trail");
    let row = |sql: &str, outcome: &str, rows, ended| (sql.to_owned(), outcome.to_owned(), rows, ended);
    assert_eq!(
        recorded,
        [
            row("select n from generate_series(1, 3) n", "done", 3, true),
            row("selec 1", "failed", 0, true),
            row("select pg_sleep(50)", "running", 0, false),
        ]
    );
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1")
        .bind(&reader.role)
        .execute(reader.database.pool())
        .await
        .expect("ended");
    reader.end().await;
}

#[tokio::test]
async fn a_reader_that_could_become_a_writer_runs_no_sql() {
    let reader = WithReader::create().await;
    let service = Service::start(reader.settings()).await;
    reader.grant().await;
    let agent = by_stdio(&reader.settings()).await;
    let sql = json!({"sql": "select 1 as n"});
    assert_eq!(rows(&agent, "run_sql", sql.clone()).await, [json!({"n": 1})]);
    let (role, other) = (&reader.role, format!("{}_writer", reader.role));
    let statements = format!(
        "create role {other}; grant insert on public.application_logs to {other}; alter role {role} noinherit;
         grant {other} to {role}"
    );
    sqlx::raw_sql(&statements)
        .execute(reader.database.pool())
        .await
        .expect("a member");
    let (failed, text) = call(&agent, "run_sql", sql).await;
    assert!(failed && text.contains("it may write"), "{text}");
    agent.cancel().await.expect("the end");
    drop(service);
    sqlx::raw_sql(&format!("drop owned by {other}; drop role {other}"))
        .execute(reader.database.pool())
        .await
        .expect("dropped");
    reader.end().await;
}

#[tokio::test]
async fn a_page_of_a_browser_does_not_reach_the_tools_and_a_broken_message_is_told() {
    let database = Database::create().await;
    let settings = Settings::new(database.url(), "http://127.0.0.1:1", "house").set("elasticsearch.enabled", "false");
    let service = Service::start(settings).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for (name, value, status) in [
        ("host", "localhost:8080", 200),
        ("host", "rebound.example", 403),
        ("origin", "http://evil.example", 403),
    ] {
        let request = client
            .post(format!("http://{}/mcp", service.address()))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header(name, value)
            .body(call.to_string());
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{name}: {value}");
    }
    for (content_type, body, status) in [
        ("application/json", "{broken", 400),
        ("application/json", "{}", 400),
        ("text/plain", "{}", 415),
    ] {
        let request = Request::new("POST", "/mcp", body)
            .header("content-type", content_type)
            .header("accept", "application/json, text/event-stream");
        let answer = service.send(&request).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        if status == 400 {
            assert_eq!(answer.json()["error"]["code"], -32700, "{body}");
        }
    }
}

//! Questions over HTTP: which store answers, whose events are seen, what a wrong question is told.

use std::time::Instant;

use log_writer_tests::{
    client::{Answer, Request},
    service::{Service, Settings},
    stack::{Database, Stream},
};
use serde_json::{Value, json};

use crate::{RealStores, credentials::new_token};

async fn asked(service: &Service, path: &str) -> Value {
    let answer = service.send(&Request::get(path)).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn messages(answer: &Value) -> Vec<&str> {
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter()
        .map(|row| row["message"].as_str().expect("a message"))
        .collect()
}

/// Errors of two services, a trace, durations.
async fn fill(stores: &RealStores) {
    let now = chrono::Utc::now().timestamp_millis();
    let events: Vec<Value> = (0..30)
        .map(|number| {
            json!({
                "timestamp": now - number * 1000, "level": if number % 3 == 0 { "error" } else { "info" },
                "service": if number % 2 == 0 { "api" } else { "web" }, "host": "h1",
                "message": format!("connection refused by node-{number}"), "correlation_id": format!("c-{}", number / 10),
                "tags": ["t"], "performance_metrics": {"duration_ms": number}, "extra": {"number": number},
            })
        })
        .collect();
    stores.service.ingest(&json!(events)).await;
    stores.service.until_delivered().await;
}

#[tokio::test]
async fn text_is_found_by_elasticsearch_while_it_is_up_to_date_and_by_postgresql_otherwise() {
    let mut stores = RealStores::start().await;
    fill(&stores).await;
    // Named, because the test's default tenant has a stream of its own, and the cluster those of other tests.
    let path = format!(
        "/api/v1/search?query=Connection%20refused&level=error&service=api&tags=t&limit=3&tenant={}",
        stores.stream.tenant
    );
    let path = path.as_str();
    let fresh = stores
        .service
        .until_answer(path, |answer| {
            answer["rows"].as_array().is_some_and(|rows| rows.len() == 3)
        })
        .await;
    assert_eq!(fresh["store"], "elasticsearch");
    assert!(fresh["behind_seconds"].as_f64() > Some(0.0));
    assert_eq!(
        messages(&fresh),
        [0, 6, 12].map(|n| format!("connection refused by node-{n}"))
    );
    let next = fresh["next"].as_str().expect("there is more").replace('/', "%2F");
    let second = asked(&stores.service, &format!("{path}&before={next}")).await;
    assert_eq!(
        (&second["store"], &second["next"]),
        (&json!("elasticsearch"), &Value::Null)
    );
    assert_eq!(
        messages(&second),
        [18, 24].map(|n| format!("connection refused by node-{n}"))
    );
    // Without text there is nothing that Elasticsearch would know better.
    assert_eq!(
        asked(&stores.service, "/api/v1/search?level=error").await["store"],
        "postgresql"
    );
    stores.service.kill();
    let behind = Settings::new(stores.database.url(), "http://127.0.0.1:9", &stores.stream.tenant);
    stores.service = Service::start(behind).await;
    let fallen_back = asked(&stores.service, path).await;
    assert_eq!(
        (&fallen_back["store"], &fallen_back["behind_seconds"]),
        (&json!("postgresql"), &json!(0.0))
    );
    assert_eq!(fallen_back["rows"], fresh["rows"]);
    assert_eq!(fallen_back["next"], fresh["next"]);
    let note = fallen_back["note"].as_str().expect("a note");
    assert!(note.contains("PostgreSQL: Elasticsearch is not ready"), "{note}");
}

#[tokio::test]
async fn text_is_found_by_postgresql_while_elasticsearch_is_well_but_further_behind_than_allowed() {
    // Longer than any machine takes to ask; what is to be too old is made so.
    let stores = RealStores::start_with(|settings| settings.set("api.search_behind_max", "10m")).await;
    let path = format!("/api/v1/search?query=disk&tenant={}", stores.stream.tenant);
    let (path, rows) = (path.as_str(), |answer: &Value| answer["rows"].as_array().map(Vec::len));
    let send = async |message: &str| stores.service.ingest(&json!([{"message": message}])).await;
    send("disk one is full").await;
    let fresh = stores.service.until_answer(path, |answer| {
        rows(answer) == Some(1) && answer["store"] == "elasticsearch"
    });
    assert_eq!(fresh.await["note"], Value::Null);

    // Nobody may take what comes now; nothing is wrong with Elasticsearch, and nobody says so.
    for statement in [
        "create function public.put_off() returns trigger language plpgsql as
           $$ begin new.next_attempt_at := now() + interval '1 day'; return new; end $$",
        "create trigger put_off before insert on log_writer.outbox for each row execute function public.put_off()",
    ] {
        stores.database.execute(statement).await;
    }
    let sent = Instant::now();
    send("disk two is full").await;
    let first = asked(&stores.service, path).await;
    let oldest = sent.elapsed().as_secs_f64();
    let age = "update log_writer.outbox set enqueued_at = now() - interval '1 hour'";
    stores.database.execute(age).await;
    let behind = stores
        .service
        .until_answer(path, |answer| answer["store"] == "postgresql")
        .await;
    assert_eq!(messages(&behind), ["disk two is full", "disk one is full"]);
    let note = behind["note"].as_str().expect("a note");
    assert!(
        note.contains("looked for in PostgreSQL: Elasticsearch is")
            && note.contains("more than api.search_behind_max (10m)"),
        "{note}"
    );
    let status = stores.service.status().await;
    assert_eq!(
        (
            &status["elasticsearch"]["bootstrapped"],
            &status["elasticsearch"]["problem"]
        ),
        (&json!(true), &Value::Null),
        "{status}"
    );
    // Before that it was asked, knew the first alone, and said how old that may be.
    assert_eq!(
        (&first["store"], rows(&first)),
        (&json!("elasticsearch"), Some(1)),
        "{first}"
    );
    let told = first["behind_seconds"].as_f64().expect("a number");
    assert!(told > 1.0 && told <= oldest + 1.0, "its age and a refresh: {first}");

    for statement in [
        "drop trigger put_off on log_writer.outbox",
        "update log_writer.outbox set next_attempt_at = now()",
    ] {
        stores.database.execute(statement).await;
    }
    stores.service.until_delivered().await;
    let caught_up = stores.service.until_answer(path, |answer| {
        rows(answer) == Some(2) && answer["store"] == "elasticsearch"
    });
    let caught_up = caught_up.await;
    assert_eq!(
        (&caught_up["rows"], &caught_up["note"]),
        (&behind["rows"], &Value::Null)
    );
}

#[tokio::test]
async fn every_question_of_the_catalogue_is_answered_and_described() {
    let stores = RealStores::start().await;
    fill(&stores).await;
    let document = asked(&stores.service, "/api/openapi.json").await;
    let id = asked(&stores.service, "/api/v1/search?limit=1").await["rows"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 12);
    for (path, described) in paths {
        let id = if path.contains("traces") { "c-1" } else { &id };
        let answer = asked(&stores.service, &path.replace("{id}", id)).await;
        assert_eq!(answer["store"], "postgresql", "{path}");
        assert!(described["get"]["parameters"].is_array(), "{path}");
    }
    let stats = asked(&stores.service, "/api/v1/errors/stats?window=6%20hours").await;
    assert_eq!(
        (
            &stats["rows"][0]["service"],
            &stats["rows"][0]["errors"],
            &stats["rows"][0]["total"]
        ),
        (&json!("api"), &json!(5), &json!(15))
    );
    let context = asked(&stores.service, &format!("/api/v1/logs/{id}/context?before=2&after=0")).await;
    assert_eq!(
        messages(&context),
        [4, 2, 0].map(|n| format!("connection refused by node-{n}"))
    );
    let patterns = stores
        .service
        .until_answer("/api/v1/errors/patterns", |answer| {
            answer["rows"][0]["template"].is_string()
        })
        .await;
    assert_eq!(
        (&patterns["rows"][0]["template"], &patterns["rows"][0]["events"]),
        (&json!("connection refused by node-<num>"), &json!(10))
    );
}

#[tokio::test]
async fn a_wrong_question_is_told_what_is_wrong_with_it() {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let settings =
        Settings::new(database.url(), stream.search.url(), &stream.tenant).set("api.statement_timeout", "200ms");
    let service = Service::start(settings).await;
    let told = async |path: &str| -> Answer { service.send(&Request::get(path)).await };
    for (path, status, message) in [
        (
            "/api/v1/search?levle=error",
            400,
            "`levle` is no parameter of search_logs; it has query, level",
        ),
        ("/api/v1/search?limit=many", 400, "`limit` must be a whole number"),
        ("/api/v1/logs/5", 400, "`id` must be a UUID"),
        ("/api/v1/nothing", 404, "log events go to /ingest"),
    ] {
        let answer = told(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(message), "{path}: {}", answer.text());
    }
    let mut blocked = database.pool().begin().await.expect("a transaction");
    sqlx::query("lock table application_logs in access exclusive mode")
        .execute(&mut *blocked)
        .await
        .expect("locked");
    let slow = told("/api/v1/search").await;
    assert_eq!(slow.status, 504, "{}", slow.text());
    assert!(slow.text().contains("api.statement_timeout"), "{}", slow.text());
}

/// A service that asks for tokens: of `acme`, of `shop`, of an admin, and one that may not read.
async fn with_tokens(database: &Database, folder: &std::path::Path) -> (Service, Vec<String>) {
    let mut entries = String::new();
    let mut secrets = Vec::new();
    for (name, scopes, tenant) in [
        ("a", "ingest,read", "acme"),
        ("b", "ingest,read", "shop"),
        ("c", "read,admin", "shop"),
        ("d", "ingest", "shop"),
        ("e", "annotate", "acme"),
    ] {
        let arguments: Vec<&str> = scopes.split(',').flat_map(|scope| ["--scope", scope]).collect();
        let (entry, secret) = new_token(&[&["--name", name, "--tenant", tenant], arguments.as_slice()].concat()).await;
        entries.push_str(&entry);
        secrets.push(format!("Bearer {secret}"));
    }
    let file = folder.join("tokens.toml");
    std::fs::write(&file, entries).expect("a file");
    let settings = Settings::new(database.url(), "http://127.0.0.1:1", "house")
        .set("elasticsearch.enabled", "false")
        .set("auth.enabled", "true")
        .set("auth.tokens_file", file.to_str().expect("text"));
    (Service::start(settings).await, secrets)
}

#[tokio::test]
async fn a_token_sees_the_events_of_its_tenant_and_an_admin_those_of_all() {
    let folder = tempfile::TempDir::with_prefix("log-writer-tokens-").expect("a folder");
    let database = Database::create().await;
    let (service, secrets) = with_tokens(&database, folder.path()).await;
    let as_whom = async |secret: &str, request: Request| service.send(&request.header("authorization", secret)).await;
    for secret in &secrets[..2] {
        let event = json!([{"message": "disk 1 full", "level": "error", "service": "api", "correlation_id": "same"}]);
        assert_eq!(as_whom(secret, Request::json(&event)).await.status, 200);
    }
    let mut paths = vec!["/api/v1/search".to_owned(), "/api/v1/search?query=disk".to_owned()];
    paths.extend(["traces/same", "errors/stats", "errors/patterns", "volume"].map(|path| format!("/api/v1/{path}")));
    for path in &paths {
        for (secret, others, rows) in [
            (&secrets[0], "shop", 1),
            (&secrets[1], "acme", 1),
            (&secrets[2], "none", 2),
        ] {
            let answer = as_whom(secret, Request::get(path)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert!(!answer.text().contains(others), "{path}: {}", answer.text());
            // Counts of both tenants are one row; an event, or a kind of message, is one for each.
            let expected = if path.ends_with("stats") || path.ends_with("volume") {
                1
            } else {
                rows
            };
            assert_eq!(
                answer.json()["rows"].as_array().map(Vec::len),
                Some(expected),
                "{path}: {}",
                answer.text()
            );
        }
        let other = format!("{path}{}tenant=shop", if path.contains('?') { '&' } else { '?' });
        assert_eq!(as_whom(&secrets[0], Request::get(&other)).await.status, 403, "{other}");
        assert_eq!(as_whom(&secrets[2], Request::get(&other)).await.status, 200, "{other}");
        assert_eq!(
            as_whom(&secrets[3], Request::get(path)).await.status,
            403,
            "no scope read"
        );
        assert_eq!(service.send(&Request::get(path)).await.status, 401);
    }
    // The id of somebody else's event is the id of none.
    let id = as_whom(&secrets[0], Request::get("/api/v1/search")).await.json()["rows"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for path in [format!("/api/v1/logs/{id}"), format!("/api/v1/logs/{id}/context")] {
        let rows = async |secret| {
            as_whom(secret, Request::get(&path)).await.json()["rows"]
                .as_array()
                .map(Vec::len)
        };
        assert_eq!(
            (rows(&secrets[0]).await, rows(&secrets[1]).await),
            (Some(1), Some(0)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_analysis_is_added_with_a_scope_of_its_own_and_to_events_of_the_tenant_alone() {
    let folder = tempfile::TempDir::with_prefix("log-writer-tokens-").expect("a folder");
    let database = Database::create().await;
    let (service, secrets) = with_tokens(&database, folder.path()).await;
    let as_whom = async |secret: &str, request: Request| service.send(&request.header("authorization", secret)).await;
    for secret in &secrets[..2] {
        let event = json!([{"message": "disk full", "timestamp": chrono::Utc::now()}]);
        assert_eq!(as_whom(secret, Request::json(&event)).await.status, 200);
    }
    let event_of = async |secret: &str| as_whom(secret, Request::get("/api/v1/search")).await.json()["rows"][0].clone();
    let (own, other) = (event_of(&secrets[0]).await, event_of(&secrets[1]).await);
    let post = |event: &Value, body: &Value| {
        let path = format!("/api/v1/logs/{}/annotation", event["id"].as_str().expect("an id"));
        Request::new("POST", &path, body.to_string()).header("content-type", "application/json")
    };
    let body = |event: &Value| json!({"timestamp": event["timestamp"], "analysis": {"cause": "cron"}});
    for (secret, event, body, status) in [
        (&secrets[4], &own, body(&own), 200),
        (&secrets[4], &other, body(&other), 404),
        (
            &secrets[4],
            &own,
            json!({"timestamp": "2020-01-01T00:00:00Z", "analysis": {}}),
            404,
        ),
        (
            &secrets[4],
            &own,
            json!({"timestamp": own["timestamp"], "analysis": "text"}),
            400,
        ),
        (
            &secrets[4],
            &own,
            json!({"timestamp": own["timestamp"], "analysis": {}, "level": "INFO"}),
            400,
        ),
        (
            &secrets[4],
            &own,
            json!({"timestamp": own["timestamp"], "analysis": {}, "tenant": "shop"}),
            403,
        ),
        (&secrets[4], &own, json!([]), 400),
        (&secrets[0], &own, body(&own), 403),
        (&secrets[2], &own, body(&own), 403),
    ] {
        let answer = as_whom(secret, post(event, &body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    assert_eq!(event_of(&secrets[0]).await["ai_analysis"], json!({"cause": "cron"}));
    assert_eq!(event_of(&secrets[1]).await["ai_analysis"], Value::Null);
    let recorded = async |action: &str, actor: &str| {
        let query = format!(
            "select count(*) from log_writer.audit where action = '{action}' and actor = '{actor}' and outcome = 'done'"
        );
        database.number(&query).await
    };
    assert_eq!(
        recorded("annotate", "token:e").await,
        1,
        "what was refused changed nothing"
    );
    assert_eq!(recorded("search", "token:a").await, 2);
}

#[tokio::test]
async fn an_analysis_needs_a_tenant_only_where_several_have_such_an_event() {
    let database = Database::create().await;
    let settings = Settings::new(database.url(), "http://127.0.0.1:1", "house")
        .set("elasticsearch.enabled", "false")
        .set("events.body_tenants", "shop");
    let service = Service::start(settings).await;
    let id = uuid::Uuid::now_v7();
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let event = |tenant: &str| json!([{"event_id": id, "timestamp": time, "message": "disk full", "tenant": tenant}]);
    let annotate = async |body: Value| {
        let path = format!("/api/v1/logs/{id}/annotation");
        let request = Request::new("POST", &path, body.to_string()).header("content-type", "application/json");
        service.send(&request).await.status
    };
    let annotated = async |tenant: &str| {
        let query = format!(
            "select count(*) from public.application_logs where tenant = '{tenant}' and ai_analysis ->> 'cause' = 'cron'"
        );
        database.number(&query).await
    };
    let body = json!({"timestamp": time, "analysis": {"cause": "cron"}});
    assert_eq!(annotate(body.clone()).await, 404, "there is no such event");
    assert_eq!(annotate(json!({"analysis": {"cause": "cron"}})).await, 400, "of when?");
    service.ingest(&event("house")).await;
    assert_eq!(annotate(body.clone()).await, 200);
    assert_eq!(annotated("house").await, 1);
    service.ingest(&event("shop")).await;
    assert_eq!(annotate(body.clone()).await, 400, "which one?");
    let mut named = body;
    named["tenant"] = json!("shop");
    assert_eq!(annotate(named).await, 200);
    assert_eq!(annotated("shop").await, 1);
}

#[tokio::test]
async fn tables_of_somebody_else_are_not_described() {
    let reader_of_all = RealStores::start_with(|settings| settings.set("elasticsearch.enabled", "false")).await;
    sqlx::raw_sql("create table public.salaries (name text)")
        .execute(reader_of_all.database.pool())
        .await
        .expect("a table");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "log-writer://tables"}});
    let request = Request::new("POST", "/mcp", call.to_string())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    let answer = reader_of_all.service.send(&request).await;
    assert!(answer.text().contains("application_logs"), "{}", answer.text());
    assert!(!answer.text().contains("salaries"), "{}", answer.text());
}

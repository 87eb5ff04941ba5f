//! Two tenants on the same stores: neither sees, suppresses nor learns of the other's events, and what stands in a body
//! shapes no index, path or statement.

use futures::future::join_all;
use log_writer_tests::{
    client::{Receipt, Request},
    invariants::assert_books_balance,
    search::Document,
    service::{Service, Settings},
    stack::{Database, Stream, random_word},
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{RealStores, credentials::new_token, events::fresh};

/// Two tenants with a token and a stream each.
struct Two {
    service: Service,
    streams: [Stream; 2],
    secrets: [String; 2],
    database: Database,
    _folder: TempDir,
}

impl Two {
    async fn start() -> Self {
        let folder = TempDir::with_prefix("log-writer-tenants-").expect("a folder");
        let (database, first) = (Database::create().await, Stream::create().await);
        let second = first.beside();
        let (one, one_secret) = new_token(&["--name", "one", "--scope", "ingest", "--tenant", &first.tenant]).await;
        let arguments = [
            "--name",
            "two",
            "--scope",
            "ingest",
            "--scope",
            "read",
            "--tenant",
            &second.tenant,
        ];
        let (two, two_secret) = new_token(&arguments).await;
        let file = folder.path().join("tokens.toml");
        std::fs::write(&file, format!("{one}{two}")).expect("a file");
        let settings = Settings::new(database.url(), first.search.url(), "house")
            .set("auth.enabled", "true")
            .set("auth.tokens_file", file.to_str().expect("text"));
        Self {
            service: Service::start(settings).await,
            streams: [first, second],
            secrets: [one_secret, two_secret],
            database,
            _folder: folder,
        }
    }

    async fn send(&self, tenant: usize, request: &Request) -> Receipt {
        let credential = format!("Bearer {}", self.secrets[tenant]);
        let request = request.clone().header("authorization", &credential);
        self.service.send(&request).await.receipt()
    }

    async fn until_delivered(&self) {
        log_writer_tests::conditions::eventually("the outbox to drain", log_writer_tests::conditions::SOON, || async {
            (self.database.number("select count(*) from log_writer.outbox").await == 0).then_some(())
        })
        .await;
    }

    async fn documents(&self, tenant: usize) -> Vec<Document> {
        let stream = &self.streams[tenant];
        stream.search.documents(&stream.name()).await
    }

    async fn rows(&self, tenant: usize) -> i64 {
        let query = format!(
            "select count(*) from public.application_logs where tenant = '{}'",
            self.streams[tenant].tenant
        );
        self.database.number(&query).await
    }
}

#[tokio::test]
async fn equal_bodies_ids_and_keys_of_two_tenants_are_two_events_each_and_neither_is_told() {
    let two = Two::start().await;
    let with_ids = fresh(3);
    // Known by their ids; by their content; by the key that the client gives; without any of it.
    let requests = [
        Request::json(&with_ids),
        Request::json(&json!([{ "timestamp": chrono::Utc::now().to_rfc3339(), "message": "by content" }])),
        Request::json(&json!([{ "message": "by key" }])).header("idempotency-key", "order-4711"),
    ];
    let mut events = 0;
    for request in &requests {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let many = body.as_array().expect("an array").len();
        events += many;
        // At once, so that one transaction may have both.
        let answers = join_all([two.send(0, request), two.send(1, request)]).await;
        assert_eq!(answers, [Receipt::all_committed(many); 2], "{body}");
        let again = join_all([two.send(0, request), two.send(1, request)]).await;
        assert_eq!(again, [Receipt::all_duplicates(many); 2], "each is told of its own");
    }
    // A resend tells of one's own events alone: the second tenant has never sent this.
    let only_first = Request::json(&fresh(2));
    assert_eq!(two.send(0, &only_first).await, Receipt::all_committed(2));
    assert_eq!(two.send(1, &only_first).await, Receipt::all_committed(2));
    events += 2;

    two.until_delivered().await;
    let (first, second) = (two.documents(0).await, two.documents(1).await);
    for (tenant, documents) in [&first, &second].into_iter().enumerate() {
        assert_eq!(
            (documents.len(), two.rows(tenant).await),
            (events, i64::try_from(events).expect("few"))
        );
        let own = &two.streams[tenant].tenant;
        assert!(
            documents
                .iter()
                .all(|document| document.source["tenant"] == own.as_str()),
            "{documents:?}"
        );
    }
    assert!(
        first
            .iter()
            .all(|document| second.iter().all(|other| other.id != document.id)),
        "an id of one tenant is none of the other"
    );
    let reader = Request::get("/api/v1/status").header("authorization", &format!("Bearer {}", two.secrets[1]));
    assert_eq!(two.service.known_status_by(&reader).await["books"]["balanced"], true);
}

#[tokio::test]
async fn a_request_that_waits_keeps_no_equal_one_of_another_tenant_waiting() {
    let two = Two::start().await;
    let event = fresh(1)[0].clone();
    two.send(0, &Request::json(&json!([event]))).await;
    // Whoever stores the first tenant's event now has to wait and see whether it is deleted.
    let mut deletes = two.database.pool().begin().await.expect("a transaction");
    sqlx::query("delete from public.application_logs where tenant = $1")
        .bind(&two.streams[0].tenant)
        .execute(&mut *deletes)
        .await
        .expect("a deletion");
    let request = Request::json(&json!([event, fresh(1)[0]]));
    let waits = two.send(0, &request);
    tokio::pin!(waits);
    let other = tokio::select! {
        receipt = two.send(1, &request) => receipt,
        receipt = &mut waits => panic!("answered while its event is held: {receipt:?}"),
    };
    assert_eq!(other, Receipt::all_committed(2));
    assert!(futures::poll!(&mut waits).is_pending(), "the first still waits");
    deletes.rollback().await.expect("a rollback");
    let receipt = waits.await;
    assert_eq!((receipt.committed, receipt.duplicates), (1, 1), "{receipt:?}");
}

#[tokio::test]
async fn a_body_that_names_another_tenant_does_not_get_there_and_a_dead_letter_carries_its_own() {
    let two = Two::start().await;
    let other = two.streams[1].tenant.clone();
    let mut events = fresh(4);
    for (event, name) in events.as_array_mut().expect("an array").iter_mut().zip([
        json!({ "tenant": other }),
        json!({ "tenant_id": other }),
        json!({ "data_stream": { "namespace": other, "dataset": "app", "type": "logs" } }),
        json!({ "_index": two.streams[1].name(), "data_stream.namespace": other, "@metadata": { "index": two.streams[1].name() } }),
    ]) {
        event.as_object_mut().expect("an object").extend(name.as_object().expect("an object").clone());
    }
    assert_eq!(two.send(0, &Request::json(&events)).await, Receipt::all_committed(4));
    let broken = Request::new(
        "POST",
        "/ingest",
        format!("{{\"message\":\"a\"}}\n{{\"tenant\":\"{other}\", broken\n"),
    )
    .header("content-type", "application/x-ndjson");
    assert_eq!(two.send(0, &broken).await.dead_lettered, 1);
    assert_eq!(two.send(1, &broken).await.dead_lettered, 1, "each has its own");
    two.until_delivered().await;
    assert_eq!((two.rows(0).await, two.rows(1).await), (5, 1));
    assert_eq!((two.documents(0).await.len(), two.documents(1).await.len()), (5, 1));
    for stream in &two.streams {
        let letters = format!(
            "select count(*) from log_writer.dead_letters where tenant = '{}'",
            stream.tenant
        );
        assert_eq!(two.database.number(&letters).await, 1);
    }
}

/// What has shaped a path, a name, a statement or a line of a bulk elsewhere; `$` stands for a word of the test.
const HOSTILE: [&str; 24] = [
    "../../$",
    "..%2f..%2f$",
    "logs-app-$",
    "logs-app-$/_doc/1",
    ".ds-logs-app-$-000001",
    "*",
    "-logs-*,$",
    "<$-{now/d}>",
    "$'; drop table public.application_logs; --",
    "$\"; drop schema log_writer cascade; --",
    "$$ $$ \\. \\N \\x00",
    "$1, $2",
    "%s%n$",
    "$\n{\"delete\":{\"_index\":\"logs-app-$\",\"_id\":\"1\"}}\n",
    "$\r\n\r\nDELETE /logs-app-$ HTTP/1.1\r\n\r\n",
    "$\u{0}",
    "\u{202e}$",
    "{{$}}${$}",
    "$\\",
    "\"}$",
    "_all",
    "_bulk?pipeline=$",
    "\u{feff}$",
    "CON:$|",
];

fn hostile(marker: &str, runner: &mut TestRunner) -> Vec<String> {
    let fixed = HOSTILE.iter().map(|text| text.replace('$', marker));
    let drawn = "[a-z0-9/._*?\"<>|,#:%'$;\\\\{}\\[\\]\\-+ \\n\\t]{1,30}|\\PC{1,20}";
    let drawn = proptest::string::string_regex(drawn).expect("a pattern");
    let drawn: Vec<String> = (0..40)
        .map(|_| drawn.new_tree(runner).expect("a text").current())
        .map(|text| format!("{text}{marker}"))
        .collect();
    fixed.chain(drawn).collect()
}

/// What of Elasticsearch could have been made or moved by a name with this word in it.
async fn made_of(stream: &Stream, marker: &str) -> Value {
    let mut found = Vec::new();
    for path in [
        format!("/_cat/indices/*{marker}*?format=json&expand_wildcards=all"),
        format!("/_data_stream/*{marker}*"),
        format!("/_index_template/*{marker}*"),
        format!("/_cat/aliases/*{marker}*?format=json"),
    ] {
        let (status, answer) = stream.search.call("GET", &path, None).await.expect("it answers");
        assert!(matches!(status, 200 | 404), "{path}: {answer}");
        found.push(if status == 404 { json!([]) } else { answer });
    }
    json!(found)
}

const TABLES: &str = "select string_agg(format('%s.%s', n.nspname, c.relname), ' ' order by n.nspname, c.relname)
    from (select * from pg_class where relkind in ('r', 'v', 'p', 'f', 'm', 'S')) c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'log_writer')";

#[tokio::test]
async fn no_text_in_an_event_shapes_an_index_a_path_or_a_statement() {
    let stores = RealStores::start().await;
    let marker = random_word();
    let seed: [u8; 32] = rand_seed();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let tables = stores.database.text(TABLES).await;
    let names = [
        "_index",
        "_id",
        "_routing",
        "tenant",
        "service",
        "level",
        "host",
        "message",
        "tags",
        "correlation_id",
        "user_id",
        "trace_id",
        "pipeline",
        "@timestamp",
    ];
    let now = chrono::Utc::now();
    let mut sent = 0;
    for text in hostile(&marker, &mut runner) {
        // In every place of one event at once, as a name too; the time of it alone is its own where the text is none.
        let mut event = json!({ "timestamp": now.to_rfc3339(), "data_stream": { "type": text, "dataset": text, "namespace": text } });
        for name in names {
            event[name] = json!(text);
        }
        event["fields"] = json!({ text.clone(): text });
        event[&text] = json!(text);
        event["timestamp"] = json!((now - chrono::TimeDelta::milliseconds(sent)).to_rfc3339());
        sent += 1;
        // A path cannot name anything either, nor can a query.
        let mut request = Request::json(&json!([event]));
        request.path = format!("/ingest?index={marker}&pipeline={marker}&tenant={marker}");
        let request = request
            .header("x-tenant", &marker)
            .header("x-index", &format!("logs-app-{marker}"));
        let answer = stores.service.send(&request).await;
        assert_eq!(answer.receipt(), Receipt::all_committed(1), "seed {seed:?}: {text:?}");
    }
    let sent = u64::try_from(sent).expect("few");
    let rows = stores.assert_delivered_exactly_once(sent).await;
    assert!(
        rows.iter().all(|row| row.tenant == stores.stream.tenant),
        "seed {seed:?}"
    );
    assert_eq!(stores.database.text(TABLES).await, tables, "seed {seed:?}");
    assert_eq!(
        made_of(&stores.stream, &marker).await,
        json!([[], { "data_streams": [] }, [], []]),
        "seed {seed:?}"
    );
    assert_books_balance(&stores.service, &stores.database).await;
}

fn rand_seed() -> [u8; 32] {
    let (one, other) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut seed = [0; 32];
    for (place, byte) in seed.iter_mut().zip(one.as_bytes().iter().chain(other.as_bytes())) {
        *place = *byte;
    }
    seed
}

//! Archive, drop and restore by the real binary: both stores have afterwards what they had before.

use chrono::{TimeDelta, Utc};
use log_writer_tests::{
    conditions::{SOON, eventually},
    search::Document,
    service::{Service, Settings, run_command},
    stack::{Database, Stream},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// Every column of every event but the batch.
const EVENTS: &str =
    "select coalesce(string_agg((to_jsonb(l) - 'batch_id')::text, E'\n' order by id), '') from application_logs l";
const COUNT: &str = "select count(*) from application_logs";

/// Stores that have events of six weeks ago, and an archive that is empty.
struct Old {
    settings: Settings,
    stream: Stream,
    database: Database,
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    lines: Vec<Value>,
    error: String,
}

impl Old {
    /// Sixty events of two days: half of them in an index that rolled over since.
    async fn start() -> Self {
        let (database, stream) = (Database::create().await, Stream::create().await);
        let settings = Settings::new(database.url(), stream.search.url(), &stream.tenant);
        let service = Service::start(settings.clone().any_time()).await;
        for half in 0..2 {
            service
                .ingest(&(0..30).map(|number| event(half * 30 + number)).collect())
                .await;
            service.until_delivered().await;
            if half == 0 {
                let path = format!("/{}/_rollover", stream.name());
                stream.search.ok("POST", &path, None).await;
            }
        }
        drop(service);
        Self::count(&database).await;
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings.set("retention.archive_path", &folder.path().to_string_lossy());
        Self {
            settings,
            stream,
            database,
            folder,
        }
    }

    /// What is not counted is not dropped, on the Apache edition.
    async fn count(database: &Database) {
        let count = "select log_writer.refresh_stats(interval '20 days')::text";
        while database.text(count).await == "true" {}
    }

    async fn documents(&self) -> Vec<Document> {
        let mut documents = self.stream.search.documents(&self.stream.name()).await;
        documents.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        documents
    }

    async fn until_dropped(&self) {
        eventually("retention to drop all", SOON, || async {
            (self.database.number(COUNT).await == 0).then_some(())
        })
        .await;
    }

    async fn archive(&self, arguments: &[&str]) -> Said {
        let output = run_command(&[&["archive"], arguments].concat(), &self.settings).await;
        let lines = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        Said {
            code: output.status.code(),
            lines,
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn event(number: i64) -> Value {
    let time = Utc::now() - TimeDelta::days(41 + number % 2) - TimeDelta::seconds(number);
    json!({ "event_id": Uuid::now_v7(), "timestamp": time.to_rfc3339(), "level": "error", "service": "checkout", "host": "h",
        "message": format!("card {number} refused"), "user_id": "u-1", "correlation_id": format!("c-{number}"),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "tags": ["card", "old"],
        "error_details": { "type": "Refused", "stack": "a\nb" }, "performance_metrics": { "duration_ms": 12.5 },
        "ai_analysis": { "cause": "limit" }, "number": number, "deep": { "list": [1, 1.50, "é", null] } })
}

/// The same documents, each once, member by member.
fn assert_same(documents: &[Document], before: &[Document]) {
    let ids = |documents: &[Document]| documents.iter().map(|document| document.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(documents), ids(before), "each document once");
    for (document, before) in documents.iter().zip(before) {
        assert_eq!(document.source, before.source);
    }
}

#[tokio::test]
async fn what_retention_dropped_is_restored_once_into_both_stores() {
    let old = Old::start().await;
    let (events, documents) = (old.database.text(EVENTS).await, old.documents().await);
    assert_eq!(documents.len(), 60);
    let service = Service::start(old.settings.clone()).await;
    old.until_dropped().await;
    let listed = old.archive(&["list", "--json"]).await;
    let held: u64 = listed.lines.iter().filter_map(|file| file["events"].as_u64()).sum();
    assert_eq!((held, listed.code), (60, Some(0)), "{listed:?}");
    let verified = old.archive(&["verify", "--json"]).await;
    assert_eq!(
        (&verified.lines[0]["events"], &verified.lines[0]["damaged"]),
        (&json!(60), &json!(0)),
        "{verified:?}"
    );
    // Elasticsearch's own lifecycle has deleted some of the documents, of both indices.
    for document in documents.iter().step_by(3) {
        let path = format!("/{}/_doc/{}?refresh=true", document.index, document.id);
        old.stream.search.ok("DELETE", &path, None).await;
    }

    let dry = old.archive(&["restore", "--all", "--dry-run", "--json"]).await;
    assert_eq!(
        (&dry.lines[0]["events"], old.database.number(COUNT).await),
        (&json!(60), 0),
        "{dry:?}"
    );
    let done = old.archive(&["restore", "--all", "--json"]).await;
    assert_eq!(
        (done.code, &done.lines[0]["committed"]),
        (Some(0), &json!(60)),
        "{done:?}"
    );
    assert_eq!(old.database.text(EVENTS).await, events);
    service.until_delivered().await;
    assert_same(&old.documents().await, &documents);
    let again = old.archive(&["restore", "--all", "--json"]).await;
    assert_eq!(
        (&again.lines[0]["committed"], &again.lines[0]["duplicates"]),
        (&json!(0), &json!(60)),
        "{again:?}"
    );
    service.until_delivered().await;
    assert_eq!(old.database.text(EVENTS).await, events);
    assert_same(&old.documents().await, &documents);
    let status = service.known_status().await;
    assert_eq!(
        (&status["books"]["balanced"], &status["archive"]["problem"]),
        (&json!(true), &Value::Null),
        "{status}"
    );
    let audited = "select string_agg(concat_ws(' ', action, affected, outcome), ', ' order by id) from log_writer.audit
        where action = 'archive restore'";
    assert_eq!(
        old.database.text(audited).await,
        "archive restore 60 done, archive restore 0 done"
    );
    // The next look, of a new process: what was restored is held.
    drop(service);
    let service = Service::start(old.settings.clone()).await;
    service
        .until_status("a look for what is due", |status| {
            status["archive"]["looked_at"].is_string()
        })
        .await;
    assert_eq!(old.database.number(COUNT).await, 60);
}

#[tokio::test]
async fn a_restore_takes_the_time_and_tenant_that_it_is_asked_for_and_no_tenant_out_of_nowhere() {
    let old = Old::start().await;
    // The later of the two days, whatever the time of day is.
    let middle = "select max(\"timestamp\")::date::text from application_logs";
    let middle = old.database.text(middle).await;
    let before = format!("select count(*) from application_logs where \"timestamp\" < '{middle}'");
    let expected = old.database.number(&before).await;
    assert!((1..60).contains(&expected), "{expected}");
    let service = Service::start(old.settings.clone()).await;
    old.until_dropped().await;
    drop(service);
    for wrong in [
        &["restore"][..],
        &["restore", "--since", "2026-02-01", "--until", "2026-01-01"],
        &["restore", "--all", "--path", "/nowhere"],
    ] {
        let refused = old.archive(wrong).await;
        assert_ne!(refused.code, Some(0), "{refused:?}");
    }
    let none = old.archive(&["restore", "--tenant", "nobody", "--json"]).await;
    assert_eq!(none.lines[0]["events"], 0, "{none:?}");
    let done = old.archive(&["restore", "--until", &middle, "--json"]).await;
    assert_eq!(done.lines[0]["committed"], expected, "{done:?}");
    assert_eq!(old.database.number(COUNT).await, expected);
    // A file of a tenant that nobody has heard of.
    let file = old.archive(&["list", "--json"]).await.lines[0].clone();
    let manifest = old
        .folder
        .path()
        .join(file["day"].as_str().expect("a day"))
        .join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(
        &manifest,
        text.replace(
            &format!("\"tenant\": \"{}\"", old.stream.tenant),
            "\"tenant\": \"stranger\"",
        ),
    )
    .expect("written");
    let refused = old.archive(&["restore", "--all", "--json"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error.contains("knows no tenant stranger"), "{refused:?}");
    let refused = old.archive(&["restore", "--tenant", "stranger", "--json"]).await;
    assert!(
        refused.error.contains("an event of tenant"),
        "a file's events are its tenant's: {refused:?}"
    );
    std::fs::write(&manifest, "{").expect("written");
    let damaged = old.archive(&["verify", "--json"]).await;
    assert_eq!(damaged.code, Some(1), "{damaged:?}");
    let told = damaged.lines[0]["damage"].as_str().expect("a text");
    assert!(told.contains("manifest.json is damaged"), "{told}");
    assert_eq!(
        damaged.lines[1]["damaged"], 1,
        "the others are read all the same: {damaged:?}"
    );
    let days = damaged.lines[1]["days"].as_u64().expect("days");
    assert!(days >= 1, "{damaged:?}");
}

#[tokio::test]
async fn an_archive_that_is_gone_is_told_and_stops_nothing_but_the_drop() {
    let old = Old::start().await;
    let away = old.folder.path().with_extension("away");
    std::fs::rename(old.folder.path(), &away).expect("renamed");
    let service = Service::start(old.settings.clone()).await;
    let status = service
        .until_status("the archive's problem", |status| {
            status["archive"]["problem"].is_string()
        })
        .await;
    let problem = status["archive"]["problem"].as_str().expect("a text");
    assert!(problem.contains("find the archive"), "{problem}");
    assert_eq!(status["metrics"]["log_writer_archive_failing"], 1.0, "{status}");
    assert!(
        service.log().contains("nothing is dropped until it succeeds"),
        "{}",
        service.log()
    );
    service.ingest(&json!([{ "message": "ingest goes on" }])).await;
    assert_eq!(old.database.number(COUNT).await, 61);
    drop(service);
    std::fs::rename(&away, old.folder.path()).expect("renamed");
    let service = Service::start(old.settings.clone()).await;
    eventually("retention to drop what is archived", SOON, || async {
        (old.database.number(COUNT).await == 1).then_some(())
    })
    .await;
    let status = service
        .until_status("a look without a problem", |status| {
            status["archive"]["looked_at"].is_string()
        })
        .await;
    assert_eq!(status["archive"]["problem"], Value::Null, "{status}");
}

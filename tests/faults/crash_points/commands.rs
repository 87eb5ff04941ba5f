//! What changes a store as a whole: migration, bootstrap, dead letters that are tried again, repair, archive and restore.

use std::panic::AssertUnwindSafe;

use chrono::{TimeDelta, Utc};
use futures::FutureExt as _;
use log_writer_tests::{
    conditions::{SOON, eventually},
    search::{Document, Search},
    service::{Service, Settings, assert_died_at, run_command},
    stack::{Database, Stream, random_word},
};
use serde_json::json;
use uuid::Uuid;

use super::{
    bodies::{ACCEPT_POISON, Kind, REFUSE_POISON},
    dies_at,
    sender::Sender,
};

/// Tables, indexes, functions and jobs; without numbers, of which an interrupted migration skips some.
const CATALOGUE: &str = "select string_agg(thing, E'\\n' order by thing) from (
    select format('%s.%s %s', relnamespace::regnamespace, relname, relkind) as thing from pg_class
      where relnamespace in ('public'::regnamespace, 'log_writer'::regnamespace)
    union all select proname || pg_get_function_identity_arguments(oid) from pg_proc
      where pronamespace in ('public'::regnamespace, 'log_writer'::regnamespace)
        and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')
    union all select format('%s %s %s', proc_name, schedule_interval, hypertable_name)
      from timescaledb_information.jobs where job_id >= 1000) all_of_it";

#[tokio::test]
async fn a_migration_that_dies_anywhere_is_taken_up_where_it_stopped() {
    let (database, whole) = (Database::create().await, Database::create().await);
    let settings = |database: &Database| {
        Settings::default()
            .set("database.url", database.url())
            .set("elasticsearch.enabled", "false")
    };
    let done = run_command(&["migrate"], &settings(&whole)).await;
    assert!(done.status.success(), "{done:?}");
    let applied = "select count(*) from log_writer._sqlx_migrations";
    let all = whole.number(applied).await;
    assert!(all > 3, "{all}");
    for number in 0..all {
        for (point, more) in [("migration::before_commit", 0), ("migration::after_commit", 1)] {
            let armed = settings(&database).failpoints(&dies_at(point, 0));
            assert_died_at(&run_command(&["migrate"], &armed).await, point);
            assert_eq!(database.number(applied).await, number + more, "{point}");
        }
    }
    let done = run_command(&["migrate"], &settings(&database)).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(database.text(CATALOGUE).await, whole.text(CATALOGUE).await);
    let service = Service::start(settings(&database)).await;
    let receipt = service.ingest(&json!([{ "message": "stored" }])).await;
    assert_eq!(receipt.committed, 1);
}

/// The objects of a dataset, in the order in which they are applied.
fn objects(dataset: &str) -> [String; 4] {
    [
        format!("/_ilm/policy/logs_policy_{dataset}"),
        format!("/_component_template/logs_settings_{dataset}"),
        format!("/_component_template/logs_mappings_{dataset}"),
        format!("/_index_template/logs_template_{dataset}"),
    ]
}

#[tokio::test]
async fn a_bootstrap_that_dies_before_any_object_is_taken_up_where_it_stopped() {
    let stream = Stream::create().await;
    let dataset = format!("t{}", random_word());
    let outcome = AssertUnwindSafe(bootstrap_dies(&stream, &dataset)).catch_unwind().await;
    // Whatever came of it: this dataset is the test's own.
    let of_dataset = format!("/_data_stream/logs-{dataset}-{}", stream.tenant);
    for path in std::iter::once(of_dataset).chain(objects(&dataset).into_iter().rev()) {
        let (status, answer) = stream.search.call("DELETE", &path, None).await.expect("it answers");
        assert!(matches!(status, 200 | 404), "{path}: {status} {answer}");
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn bootstrap_dies(stream: &Stream, dataset: &str) {
    const POINT: &str = "bootstrap::before_object";
    let database = Database::create().await;
    let settings =
        Settings::new(database.url(), stream.search.url(), &stream.tenant).set("elasticsearch.dataset", dataset);
    for there in 0..4 {
        // Applies the first that is missing, but for the first time, and dies before the next.
        let passes = u32::from(there > 0);
        let mut service = Service::start_unasked(settings.clone().failpoints(&dies_at(POINT, passes)));
        service.until_died_at(POINT).await;
        assert_eq!(count(&stream.search, dataset).await, there);
    }
    let service = Service::start(settings.clone()).await;
    service.ingest(&json!([{ "message": "delivered" }])).await;
    service.until_delivered().await;
    assert_eq!(count(&stream.search, dataset).await, 4);
    let name = format!("logs-{dataset}-{}", stream.tenant);
    assert_eq!(stream.search.documents(&name).await.len(), 1);
    let checked = run_command(&["bootstrap", "--check"], &settings).await;
    assert!(checked.status.success(), "{checked:?}");
}

/// How many of the objects are there, counted in their order.
async fn count(search: &Search, dataset: &str) -> usize {
    let mut there = Vec::new();
    for path in objects(dataset) {
        let (status, _) = search.call("GET", &path, None).await.expect("it answers");
        there.push(status == 200);
    }
    assert!(there.is_sorted_by(|one, next| one >= next), "out of order: {there:?}");
    there.into_iter().filter(|there| *there).count()
}

async fn redrive(settings: &Settings) -> std::process::Output {
    run_command(&["dead-letters", "redrive", "--all"], settings).await
}

#[tokio::test]
async fn a_redrive_of_unstored_events_that_dies_stores_them_once() {
    let mut sender = Sender::start().await;
    for point in ["recommit::before_commit", "recommit::after_commit"] {
        sender.deliver(Kind::Poisoned).await;
        sender.assert_nothing_lost_or_doubled().await;
        sender.database.execute(ACCEPT_POISON).await;
        let armed = sender.settings.clone().failpoints(&dies_at(point, 0));
        assert_died_at(&redrive(&armed).await, point);
        let done = redrive(&sender.settings).await;
        assert!(done.status.success(), "{point}: {done:?}");
        sender.expect_refused_to_be_stored();
        sender.assert_nothing_lost_or_doubled().await;
        sender.database.execute(REFUSE_POISON[1]).await;
    }
}

#[tokio::test]
async fn a_redrive_of_stored_events_that_dies_delivers_them_once() {
    let mut sender = Sender::start().await;
    sender.service.until_delivered().await;
    let path = format!("/{}/_settings", sender.stream.name());
    for point in ["requeue::before_commit", "requeue::after_commit"] {
        // A pipeline that is not there: every document is refused for good.
        let refusing = json!({ "index.default_pipeline": "absent" });
        sender.stream.search.ok("PUT", &path, Some(&refusing)).await;
        sender.deliver(Kind::Plain).await;
        sender.expect_letters(3);
        sender.assert_nothing_lost_or_doubled().await;
        let accepting = json!({ "index.default_pipeline": null });
        sender.stream.search.ok("PUT", &path, Some(&accepting)).await;
        let armed = sender.settings.clone().failpoints(&dies_at(point, 0));
        assert_died_at(&redrive(&armed).await, point);
        let done = redrive(&sender.settings).await;
        assert!(done.status.success(), "{point}: {done:?}");
        sender.forget_letters();
        sender.assert_nothing_lost_or_doubled().await;
    }
}

#[tokio::test]
async fn a_repair_that_dies_brings_back_once_what_was_missing() {
    let mut sender = Sender::start().await;
    let tenant = sender.stream.tenant.clone();
    let repair = ["verify", "--repair", "--tenant", &tenant];
    for point in ["verify::before_commit", "verify::after_commit"] {
        sender.deliver(Kind::Plain).await;
        sender.assert_nothing_lost_or_doubled().await;
        for document in sender.stream.search.documents(&sender.stream.name()).await {
            let path = format!("/{}/_doc/{}?refresh=true", document.index, document.id);
            sender.stream.search.ok("DELETE", &path, None).await;
        }
        let armed = sender.settings.clone().failpoints(&dies_at(point, 0));
        assert_died_at(&run_command(&repair, &armed).await, point);
        let done = run_command(&repair, &sender.settings).await;
        assert!(matches!(done.status.code(), Some(0 | 1)), "{point}: {done:?}");
        sender.assert_nothing_lost_or_doubled().await;
    }
}

/// Every column of every event but the batch.
const EVENTS: &str =
    "select coalesce(string_agg((to_jsonb(l) - 'batch_id')::text, E'\\n' order by id), '') from application_logs l";

/// Events of four days that are older than they are kept, delivered and counted.
async fn store_old_events(database: &Database, settings: &Settings) {
    let service = Service::start(settings.clone().any_time()).await;
    let event = |number: i64| {
        let time = Utc::now() - TimeDelta::days(40 + number % 4);
        json!({ "event_id": Uuid::now_v7(), "timestamp": time.to_rfc3339(), "level": "error", "message": format!("event {number}"),
            "tags": ["old"], "number": number })
    };
    service.ingest(&(0..40).map(event).collect()).await;
    service.until_delivered().await;
    while database
        .text("select log_writer.refresh_stats(interval '20 days')::text")
        .await
        == "true"
    {}
}

#[tokio::test]
async fn an_archive_or_restore_that_dies_anywhere_costs_no_event_and_goes_on() {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let archive = tempfile::tempdir().expect("a folder");
    let folder = archive.path().to_string_lossy().into_owned();
    let settings = Settings::new(database.url(), stream.search.url(), &stream.tenant)
        .set("delivery.lease", "1s")
        .set("delivery.renew_every", "300ms");
    store_old_events(&database, &settings).await;
    let documents = stream.search.documents(&stream.name()).await;
    let settings = settings.set("retention.archive_path", &folder);
    let events = database.text(EVENTS).await;
    let count = "select count(*) from application_logs";
    for (point, left) in [
        ("archive::before_rename", 40),
        ("archive::before_manifest", 40),
        ("archive::before_drop", 40),
        ("archive::after_drop", 30),
    ] {
        let mut service = Service::start_unasked(settings.clone().failpoints(&dies_at(point, 0)));
        service.until_died_at(point).await;
        assert_eq!(database.number(count).await, left, "{point}");
    }
    let service = Service::start(settings.clone()).await;
    eventually("retention to drop all", SOON, || async {
        (database.number(count).await == 0).then_some(())
    })
    .await;
    for (point, back) in [("restore::before_commit", 0), ("restore::after_commit", 10)] {
        let armed = settings.clone().failpoints(&dies_at(point, 0));
        assert_died_at(&run_command(&["archive", "restore", "--all"], &armed).await, point);
        assert_eq!(database.number(count).await, back, "{point}");
    }
    let done = run_command(&["archive", "restore", "--all"], &settings).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(database.text(EVENTS).await, events);
    service.until_delivered().await;
    let now = stream.search.documents(&stream.name()).await;
    assert_eq!(ids(&now), ids(&documents), "each document once");
    let books = service.known_status().await["books"].clone();
    assert_eq!(books["balanced"], true, "{books}");
}

fn ids(documents: &[Document]) -> Vec<&str> {
    let mut ids: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

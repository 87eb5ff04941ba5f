//! The service with the rights of the ingest role alone, in a database that another role migrates: docs/SECURITY.md.

use chrono::{TimeDelta, Utc};
use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    fake_elasticsearch::{Behaviour, FakeElasticsearch, ItemFault},
    invariants::assert_delivered_exactly_once,
    roles::Roles,
    service::{Service, Settings, run_command},
    stack::Stream,
};
use serde_json::{Value, json};

use crate::events::{event, fresh};

/// What the service and its commands are given.
fn settings_of(roles: &Roles, elasticsearch: &str, tenant: &str) -> Settings {
    Settings::new(&roles.ingest_url(), elasticsearch, tenant).set("database.migrate_on_start", "false")
}

async fn redrive(settings: &Settings) -> Value {
    let output = run_command(&["dead-letters", "redrive", "--all", "--json"], settings).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn the_service_needs_no_more_than_the_ingest_role() {
    let (roles, stream) = (Roles::create().await, Stream::create().await);
    let settings = settings_of(&roles, stream.search.url(), &stream.tenant);
    let mut service = Service::start(settings.clone()).await;
    let name = stream.name();

    // Events, a resend of their bytes, and half of them once more among others.
    let events = fresh(20);
    let request = Request::json(&events);
    assert_eq!(service.send(&request).await.receipt(), Receipt::all_committed(20));
    assert_eq!(service.send(&request).await.receipt(), Receipt::all_duplicates(20));
    let list = events.as_array().expect("an array");
    let mixed = [&list[..10], fresh(10).as_array().expect("an array")].concat();
    let receipt = service.ingest(&Value::Array(mixed)).await;
    assert_eq!((receipt.committed, receipt.duplicates), (10, 10));

    // Late events; on Community once more, into a day that was compressed.
    let days_ago = |message: &str| json!([event(Utc::now() - TimeDelta::days(3), message)]);
    assert_eq!(service.ingest(&days_ago("late")).await, Receipt::all_committed(1));
    sqlx::query(
        "do $$ begin
           if log_writer.timescale_edition() = 'community' then
             perform compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass)
             from timescaledb_information.chunks
             where hypertable_name = 'application_logs' and range_end < now() - interval '1 day';
           end if;
         end $$",
    )
    .execute(roles.database.pool())
    .await
    .expect("compressed");
    let later = days_ago("later");
    assert_eq!(service.ingest(&later).await, Receipt::all_committed(1));
    let again = json!([later[0], event(Utc::now(), "new")]);
    assert_eq!(service.ingest(&again).await.duplicates, 1);

    // What cannot be decoded, and what the table refuses until that is put right.
    let broken = Request::new("POST", "/ingest", "{\"message\":\"a\"}\n{broken\n")
        .header("content-type", "application/x-ndjson");
    assert_eq!(service.send(&broken).await.receipt().dead_lettered, 1);
    let owner = roles.owner_url();
    let constraint = "alter table application_logs add constraint no_poison check (message <> 'poison')";
    roles.run(&owner, &[constraint]).await;
    let poison = json!([event(Utc::now(), "poison"), event(Utc::now(), "good")]);
    assert_eq!(service.ingest(&poison).await.dead_lettered, 1);
    roles
        .run(&owner, &["alter table application_logs drop constraint no_poison"])
        .await;
    let outcome = redrive(&settings).await;
    assert_eq!(
        (&outcome["committed"], &outcome["refused"]),
        (&json!(1), &json!(1)),
        "{outcome}"
    );
    for question in ["search", "errors/stats"] {
        let answer = service.send(&Request::get(&format!("/api/v1/{question}"))).await;
        assert_eq!(answer.status, 200, "{question}: {}", answer.text());
    }
    service.until_delivered().await;
    service.terminate();
    service.until_ended(SOON).await;
    service.restart().await;
    assert_eq!(service.ingest(&fresh(5)).await, Receipt::all_committed(5));
    service.until_delivered().await;
    let documents = stream.search.documents(&name).await;
    assert_delivered_exactly_once(&service, &roles.database, &documents, 20 + 10 + 3 + 1 + 2 + 5).await;
    // Last, since the books keep what was purged.
    for arguments in [
        &["dead-letters", "list"][..],
        &["dead-letters", "purge", "--all", "--older-than", "0s", "--yes"],
    ] {
        let output = run_command(arguments, &settings).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    assert!(!service.log().contains("permission denied"), "{}", service.log());
}

#[tokio::test]
async fn refusals_of_elasticsearch_are_kept_and_redriven_with_the_rights_of_the_ingest_role() {
    let (roles, fake) = (Roles::create().await, FakeElasticsearch::start().await);
    let settings = settings_of(&roles, &fake.url(), "default");
    fake.always(Some(Behaviour::partial(|_, item| {
        (item.source["message"] == "event 3").then(|| ItemFault::new(400, "document_parsing_exception", "no"))
    })));
    let service = Service::start(settings.clone()).await;
    service.ingest(&fresh(5)).await;
    service.until_delivered().await;
    let waiting = "select count(*) from log_writer.dead_letters where stage = 'index' and redriven_at is null";
    assert_eq!(roles.database.number(waiting).await, 1);
    fake.always(None);
    assert_eq!(redrive(&settings).await["requeued"], 1);
    eventually("the letter to be gone", SOON, || async {
        (roles
            .database
            .number("select count(*) from log_writer.dead_letters")
            .await
            == 0)
            .then_some(())
    })
    .await;
    let documents = fake.documents("logs-app-default");
    assert_delivered_exactly_once(&service, &roles.database, &documents, 5).await;
}

#[tokio::test]
async fn a_service_that_may_not_migrate_waits_until_somebody_has() {
    let roles = Roles::before_migrating().await;
    roles
        .run(
            &roles.owner_url(),
            &["grant connect on database logs to log_writer_ingest"],
        )
        .await;
    let fake = FakeElasticsearch::start().await;
    let service = Service::start_unready(settings_of(&roles, &fake.url(), "default")).await;
    let said = "run `log-writer-service migrate`";
    eventually("the log to say what is to be done", SOON, || async {
        service.log().contains(said).then_some(())
    })
    .await;
    let migrated = run_command(&["migrate"], &roles.settings_of_owner()).await;
    assert!(migrated.status.success(), "{migrated:?}");
    roles
        .run(
            &roles.owner_url(),
            &["select log_writer.grant_access('log_writer_ingest', 'ingest')"],
        )
        .await;
    service.until_ready().await;
    assert_eq!(service.ingest(&fresh(3)).await, Receipt::all_committed(3));
}

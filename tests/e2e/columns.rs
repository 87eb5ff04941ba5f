//! The profile `columnar`, seen from outside: what is sent again is stored once, both stores agree, and a configuration
//! that says otherwise than the database is refused. Apache's edition refuses the profile itself.

use log_writer_tests::{
    client::Request,
    service::{Service, Settings, run_command},
    stack::{Database, Stream},
};
use serde_json::Value;

use crate::{events::fresh, replaced};

/// A columnar service between real stores, in the order in which they end backwards; none on the Apache edition.
async fn columnar() -> Option<(Database, Stream, Settings, Service)> {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let settings =
        Settings::new(database.url(), stream.search.url(), &stream.tenant).set("storage.profile", "columnar");
    if database.is_community().await {
        let service = Service::start(settings.clone()).await;
        return Some((database, stream, settings, service));
    }
    let migrated = run_command(&["migrate"], &settings).await;
    let said = String::from_utf8_lossy(&migrated.stderr);
    assert_eq!(migrated.status.code(), Some(1), "{said}");
    assert!(said.contains("needs the Community edition of TimescaleDB"), "{said}");
    None
}

async fn until_refused(service: &Service, parts: [&str; 2]) {
    let refused = |status: &Value| {
        let problem = status["problem"].as_str().unwrap_or_default();
        status["ready"] == false && parts.iter().all(|part| problem.contains(part))
    };
    service.until_status("the refusal", refused).await;
}

#[tokio::test]
async fn an_event_of_two_requests_is_two_rows_and_one_document_and_the_stores_agree() {
    let Some((database, stream, settings, service)) = columnar().await else {
        return;
    };
    let events = fresh(300);
    let all = events.as_array().expect("a list");
    let (first, second) = (Request::json(&events), Request::json(&Value::from(all[200..].to_vec())));
    for (request, expected) in [(&first, (300, 0)), (&first, (0, 300)), (&second, (100, 0))] {
        let answer = service.send(request).await;
        let receipt: Value = serde_json::from_str(&answer.text()).expect("a receipt");
        assert_eq!(
            (&receipt["committed"], &receipt["duplicates"]),
            (&expected.0.into(), &expected.1.into()),
            "{receipt}"
        );
    }
    let message = all[250]["message"].as_str().expect("a message");
    service.until_delivered().await;
    replaced::annotate_in(&database, message, "twice in SQL").await;
    replaced::until_taken(&database).await;
    let status = service.until_delivered().await;
    assert_eq!(
        (&status["books"]["committed"], &status["books"]["indexed"]),
        (&400.into(), &400.into())
    );
    assert_eq!(database.number("select count(*) from application_logs").await, 400);
    let documents = stream.search.documents(&stream.name()).await;
    assert_eq!(documents.len(), 300);
    let annotated = documents.iter().find(|document| document.source["message"] == message);
    assert_eq!(
        annotated.expect("there").source["ai_analysis"]["summary"],
        "twice in SQL"
    );
    let verified = run_command(
        &["verify", "--json", "--sample", "1000", "--tenant", &stream.tenant],
        &settings,
    )
    .await;
    let said = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{said}");
    let sums: Value = serde_json::from_str(said.lines().last().expect("sums")).expect("JSON");
    assert_eq!(
        (&sums["events"], &sums["documents"]),
        (&400.into(), &300.into()),
        "{sums}"
    );
}

#[tokio::test]
async fn a_configuration_of_another_profile_than_the_database_is_refused() {
    let Some((database, _stream, settings, mut service)) = columnar().await else {
        return;
    };
    service.ingest(&fresh(3)).await;
    let rows = settings.clone().set("storage.profile", "row");
    service.kill();
    let other = Service::start_unready(rows.clone()).await;
    until_refused(
        &other,
        ["of this database is columnar", "set storage.profile = columnar"],
    )
    .await;
    let migrated = run_command(&["migrate"], &rows).await;
    assert_eq!(migrated.status.code(), Some(1));
    drop(other);
    let other = Service::start_unready(rows.clone().set("database.migrate_on_start", "false")).await;
    until_refused(
        &other,
        ["of the database is columnar", "run `log-writer-service migrate`"],
    )
    .await;
    drop(other);
    database.execute("truncate application_logs").await;
    let migrated = run_command(&["migrate"], &rows).await;
    let said = String::from_utf8_lossy(&migrated.stdout);
    assert!(said.contains("stored by the profile row from now on"), "{said}");
    let checked = run_command(&["config", "check"], &settings).await;
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("note: storage.profile is columnar"), "{said}");
}

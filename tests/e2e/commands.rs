//! The commands of the binary as an operator runs them: exit codes, and what they say when something cannot be done.

use std::process::Output;

use log_writer_tests::{
    service::{Settings, run_command},
    stack::{Database, Stream, Templates},
};
use serde_json::json;

use crate::{
    RealStores,
    templates::{FOREIGN, forget_all},
};

fn said(output: &Output) -> String {
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{}\n{out}\n{error}", output.status)
}

#[tokio::test]
async fn healthcheck_succeeds_only_while_the_service_runs() {
    let mut stores = RealStores::start().await;
    let settings = Settings::default().set("http.listen", &stores.service.address().to_string());
    let running = run_command(&["healthcheck"], &settings).await;
    assert!(running.status.success(), "{}", said(&running));
    stores.service.kill();
    let gone = run_command(&["healthcheck"], &settings).await;
    assert_eq!(gone.status.code(), Some(1), "{}", said(&gone));
}

#[tokio::test]
async fn migrate_can_be_run_again_and_says_what_it_did() {
    let database = Database::create().await;
    let settings = Settings::default().set("database.url", database.url());
    for _ in 0..2 {
        let output = run_command(&["migrate"], &settings).await;
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{}",
            said(&output)
        );
    }
    assert_eq!(database.number("select count(*) from public.application_logs").await, 0);
}

#[tokio::test]
async fn a_table_of_the_same_name_that_is_not_ours_stops_the_migration_and_is_left_alone() {
    let database = Database::create().await;
    for statement in [
        "create table application_logs (mine text)",
        "insert into application_logs values ('kept')",
    ] {
        sqlx::query(statement)
            .execute(database.pool())
            .await
            .expect("a plain table");
    }
    let output = run_command(&["migrate"], &Settings::default().set("database.url", database.url())).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("application_logs"), "{}", said(&output));
    assert_eq!(
        database
            .number("select count(*) from application_logs where mine = 'kept'")
            .await,
        1
    );
}

#[tokio::test]
async fn bootstrap_applies_checks_and_takes_over_only_by_force() {
    let stream = Stream::with(Templates::alone().await);
    let settings = Settings::default()
        .set("elasticsearch.urls", &format!("[\"{}\"]", stream.search.url()))
        .set("database.url", "postgres://nobody@127.0.0.1:1/nothing");
    let template = "/_index_template/logs_template";
    forget_all(&stream.search).await;

    let missing = run_command(&["bootstrap", "--check"], &settings).await;
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    let (status, _) = stream.search.call("GET", template, None).await.expect("it answers");
    assert_eq!(status, 404, "--check changes nothing");
    for arguments in [&["bootstrap"][..], &["bootstrap", "--check"]] {
        let output = run_command(arguments, &settings).await;
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    let foreign = json!({ "index_patterns": ["logs-*"], "data_stream": {}, "priority": 600,
        "_meta": { "made_by": FOREIGN } });
    stream.search.ok("PUT", template, Some(&foreign)).await;
    let blocked = run_command(&["bootstrap"], &settings).await;
    assert_eq!(blocked.status.code(), Some(1), "{}", said(&blocked));
    assert!(said(&blocked).contains("logs_template"), "{}", said(&blocked));
    // What cannot be recorded is not done.
    let unrecorded = run_command(&["bootstrap", "--force"], &settings).await;
    assert!(
        said(&unrecorded).contains("nothing was changed"),
        "{}",
        said(&unrecorded)
    );
    let theirs = stream.search.ok("GET", template, None).await;
    assert_eq!(theirs["index_templates"][0]["index_template"]["priority"], 600);
    let database = Database::create().await;
    let settings = settings.set("database.url", database.url());
    for arguments in [&["migrate"][..], &["bootstrap", "--force"]] {
        let output = run_command(arguments, &settings).await;
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
    let recorded = "select count(*) from log_writer.audit where action = 'bootstrap --force' and outcome = 'done'";
    assert_eq!(database.number(recorded).await, 1);
    let ours = stream.search.ok("GET", template, None).await;
    assert_eq!(
        ours["index_templates"][0]["index_template"]["index_patterns"],
        json!(["logs-app-*"])
    );
}

#[tokio::test]
async fn all_mistakes_of_the_configuration_are_told_at_once_with_exit_code_2() {
    let settings = Settings::default()
        .set("http.lisen", "127.0.0.1:1")
        .set("events.accept_past", "7 parsecs")
        .set("database.url_file", "/nowhere/at/all");
    for arguments in [&["config", "check"][..], &["serve"], &[]] {
        let output = run_command(arguments, &settings).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        for part in ["lisen", "accept_past", "parsecs", "/nowhere/at/all"] {
            assert!(
                said(&output).contains(part),
                "{arguments:?} does not name {part}: {}",
                said(&output)
            );
        }
    }
}

#[tokio::test]
async fn config_check_shows_where_values_come_from_and_no_secret() {
    let settings = Settings::default()
        .set("database.url", "postgres://user:hunter2@127.0.0.1:5432/logs")
        .set("elasticsearch.api_key", "topsecret");
    let output = run_command(&["config", "check"], &settings).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("LOG_WRITER__DATABASE__URL"), "{}", said(&output));
    for secret in ["hunter2", "topsecret"] {
        assert!(!said(&output).contains(secret), "{}", said(&output));
    }
}

#[tokio::test]
async fn stores_that_cannot_be_reached_are_named_by_the_commands_that_need_them() {
    let settings = Settings::default()
        .set("database.url", "postgres://nobody@127.0.0.1:1/nothing")
        .set("elasticsearch.urls", "[\"http://127.0.0.1:1\"]");
    for arguments in [&["migrate"][..], &["bootstrap"]] {
        let output = run_command(arguments, &settings).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(
            said(&output).contains("127.0.0.1:1"),
            "{arguments:?}: {}",
            said(&output)
        );
    }
}

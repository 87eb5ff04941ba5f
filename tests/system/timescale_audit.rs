//! The audit trail: what is recorded, that nothing happens without it, and who can do what to it.

use std::process::Output;

use log_writer_service::timescale::{
    ActionOutcome, Actor, AuditFilter, AuditRow, connect_pool, end, migrate, progress, purge_audit, record,
};
use log_writer_tests::{
    roles::Roles,
    service::{Settings, run_command},
};
use serde_json::json;
use sqlx::PgPool;

use crate::timescale_database::settings;

/// What strangers sent: nothing of it may stand in the trail.
const SECRET: &str = "the password is hunter2";

async fn letters(roles: &Roles) {
    sqlx::query(
        "insert into log_writer.dead_letters
           (stage, identity, reason, detail, raw, raw_bytes, last_at, path, content_encoding)
         select 'decode', decode(lpad(to_hex(n), 64, '0') || 'ffffffff', 'hex'), 'unknown_encoding', $1, convert_to($1, 'UTF8'),
           length($1), now() - interval '2 days', '/ingest', 'br'
         from generate_series(1, 3) n",
    )
    .bind(SECRET)
    .execute(roles.database.pool())
    .await
    .expect("letters");
    // So that the books balance.
    sqlx::query("insert into log_writer.books (worker, received, dead_lettered) values ('test', 3, 3)")
        .execute(roles.database.pool())
        .await
        .expect("books");
}

async fn command(roles: &Roles, arguments: &[&str]) -> Output {
    let settings = Settings::new(&roles.ingest_url(), "http://127.0.0.1:1", "default");
    run_command(&[&["dead-letters"], arguments].concat(), &settings).await
}

async fn trail(roles: &Roles) -> Vec<AuditRow> {
    let pool = PgPool::connect(&roles.auditor_url()).await.expect("connected");
    let rows = AuditFilter::default()
        .list(&pool, 100)
        .await
        .expect("the auditor reads");
    pool.close().await;
    rows
}

/// The newest row; there are so many more of commands than before.
async fn newest(roles: &Roles, rows: usize) -> AuditRow {
    let mut commands = trail(roles).await;
    commands.retain(|row| row.action.starts_with("dead-letters"));
    assert_eq!(commands.len(), rows, "{commands:?}");
    commands.swap_remove(0)
}

#[tokio::test]
async fn each_command_leaves_one_row_that_says_who_did_what_to_how_many() {
    let roles = Roles::create().await;
    letters(&roles).await;
    let id = roles
        .database
        .number("select min(id) from log_writer.dead_letters")
        .await
        .to_string();

    let output = command(&roles, &["show", &id]).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains(SECRET), "{output:?}");
    let shown = newest(&roles, 1).await;
    assert_eq!(
        (shown.action.as_str(), shown.affected, shown.outcome.as_str()),
        ("dead-letters show", 1, "done")
    );
    assert_eq!(shown.target, json!({ "ids": [id.parse::<i64>().expect("a number")] }));
    assert_eq!(shown.database_role, roles.name_of("log_writer_ingest"));
    assert_eq!(shown.actor, Actor::of_process().to_string());
    assert_eq!(shown.source_address.as_deref(), Some("127.0.0.1"));

    // Nothing here understands the encoding, now as then: three letters are worked on and kept.
    command(
        &roles,
        &["redrive", "--stage", "decode", "--reason", "unknown_encoding"],
    )
    .await;
    let redriven = newest(&roles, 2).await;
    assert_eq!(
        (redriven.action.as_str(), redriven.affected, redriven.outcome.as_str()),
        ("dead-letters redrive", 3, "done")
    );
    assert_eq!(
        redriven.target,
        json!({ "stage": "decode", "reason": "unknown_encoding" })
    );
    assert!(redriven.ended_at >= Some(redriven.at));

    command(
        &roles,
        &["purge", "--all", "--older-than", "0s", "--limit", "2", "--yes"],
    )
    .await;
    let purged = newest(&roles, 3).await;
    assert_eq!(
        (purged.action.as_str(), purged.affected, purged.outcome.as_str()),
        ("dead-letters purge", 2, "done")
    );
    assert_eq!(purged.target, json!({ "limit": 2, "older_than": "0s" }));

    // What changes nothing and shows no bodies.
    for arguments in [
        &["list"][..],
        &["redrive", "--all", "--dry-run"],
        &["purge", "--all", "--dry-run"],
        &["purge", "--all"],
    ] {
        command(&roles, arguments).await;
    }
    newest(&roles, 3).await;

    let whole = "select count(*) from log_writer.audit a where to_jsonb(a)::text like '%hunter2%'";
    assert_eq!(roles.database.number(whole).await, 0);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let roles = Roles::create().await;
    letters(&roles).await;
    let id = roles
        .database
        .number("select min(id) from log_writer.dead_letters")
        .await
        .to_string();
    let kept = "select count(*) from log_writer.dead_letters where attempts = 1";
    let all: [&[&str]; 3] = [
        &["show", &id],
        &["redrive", "--all"],
        &["purge", "--all", "--older-than", "0s", "--yes"],
    ];
    // First the beginning fails, then what counts each transaction.
    for lost in ["record_action", "record_progress"] {
        let sql = format!("alter function log_writer.{lost} rename to {lost}_away");
        roles.run(&roles.owner_url(), &[&sql]).await;
        for arguments in all {
            if (arguments[0], lost) == ("show", "record_progress") {
                continue;
            }
            let output = command(&roles, arguments).await;
            let (out, error) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
            assert!(error.contains("log_writer.audit"), "{arguments:?}: {error}");
            assert!(!out.contains(SECRET), "{arguments:?}: {out}");
        }
        assert_eq!(roles.database.number(kept).await, 3, "without {lost}");
        let sql = format!("alter function log_writer.{lost}_away rename to {lost}");
        roles.run(&roles.owner_url(), &[&sql]).await;
    }
    let running = "select count(*) from log_writer.audit where outcome = 'running' and affected = 0";
    assert_eq!(
        roles.database.number(running).await,
        2,
        "they were begun and did nothing"
    );
}

#[tokio::test]
async fn a_row_that_has_ended_or_is_somebody_elses_takes_no_more_counts() {
    let roles = Roles::create().await;
    let pool = connect_pool(&settings(&roles.ingest_url())).await.expect("a pool");
    let (actor, target) = (Actor::of_process(), json!({}));
    let begin = async |pool: &PgPool| {
        record(pool, &actor, "test", &target, 0, ActionOutcome::Running)
            .await
            .expect("recorded")
    };
    let ended = begin(&pool).await;
    progress(&pool, ended, 5, ActionOutcome::Running)
        .await
        .expect("counted");
    progress(&pool, ended, -1, ActionOutcome::Running)
        .await
        .expect_err("never less");
    end(&pool, ended, false).await.expect("ended");
    progress(&pool, ended, 1, ActionOutcome::Running)
        .await
        .expect_err("it has ended");
    let others = begin(roles.database.pool()).await;
    progress(&pool, others, 1, ActionOutcome::Running)
        .await
        .expect_err("it is the superuser's");
    let rolled_back = begin(&pool).await;
    let mut transaction = pool.begin().await.expect("begun");
    progress(&mut *transaction, rolled_back, 7, ActionOutcome::Running)
        .await
        .expect("counted");
    transaction.rollback().await.expect("rolled back");
    let counts: Vec<i64> =
        sqlx::query_scalar("select affected from log_writer.audit where action = 'test' order by id")
            .fetch_all(roles.database.pool())
            .await
            .expect("rows");
    assert_eq!(counts, [5, 0, 0]);
}

#[tokio::test]
async fn only_the_owners_retention_removes_rows() {
    let roles = Roles::create().await;
    let pool = connect_pool(&settings(&roles.ingest_url())).await.expect("a pool");
    let target = json!({});
    record(&pool, &Actor::of_process(), "old", &target, 0, ActionOutcome::Done)
        .await
        .expect("recorded");
    sqlx::query("update log_writer.audit set at = now() - interval '40 days' where action = 'old'")
        .execute(roles.database.pool())
        .await
        .expect("aged");
    assert_eq!(purge_audit(&pool).await.expect("purged"), 0, "a year by default");
    let mut shorter = settings(&roles.owner_url());
    shorter.audit_retention = std::time::Duration::from_secs(30 * 86_400);
    migrate(&shorter).await.expect("migrated");
    let before = roles.database.number("select count(*) from log_writer.audit").await;
    assert_eq!(purge_audit(&pool).await.expect("purged"), 1);
    assert_eq!(
        roles.database.number("select count(*) from log_writer.audit").await,
        before - 1
    );
}

#[tokio::test]
async fn migrations_and_access_are_recorded_once_and_listed_by_filters() {
    let roles = Roles::create().await;
    migrate(&settings(&roles.owner_url())).await.expect("nothing to do");
    let listed = async |url: &str, filters: &[&str]| {
        let settings = Settings::default().set("database.url", url);
        run_command(&[&["audit", "list", "--json"], filters].concat(), &settings).await
    };
    let count = async |filters: &[&str]| {
        let output = listed(&roles.auditor_url(), filters).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    assert_eq!(count(&["--action", "migrate"]).await, 1);
    assert_eq!(count(&["--action", "migrate", "--actor", "os:"]).await, 1);
    let owner = format!("role:{}", roles.name_of("log_writer_owner"));
    assert_eq!(count(&["--actor", &owner]).await, 3);
    assert_eq!(count(&["--action", "grant_access", "--since", "1h"]).await, 3);
    assert_eq!(count(&["--until", "1h"]).await, 0);
    assert_eq!(count(&["--limit", "2"]).await, 2);
    let output = listed(&roles.ingest_url(), &[]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("auditor"), "{error}");
}

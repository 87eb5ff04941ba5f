//! Rights, schema or server gone wrong: everybody is answered 503 and the service is not ready, until somebody puts it
//! right; then all is committed, and nothing became a dead letter that should not be.

use std::time::Duration;

use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    service::Settings,
};
use serde_json::json;
use sqlx::Executor;

use crate::stage::{Stage, event, pass};

/// Long enough for a request to fail three times alone, and again.
const BROKEN: Duration = Duration::from_secs(5);

const REFUSE: &str = "create function public.refuse() returns trigger language plpgsql as $$ begin $BODY end $$;
    create trigger refuse before insert on public.application_logs for each row execute function public.refuse()";
const REFUSE_NO_MORE: &str = "drop trigger refuse on public.application_logs; drop function public.refuse";

fn refuse(body: &str) -> String {
    REFUSE.replace("$BODY", body)
}

fn soon_refused(settings: Settings) -> Settings {
    settings.set("http.answer_timeout", "2s")
}

/// Breaks something while senders go on, looks at what senders and operators are told, and mends it.
async fn costs_no_event(stage: &Stage, senders: usize, broken: &str, mended: &str, told: &str) {
    stage.service.ingest_until_taken(&json!([event(0)])).await;
    stage.service.until_delivered().await;
    stage.execute(broken).await;
    let senders = stage.traffic(senders, || event(0));
    stage.until_not_ready(told).await;
    let refused = stage.service.send(&Request::json(&json!([event(0)]))).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    // A request without events asks nothing of PostgreSQL, and tells nothing of it.
    stage.service.send(&Request::json(&json!([]))).await;
    assert_eq!(stage.service.send(&Request::get("/ready")).await.status, 503);
    pass(BROKEN).await;
    let rows = stage
        .database
        .number("select count(*) from log_writer.dead_letters")
        .await;
    assert_eq!(rows, 0, "nobody's body is at fault");
    let log = stage.service.log();
    assert!(
        log.contains("not ready: nothing can be committed") && log.contains(told),
        "an alarm"
    );
    stage.execute(mended).await;
    stage.service.until_ready().await;
    let seen = senders.stop().await;
    assert!(seen.refused > 0, "{seen:?}");
    assert_eq!(stage.letters().await, []);
    stage.assert_nothing_lost_or_doubled(1 + seen.acknowledged).await;
}

#[tokio::test]
async fn a_renamed_table_costs_no_event() {
    let stage = Stage::start(soon_refused).await;
    costs_no_event(
        &stage,
        3,
        "alter table application_logs rename to hidden",
        "alter table hidden rename to application_logs",
        "application_logs",
    )
    .await;
}

#[tokio::test]
async fn a_dropped_column_costs_no_event() {
    let stage = Stage::start(soon_refused).await;
    costs_no_event(
        &stage,
        3,
        "alter table application_logs drop column span_id",
        "alter table application_logs add column span_id text",
        "span_id",
    )
    .await;
}

#[tokio::test]
async fn a_dropped_outbox_costs_no_event() {
    let stage = Stage::start(soon_refused).await;
    costs_no_event(
        &stage,
        3,
        "create table log_writer.spare (like log_writer.outbox including all); drop table log_writer.outbox",
        "alter table log_writer.spare rename to outbox",
        "outbox",
    )
    .await;
}

#[tokio::test]
async fn a_server_made_read_only_costs_no_event() {
    let stage = Stage::start(soon_refused).await;
    costs_no_event(
        &stage,
        3,
        "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$;
         select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
        "begin read write;
         do $$ begin execute format('alter database %I reset default_transaction_read_only', current_database()); end $$;
         commit",
        "read-only",
    )
    .await;
}

#[tokio::test]
async fn a_full_disk_costs_no_event() {
    let stage = Stage::start(soon_refused).await;
    costs_no_event(
        &stage,
        3,
        &refuse("raise 'could not extend file: No space left on device' using errcode = '53100';"),
        REFUSE_NO_MORE,
        "No space left on device",
    )
    .await;
}

#[tokio::test]
async fn a_trigger_that_refuses_every_event_costs_none_whether_one_sends_or_many() {
    for senders in [1, 3] {
        let stage = Stage::start(soon_refused).await;
        costs_no_event(
            &stage,
            senders,
            &refuse("raise 'not today';"),
            REFUSE_NO_MORE,
            "not today",
        )
        .await;
    }
}

/// The service with the rights that it needs and no others: a role that every server has stands for its own.
async fn without_superuser(set: impl FnOnce(Settings) -> Settings) -> Stage {
    let mut stage = Stage::start(set).await;
    stage.service.kill();
    stage
        .execute("select log_writer.grant_access('pg_monitor', 'ingest')")
        .await;
    let url = format!("{}?options=-c%20role%3Dpg_monitor", stage.database.url());
    let settings = stage
        .settings
        .clone()
        .set("database.url", &url)
        .set("database.migrate_on_start", "false");
    stage.service.restart_with(settings).await;
    stage
}

#[tokio::test]
async fn revoked_rights_cost_no_event() {
    for (right, of) in [
        ("insert on public.application_logs", "application_logs"),
        ("usage on sequence log_writer.batch_ids", "batch_ids"),
        ("insert on log_writer.outbox", "outbox"),
    ] {
        let stage = without_superuser(soon_refused).await;
        costs_no_event(
            &stage,
            3,
            &format!("revoke {right} from pg_monitor"),
            &format!("grant {right} to pg_monitor"),
            &format!("{of} (42501)"),
        )
        .await;
    }
}

#[tokio::test]
async fn rights_that_delivery_alone_needs_stop_no_sender_and_cost_no_event() {
    for right in ["update on log_writer.outbox", "delete on log_writer.outbox"] {
        let stage = without_superuser(|settings| settings).await;
        stage.service.ingest(&json!([event(0)])).await;
        stage.service.until_delivered().await;
        stage.execute(&format!("revoke {right} from pg_monitor")).await;
        let senders = stage.traffic(3, || event(0));
        eventually("an alarm", SOON, || {
            let log = stage.service.log();
            std::future::ready((log.contains("outbox") && log.contains("42501")).then_some(()))
        })
        .await;
        pass(BROKEN).await;
        assert_eq!(stage.service.status().await["ready"], true, "{right}");
        let before = senders.acknowledged();
        eventually("ten more while the right is missing", SOON, || {
            std::future::ready((senders.acknowledged() >= before + 10).then_some(()))
        })
        .await;
        stage.execute(&format!("grant {right} to pg_monitor")).await;
        let seen = senders.stop().await;
        assert_eq!(seen.refused, 0, "{right}: {seen:?}");
        assert_eq!(stage.letters().await, []);
        stage.assert_nothing_lost_or_doubled(1 + seen.acknowledged).await;
    }
}

fn poisoned() -> Request {
    let mut event = event(0);
    event["message"] = json!("poison");
    Request::json(&json!([event]))
}

const POISON: &str = "if new.message = 'poison' then raise 'refused'; end if; return new;";

const KEPT: Receipt = Receipt {
    received: 1,
    committed: 0,
    duplicates: 0,
    dead_lettered: 1,
};

#[tokio::test]
async fn bodies_that_a_trigger_refuses_become_dead_letters_while_others_are_committed() {
    let stage = Stage::start(|settings| settings).await;
    stage.execute(&refuse(POISON)).await;
    let others = stage.traffic(3, || event(0));
    let refused: Vec<_> = (0..5).map(|_| stage.send_aside(poisoned())).collect();
    for refused in refused {
        assert_eq!(refused.answer().await.receipt(), KEPT);
    }
    assert_eq!(stage.service.status().await["ready"], true);
    let others = others.stop().await;
    assert_eq!(others.refused, 0, "{others:?}");
    let letters = stage.letters().await;
    assert_eq!(letters.len(), 5, "{letters:?}");
    for letter in letters {
        assert_eq!(
            (letter.stage.as_str(), letter.reason.as_str()),
            ("store", "request_failed_alone")
        );
    }
    stage.assert_nothing_lost_or_doubled(others.acknowledged).await;
}

#[tokio::test]
async fn a_body_that_is_refused_alone_is_kept_where_a_rehearsal_succeeds_and_each_attempt_is_counted() {
    let stage = Stage::start(|settings| settings).await;
    stage.service.ingest(&json!([event(0)])).await;
    stage.execute(&refuse(POISON)).await;
    assert_eq!(stage.service.send(&poisoned()).await.receipt(), KEPT);
    let metrics = stage.service.status().await["metrics"].clone();
    let of = |name: &str| {
        metrics[name]
            .as_f64()
            .unwrap_or_else(|| panic!("no {name} in {metrics}"))
    };
    let failed = of("log_writer_commit_failures_total{kind=\"other\"}");
    assert!(failed >= 3.0, "{metrics}");
    // The first event, and the letter.
    assert_eq!(of("log_writer_commits_total") - failed, 2.0, "{metrics}");
    stage.assert_nothing_lost_or_doubled(1).await;
}

#[tokio::test]
async fn bodies_that_fail_alike_with_nothing_committed_between_are_not_all_kept() {
    // As a rule enough to keep a body at its first send, eight transactions and two pauses, and for the third to wait
    // until every request is refused at once: whether others can be committed the service has to find out by itself.
    let stage = Stage::start(|settings| settings.set("http.answer_timeout", "8s")).await;
    stage.execute(&refuse(POISON)).await;
    for _ in 0..2 {
        assert_eq!(stage.service.send_until_taken(&poisoned()).await.committed, 0);
    }
    assert_eq!(stage.letters().await.len(), 2);
    // The third may be one of many: somebody has to look.
    let third = poisoned();
    eventually("the third to be tried often enough", SOON * 2, || async {
        let answer = stage.service.send(&third).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        stage.service.log().contains("not kept as dead letters").then_some(())
    })
    .await;
    assert_eq!(stage.letters().await.len(), 2);
    // Others are committed: it is that body after all.
    let others = stage.traffic(3, || event(0));
    eventually("the third to be kept", SOON, || async {
        (stage.service.send(&third).await.status == 200).then_some(())
    })
    .await;
    let others = others.stop().await;
    assert_eq!(stage.letters().await.len(), 3);
    stage.assert_nothing_lost_or_doubled(others.acknowledged).await;
}

#[tokio::test]
async fn what_was_locked_for_everybody_is_committed_when_the_lock_is_gone() {
    let stage = Stage::start(soon_refused).await;
    let mut holder = stage.hold("lock table log_writer.outbox in share mode").await;
    let senders = stage.traffic(3, || event(0));
    pass(BROKEN).await;
    let request = Request::json(&json!([event(0)]));
    let answer = stage.service.send(&request).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    holder.execute("rollback").await.expect("released");
    let seen = senders.stop().await;
    // Its transaction may have been begun when it was answered.
    stage.service.send_until_taken(&request).await;
    assert_eq!(stage.letters().await, []);
    stage.assert_nothing_lost_or_doubled(seen.acknowledged + 1).await;
}

#[tokio::test]
async fn one_committer_that_loses_its_connection_leaves_the_service_ready() {
    let stage = Stage::start(|settings| settings.set("database.committers", "2")).await;
    let senders = stage.traffic(4, || event(0));
    // Before the other has committed it may not be connected yet.
    let others_commits = "select count(*) from log_writer.books where worker like 'committer % 2'";
    eventually("the other committer to commit", SOON, || async {
        (stage.database.number(others_commits).await > 0).then_some(())
    })
    .await;
    let backend = "select coalesce(min(pid), 0)::bigint from pg_stat_activity
                   where datname = current_database() and application_name like 'log-writer committer % 1'";
    let mut ended = 0;
    for _ in 0..20 {
        let another = eventually("the committer to be connected", SOON, || async {
            let pid = stage.database.number(backend).await;
            (pid != 0 && pid != ended).then_some(pid)
        });
        ended = another.await;
        stage.execute(&format!("select pg_terminate_backend({ended})")).await;
    }
    let seen = senders.stop().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    let log = stage.service.log();
    assert!(log.contains("a committer lost PostgreSQL"), "it was met");
    assert!(!log.contains("not ready: nothing can be committed"), "{log}");
    stage.assert_nothing_lost_or_doubled(seen.acknowledged).await;
}

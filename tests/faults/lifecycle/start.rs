//! Starting: stores that are absent, wrong or not ours, and many processes at once on nothing.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt as _, future::join_all};
use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    proxy::Mode,
    service::{Service, Settings},
    stack::{Database, Stream, random_word, run_as_admin},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use super::{Stores, fresh};

/// Waits until the status says in these words why `/ready` is 503; the log says it too.
async fn until_unready_because(service: &Service, words: &str) {
    service
        .until_status(&format!("the status to say `{words}`"), |status| {
            status["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains(words))
        })
        .await;
    assert_eq!(service.send(&Request::get("/ready")).await.status, 503);
    assert!(
        unquoted(&service.log()).contains(words),
        "the log does not say `{words}`"
    );
}

fn unquoted(text: &str) -> String {
    text.replace("\\\"", "\"")
}

/// Waits until the status says what is wrong with Elasticsearch, in these words; the log says it too.
async fn until_not_mirrored_because(service: &Service, words: &str) {
    service
        .until_status(&format!("the status to say `{words}`"), |status| {
            let problem = status["elasticsearch"]["problem"].as_str();
            problem.is_some_and(|problem| problem.contains(words))
        })
        .await;
    assert!(
        unquoted(&service.log()).contains(words),
        "the log does not say `{words}`"
    );
}

#[tokio::test]
async fn stores_that_appear_later_are_used_in_whichever_order_they_come() {
    for postgres_first in [true, false] {
        let stores = Stores::create().await;
        stores.postgres.set(Mode::Refuse);
        stores.elasticsearch.set(Mode::Refuse);
        let service = Service::start_unready(stores.settings()).await;
        until_unready_because(&service, "PostgreSQL is expected at").await;
        if postgres_first {
            stores.postgres.set(Mode::Forward);
            service.until_ready().await;
            service.ingest(&fresh(10)).await;
            until_not_mirrored_because(&service, "no answer from elasticsearch").await;
            stores.elasticsearch.set(Mode::Forward);
        } else {
            stores.elasticsearch.set(Mode::Forward);
            service
                .until_status("the bootstrap", |status| {
                    status["elasticsearch"]["bootstrapped"] == true
                })
                .await;
            stores.postgres.set(Mode::Forward);
            service.until_ready().await;
            service.ingest(&fresh(10)).await;
        }
        stores.assert_delivered_exactly_once(&service, 10).await;
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_and_used_once_it_is() {
    let stream = Stream::create().await;
    let later = Database::create().await;
    let name = later.text("select current_database()::text").await;
    run_as_admin(&format!("drop database {name} with (force)")).await;
    let service = Service::start_unready(Settings::new(later.url(), stream.search.url(), &stream.tenant)).await;
    until_unready_because(&service, &format!("database \"{name}\" does not exist")).await;
    run_as_admin(&format!("create database {name}")).await;
    service.until_ready().await;
    service.ingest(&fresh(1)).await;
    service.until_delivered().await;
}

#[tokio::test]
async fn a_role_that_may_not_log_in_is_named_and_let_in_once_it_may() {
    let stores = Stores::create().await;
    let role = format!("lwtest_{}", random_word());
    run_as_admin(&format!("create role {role} nologin superuser")).await;
    let url = stores.database.url().replacen("postgres@", &format!("{role}@"), 1);
    let outcome = AssertUnwindSafe(async {
        let service = Service::start_unready(stores.settings().set("database.url", &url)).await;
        until_unready_because(&service, &format!("role \"{role}\" is not permitted to log in")).await;
        run_as_admin(&format!("alter role {role} login")).await;
        service.until_ready().await;
        service.ingest(&fresh(1)).await;
        stores.assert_delivered_exactly_once(&service, 1).await;
    })
    .catch_unwind()
    .await;
    // What it owns goes with the database, which is this test's own.
    run_as_admin(&format!(
        "drop database {} with (force)",
        stores.database.text("select current_database()::text").await
    ))
    .await;
    run_as_admin(&format!("drop role {role}")).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test]
async fn a_foreign_table_is_named_left_alone_and_out_of_the_way_ours_is_made() {
    let stores = Stores::create().await;
    stores
        .database
        .execute("create table public.application_logs as select 'precious' as line")
        .await;
    let service = Service::start_unready(stores.settings()).await;
    until_unready_because(&service, "was not made by log-writer").await;
    let refused = service.send(&Request::json(&fresh(1))).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(
        stores.database.text("select line from application_logs").await,
        "precious"
    );
    stores
        .database
        .execute("alter table application_logs rename to theirs")
        .await;
    service.until_ready().await;
    service.ingest(&fresh(5)).await;
    stores.assert_delivered_exactly_once(&service, 5).await;
    assert_eq!(stores.database.text("select line from theirs").await, "precious");
}

/// Answers every connection with a page of HTML.
async fn web_server() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    let task = tokio::spawn(async move {
        const PAGE: &[u8] =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\nconnection: close\r\n\r\n<html></html>";
        while let Ok((client, _)) = listener.accept().await {
            let mut client = BufReader::new(client);
            // What is asked is read first: to close with bytes unread takes the page away again.
            let mut line = String::new();
            while !matches!(client.read_line(&mut line).await, Ok(0) | Err(_)) && line != "\r\n" {
                line.clear();
            }
            // Whoever does not wait for the page does not need it.
            client.write_all(PAGE).await.ok();
            client.shutdown().await.ok();
        }
    });
    (url, task)
}

#[tokio::test]
async fn an_elasticsearch_that_is_none_is_named_and_costs_no_event() {
    let stores = Stores::create().await;
    let (url, task) = web_server().await;
    let mut service = Service::start(stores.settings().set("elasticsearch.urls", &format!("[\"{url}\"]"))).await;
    until_not_mirrored_because(&service, "is what elasticsearch.urls names an Elasticsearch?").await;
    service.ingest(&fresh(10)).await;
    let status = service.known_status().await;
    assert_eq!(
        (&status["ready"], &status["books"]["outstanding"]),
        (&true.into(), &10.into()),
        "{status}"
    );
    assert_eq!(status["dead_letters"]["index"], 0, "{status}");
    task.abort();
    service.kill();
    service.restart_with(stores.settings()).await;
    stores.assert_delivered_exactly_once(&service, 10).await;
}

#[tokio::test]
async fn eight_that_start_at_once_on_nothing_migrate_and_bootstrap_once_and_all_become_ready() {
    let stores = Stores::create().await;
    // Of its own, so that nothing of it is there yet.
    let dataset = format!("t{}", random_word());
    let outcome = AssertUnwindSafe(eight(&stores, &dataset)).catch_unwind().await;
    stores.stream.remove_dataset(&dataset).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn eight(stores: &Stores, dataset: &str) {
    let settings = stores.direct().set("elasticsearch.dataset", dataset);
    let services: Vec<Service> = (0..8).map(|_| Service::start_unasked(settings.clone())).collect();
    for service in &services {
        eventually("all to listen", SOON, || async {
            tokio::net::TcpStream::connect(service.address()).await.ok()
        })
        .await;
        service.until_ready().await;
        service
            .until_status("the bootstrap", |status| {
                status["elasticsearch"]["bootstrapped"] == true
            })
            .await;
    }
    let all = stores
        .database
        .number("select count(*) from log_writer._sqlx_migrations")
        .await;
    let applied: Vec<i64> = services.iter().map(|service| applied_by(&service.log())).collect();
    assert_eq!(applied.iter().sum::<i64>(), all, "each migration by one: {applied:?}");
    assert_eq!(
        applied.iter().filter(|count| **count > 0).count(),
        1,
        "by one process: {applied:?}"
    );
    let receipts = join_all(
        services
            .iter()
            .map(|service| async { service.ingest(&fresh(10)).await.committed }),
    )
    .await;
    assert_eq!(receipts, [10; 8]);
    services[0].until_delivered().await;
    let documents = stores
        .stream
        .search
        .documents(&format!("logs-{dataset}-{}", stores.stream.tenant))
        .await;
    log_writer_tests::invariants::assert_delivered_exactly_once(&services[0], &stores.database, &documents, 80).await;
}

/// Migrations that a process says it applied.
fn applied_by(log: &str) -> i64 {
    let after = log
        .split("migrations.applied=")
        .nth(1)
        .expect("it says what it applied");
    let number: String = after.chars().take_while(char::is_ascii_digit).collect();
    number.parse().expect("a number")
}

//! A newcomer's week of logs (`log-demo`), and what docs/SQL.md asks of it in both stores.

use std::{process::Output, time::Duration};

use log_writer_tests::conditions::eventually;
use serde_json::{Value, json};

use crate::RealStores;

/// Events of the past are counted within two minutes.
const COUNTED: Duration = Duration::from_secs(180);

async fn demo(stores: &RealStores) -> String {
    let output: Output = tokio::process::Command::new(env!("CARGO_BIN_EXE_log-demo"))
        .args([
            "--per-hour",
            "40",
            "--url",
            &format!("http://{}", stores.service.address()),
        ])
        .output()
        .await
        .expect("log-demo runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The queries in the document's section about Elasticsearch.
fn documented_queries() -> Vec<Value> {
    let document = include_str!("../../docs/SQL.md");
    let section = document.split("\n## In Elasticsearch\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().expect("its end");
    let blocks = section.split("```json\n").skip(1);
    blocks
        .map(|block| block.split("```").next().expect("an end"))
        .map(|block| serde_json::from_str(block).expect(block))
        .collect()
}

async fn search(stores: &RealStores, query: &Value) -> Value {
    let path = format!("/{}/_search?track_total_hits=true", stores.stream.name());
    stores.stream.search.ok("POST", &path, Some(query)).await
}

/// Counts of an aggregation over services.
fn by_service(answer: &Value) -> Vec<(String, i64)> {
    let buckets = answer["aggregations"]["by_service"]["buckets"]
        .as_array()
        .expect("buckets");
    let mut counts: Vec<(String, i64)> = buckets
        .iter()
        .map(|bucket| {
            let service = bucket["key"].as_str().expect("a service").to_owned();
            (service, bucket["doc_count"].as_i64().expect("a count"))
        })
        .collect();
    counts.sort();
    counts
}

/// The same from SQL.
async fn services_in_sql(stores: &RealStores, condition: &str) -> Vec<(String, i64)> {
    let sql = format!("select service, count(*) from application_logs where {condition} group by 1 order by 1");
    sqlx::query_as(&sql)
        .fetch_all(stores.database.pool())
        .await
        .expect(&sql)
}

#[tokio::test]
async fn the_incidents_of_the_demo_are_found_by_the_questions_of_the_document() {
    let stores = RealStores::start().await;
    let told = demo(&stores).await;
    assert!(
        told.contains("events of a week committed, 0 were there before"),
        "{told}"
    );
    for (incident, sql) in [
        (
            "a new kind of error of auth",
            "select exists(select from new_error_patterns(interval '1 hour') where service = 'auth' and template like 'cannot read claim%')",
        ),
        ("a silent mailer", "select exists(select from silent_services(interval '15 minutes') where service = 'mailer')"),
        ("errors of auth now", "select exists(select from get_error_stats(interval '1 hour') where service = 'auth' and errors >= 3)"),
        (
            "the payment database, three days ago",
            "select count(*) >= 3 from search_logs(p_query := 'refused by payments-db', p_service := 'payment', p_start_time := now() - interval '4 days')",
        ),
        ("a slow catalogue yesterday", "select exists(select from get_latency_stats(interval '2 days') where service = 'catalog' and max_ms >= 4000)"),
        (
            "one failed request over four services",
            "select array_agg(service) = '{gateway,auth,checkout,payment,checkout,gateway}' from trace_logs('abc-123-def')",
        ),
        (
            "errors of a user in the last hour",
            "select count(*) >= 2 from search_logs(p_level := 'ERROR', p_user_id := '123e4567-e89b-12d3-a456-426614174000',
               p_start_time := NOW() - INTERVAL '1 hour')",
        ),
        ("who calls whom", "select exists(select from service_dependencies(interval '1 day') where from_service = 'auth' and to_service = 'catalog')"),
    ] {
        eventually(incident, COUNTED, || async {
            let is_so: bool = sqlx::query_scalar(sql).fetch_one(stores.database.pool()).await.expect(sql);
            is_so.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn every_elasticsearch_query_of_the_document_finds_what_sql_finds() {
    let stores = RealStores::start().await;
    demo(&stores).await;
    eventually("everything to be delivered", COUNTED, || async {
        (stores.service.status().await["books"]["outstanding"] == 0).then_some(())
    })
    .await;
    stores.stream.search.refresh(&stores.stream.name()).await;
    let [refused, slow, code, volume] = <[Value; 4]>::try_from(documented_queries()).expect("four queries");

    let hour = "\"timestamp\" >= now() - interval '1 hour'";
    let found = by_service(&search(&stores, &refused).await);
    let expected = format!("{hour} and level = 'ERROR' and message ~* '\\m(connection|refused)\\M'");
    assert_eq!(found, services_in_sql(&stores, &expected).await);
    assert_eq!(found, [("payment".to_owned(), 1)]);

    let found = search(&stores, &slow).await["hits"]["total"]["value"].as_i64();
    let sql = "select count(*) from application_logs
        where tags @> array['performance'] and log_duration_ms(performance_metrics) >= 5000";
    let expected = stores.database.number(sql).await;
    assert!(expected > 0, "the catalogue was slow");
    assert_eq!(found, Some(expected));

    let answer = search(&stores, &code).await;
    let hits = answer["hits"]["hits"].as_array().expect("hits");
    assert_eq!(hits.len(), 1, "{answer}");
    assert_eq!(
        hits[0]["_source"]["message"],
        json!("connection refused by bank-gateway:443")
    );

    let found = by_service(&search(&stores, &volume).await);
    assert_eq!(found.len(), 6, "{found:?}");
    // The oldest minute passes while both are asked.
    let day = services_in_sql(&stores, "\"timestamp\" >= now() - interval '24 hours'").await;
    let difference: i64 = found.iter().zip(&day).map(|(one, other)| (one.1 - other.1).abs()).sum();
    assert!(difference <= 10, "{found:?}, in SQL {day:?}");
}

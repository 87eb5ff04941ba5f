//! A newcomer's week of logs (`log-demo`), and what docs/SQL.md asks of it in both stores.

use std::{process::Output, time::Duration};

use log_writer_tests::conditions::eventually;
use serde_json::{Value, json};

use crate::{
    RealStores,
    agents::{by_http, rows},
};

/// Events of the past are counted within two minutes.
const COUNTED: Duration = Duration::from_secs(180);

async fn demo(stores: &RealStores) -> String {
    let output: Output = tokio::process::Command::new(env!("CARGO_BIN_EXE_log-demo"))
        .args([
            "--per-hour",
            "120",
            "--url",
            &format!("http://{}", stores.service.address()),
        ])
        .output()
        .await
        .expect("log-demo runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The blocks of a language in a section of the document.
fn blocks(section: &str, language: &str) -> Vec<&'static str> {
    let document = include_str!("../../docs/SQL.md");
    let section = document.split(&format!("\n{section}\n")).nth(1).expect("a section");
    let section = section.split("\n## ").next().expect("its end");
    let begin = format!("```{language}\n");
    let blocks = section.split(begin.as_str()).skip(1);
    blocks.map(|block| block.split("```").next().expect("an end")).collect()
}

fn json_blocks(section: &str) -> Vec<Value> {
    let read = |block: &&str| serde_json::from_str(block).expect(block);
    blocks(section, "json").iter().map(read).collect()
}

/// The cells of an answer as `psql` prints it: those of its head first.
fn printed(answer: &str) -> Vec<Vec<String>> {
    let lines = answer.lines().filter(|line| line.contains('|'));
    lines
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The same of a query's own answer.
async fn answered(stores: &RealStores, sql: &str) -> Vec<Vec<String>> {
    let sql = sql.trim().trim_end_matches(';');
    let rows: Vec<(Vec<String>, Vec<String>)> = sqlx::query_as(&format!(
        "select array(select json_object_keys(row)), array(select coalesce(value, '') from json_each_text(row))
         from (select row_to_json(answer) as row from (\n{sql}\n) answer) answers"
    ))
    .fetch_all(stores.database.pool())
    .await
    .expect(sql);
    let head = rows.first().map(|(head, _)| head.clone());
    head.into_iter().chain(rows.into_iter().map(|(_, row)| row)).collect()
}

/// Whether an answer is like the one in the document: what has no digit in its first row, and in the first column, stands
/// in the same column; in the answer that never changes everything does.
fn is_like(answer: &[Vec<String>], documented: &[Vec<String>], never_changes: bool) -> bool {
    if never_changes {
        return answer == documented;
    }
    let [head, first, others @ ..] = documented else {
        return false;
    };
    let cells = first.iter().enumerate().chain(others.iter().map(|row| (0, &row[0])));
    let mut texts = cells.filter(|(_, cell)| !cell.contains(|c: char| c.is_ascii_digit()));
    answer.len() > 1
        && answer.first() == Some(head)
        && texts.all(|(column, cell)| answer.iter().any(|row| row.get(column) == Some(cell)))
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
async fn the_questions_about_the_week_are_answered_as_the_document_says_by_sql_and_to_an_agent() {
    let stores = RealStores::start().await;
    demo(&stores).await;
    let section = "## A week to ask about";
    let (questions, answers) = (blocks(section, "sql"), blocks(section, "text"));
    assert_eq!((questions.len(), answers.len()), (6, 6), "each has its answer");
    for (question, answer) in questions.into_iter().zip(answers) {
        let documented = printed(answer);
        eventually(question, COUNTED, || async {
            let answer = answered(&stores, question).await;
            is_like(&answer, &documented, question.contains("trace_logs")).then_some(())
        })
        .await;
    }
    stores.service.until_delivered().await;
    let folder = tempfile::TempDir::with_prefix("log-writer-agent-").expect("a folder");
    let agent = by_http(&stores.service, folder.path()).await;
    let calls = json_blocks("### What an agent asks");
    assert!(calls.len() >= 5, "{calls:?}");
    for call in calls {
        let (name, arguments) = (call["name"].as_str().expect("a tool"), call["arguments"].clone());
        let many = if name == "run_sql" {
            answered(&stores, arguments["sql"].as_str().expect("a statement"))
                .await
                .len()
        } else {
            rows(&agent, name.to_owned(), arguments).await.len()
        };
        assert!(many > 0, "{call}");
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
    let queries = json_blocks("## In Elasticsearch");
    let [refused, slow, code, details, volume] = <[Value; 5]>::try_from(queries).expect("five queries");

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

    for (query, message, sql) in [
        (
            code,
            "order 4711 failed: payment is unavailable",
            "fields ->> 'error_code' = 'PAYMENT_UNAVAILABLE'",
        ),
        (
            details,
            "connection refused by bank-gateway:443",
            "error_details ->> 'code' = 'ECONNREFUSED'",
        ),
    ] {
        let answer = search(&stores, &query).await;
        let hits = answer["hits"]["hits"].as_array().expect("hits");
        let messages: Vec<&Value> = hits.iter().map(|hit| &hit["_source"]["message"]).collect();
        assert_eq!(messages, [message], "{answer}");
        // Three days ago there were many.
        let alone = json!({"size": 0, "query": query["query"]["bool"]["must"][0]});
        let of_week = search(&stores, &alone).await;
        let expected = format!("select count(*) from application_logs where {sql}");
        let expected = stores.database.number(&expected).await;
        assert!(expected > 1, "{sql}");
        assert_eq!(of_week["hits"]["total"]["value"], expected, "{query}");
    }

    let found = by_service(&search(&stores, &volume).await);
    assert_eq!(found.len(), 6, "{found:?}");
    // The oldest minute passes while both are asked.
    let day = services_in_sql(&stores, "\"timestamp\" >= now() - interval '24 hours'").await;
    let difference: i64 = found.iter().zip(&day).map(|(one, other)| (one.1 - other.1).abs()).sum();
    assert!(difference <= 10, "{found:?}, in SQL {day:?}");
}

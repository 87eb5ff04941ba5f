//! Events that are poison, twins, out of time, or no log events at all: none costs another its place.

use log_writer_tests::client::{Receipt, Request};
use serde_json::{Value, json};

use crate::{
    RealStores,
    events::{event, fresh},
};

fn ndjson(body: String) -> Request {
    Request::new("POST", "/ingest", body).header("content-type", "application/x-ndjson")
}

#[tokio::test]
async fn metrics_and_traces_become_dead_letters_and_never_a_4xx() {
    let stores = RealStores::start().await;
    let metric = json!({ "name": "requests", "namespace": "app", "kind": "incremental", "counter": { "value": 1.0 } });
    let bodies = [
        json!([metric.clone(), event(chrono::Utc::now(), "beside a metric")]).to_string(),
        format!(
            "{}\n{}",
            json!({ "metric": metric }),
            json!({ "log": event(chrono::Utc::now(), "wrapped") })
        ),
        format!(
            "{}\n{}",
            json!({ "trace": { "trace_id": "a", "span_id": "b" } }),
            event(chrono::Utc::now(), "log")
        ),
    ];
    for body in bodies {
        let receipt = stores.service.send(&ndjson(body.clone())).await.receipt();
        let expected = Receipt {
            received: 2,
            committed: 1,
            duplicates: 0,
            dead_lettered: 1,
        };
        assert_eq!(receipt, expected, "{body}");
    }
    stores.assert_delivered_exactly_once(3).await;
}

#[tokio::test]
async fn a_poison_event_costs_no_neighbour_its_place() {
    let stores = RealStores::start().await;
    let lines = format!(
        "{}\n{{\"message\": broken\n{}\n",
        event(chrono::Utc::now(), "before"),
        event(chrono::Utc::now(), "after")
    );
    let expected = Receipt {
        received: 3,
        committed: 2,
        duplicates: 0,
        dead_lettered: 1,
    };
    assert_eq!(stores.service.send(&ndjson(lines)).await.receipt(), expected);

    // In an array too: what stands around it is stored, and of one that breaks off what stands before.
    let post = |body: String| Request::new("POST", "/ingest", body).header("content-type", "application/json");
    let around = post(format!("[{},{{\"message\": broken}},{}]", fresh(1)[0], fresh(1)[0]));
    assert_eq!(stores.service.send(&around).await.receipt(), expected);
    let broken_off = post(format!("[{},{{\"message\": \"breaks o", fresh(1)[0]));
    let expected = Receipt {
        received: 2,
        committed: 1,
        duplicates: 0,
        dead_lettered: 1,
    };
    assert_eq!(stores.service.send(&broken_off).await.receipt(), expected);

    // What neither store takes as it is: NUL, lone surrogates, huge numbers, deep nesting, odd keys, odd types.
    let deep = (0..200).fold("1".to_owned(), |inner, _| format!("{{\"d\":{inner}}}"));
    let nasty = format!(
        r#"[{{"message":"nul \u0000 and \ud800 alone","a\u0000b":"\udc00","timestamp":"{now}"}},
            {{"message":{{"an":"object"}},"host":{{"not":"text"}},"level":[],"tags":"a,b","timestamp":"{now}"}},
            {{"fields":"a text","performance_metrics":"fast","error_details":[1,2],"user_id":{{"a":1}},"timestamp":"{now}"}},
            {{"deep":{deep},"big":1e400,"digits":{digits},"dup":1,"dup":2,"":"empty","a..b":".","timestamp":"{now}"}},
            {{"service":"{long}","{key}":1,"_id":"x","_source":"y","@timestamp":"{now}"}}]"#,
        now = chrono::Utc::now().to_rfc3339(),
        digits = "9".repeat(400),
        long = "s".repeat(100_000),
        key = "k".repeat(40_000),
    );
    let receipt = stores
        .service
        .send(&Request::new("POST", "/ingest", nasty))
        .await
        .receipt();
    assert_eq!(receipt, Receipt::all_committed(5));
    stores.service.until_delivered().await;
    let documents = stores.stream.search.documents(&stores.stream.name()).await;
    assert_eq!(documents.len(), 10, "no event is refused by the mapping");
}

#[tokio::test]
async fn the_same_id_with_other_content_is_another_event() {
    let stores = RealStores::start().await;
    let first = event(chrono::Utc::now(), "first");
    let mut second = first.clone();
    second["message"] = json!("second");
    assert_eq!(stores.service.ingest(&json!([first])).await, Receipt::all_committed(1));
    assert_eq!(stores.service.ingest(&json!([second])).await, Receipt::all_committed(1));
    for known in [&first, &second] {
        let again = stores.service.ingest(&json!([known])).await;
        assert_eq!(again, Receipt::all_duplicates(1), "both requests are known now");
    }
    let rows = stores.assert_delivered_exactly_once(2).await;
    let flagged: Vec<&Value> = rows
        .iter()
        .map(|row| &row.fields["_log_writer"]["id_conflict"])
        .collect();
    assert_eq!(flagged.iter().filter(|flag| !flag.is_null()).count(), 1, "{flagged:?}");
}

#[tokio::test]
async fn an_event_with_an_id_is_stored_once_whatever_request_brings_it() {
    let stores = RealStores::start().await;
    let events = fresh(3);
    assert_eq!(stores.service.ingest(&events).await, Receipt::all_committed(3));
    let overlapping = json!([events[2], event(chrono::Utc::now(), "new"), events[0]]);
    let expected = Receipt {
        received: 3,
        committed: 1,
        duplicates: 2,
        dead_lettered: 0,
    };
    assert_eq!(stores.service.ingest(&overlapping).await, expected);
    let twice = event(chrono::Utc::now(), "twice in one body");
    let expected = Receipt {
        received: 2,
        committed: 1,
        duplicates: 1,
        dead_lettered: 0,
    };
    assert_eq!(stores.service.ingest(&json!([twice, twice])).await, expected);
    stores.assert_delivered_exactly_once(5).await;
}

#[tokio::test]
async fn a_time_that_cannot_be_used_is_replaced_and_kept() {
    let stores = RealStores::start().await;
    let events = json!([
        { "message": "long ago", "timestamp": "2001-02-03T04:05:06Z" },
        { "message": "far ahead", "timestamp": "2999-01-01T00:00:00Z" },
        { "message": "no time at all", "timestamp": "yesterday" },
    ]);
    assert_eq!(stores.service.ingest(&events).await, Receipt::all_committed(3));
    let rows = stores.assert_delivered_exactly_once(3).await;
    for event in events.as_array().expect("an array") {
        let row = rows
            .iter()
            .find(|row| row.text("message") == event["message"].as_str())
            .expect("a row for each");
        assert_eq!(
            row.fields["_log_writer"]["timestamp"], event["timestamp"],
            "the original is kept"
        );
        let age = chrono::Utc::now().timestamp_micros() - row.timestamp_us;
        assert!((0..60_000_000).contains(&age), "{event} is stored at its arrival");
    }
}

#[tokio::test]
async fn events_without_a_time_stay_in_the_order_in_which_they_were_sent() {
    let stores = RealStores::start().await;
    let lines: Vec<String> = (0..50).map(|line| format!("    at frame {line:02}")).collect();
    let receipt = stores.service.send(&Request::text(&lines.join("\n"))).await.receipt();
    assert_eq!(receipt, Receipt::all_committed(50));
    let in_sql = "select string_agg(message, E'\\n' order by \"timestamp\") from application_logs";
    assert_eq!(stores.database.text(in_sql).await, lines.join("\n"));
    let rows = stores.assert_delivered_exactly_once(50).await;
    let times: std::collections::BTreeSet<i64> = rows.iter().map(|row| row.timestamp_us).collect();
    assert_eq!(times.len(), 50, "a time each: Elasticsearch sorts by it alone");
}

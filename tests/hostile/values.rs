//! Values that parsers and databases choke on: depth, numbers, names, size.

use log_writer_tests::client::Receipt;
use serde_json::Value;

use crate::Target;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
/// Memory of the process in MiB for bodies of a few MiB, and for one of 50 MB.
const MEMORY: u64 = 160;
const MEMORY_OF_50_MB: u64 = 450;

impl Target {
    async fn assert_one_event(&self, event: String) -> Value {
        assert_eq!(self.post(event, JSON).await.receipt(), Receipt::all_committed(1));
        let query = "select to_jsonb(l) from application_logs l order by batch_id desc limit 1";
        sqlx::query_scalar(query)
            .fetch_one(self.database.pool())
            .await
            .expect("the row")
    }
}

#[tokio::test]
async fn json_nested_100_000_deep_is_kept_as_text() {
    const DEEP: usize = 100_000;
    let target = Target::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let value = format!("{}1{}", open.repeat(DEEP), close.repeat(DEEP));
        let row = target
            .assert_one_event(format!("{{\"message\":\"m\",\"deep\":{value}}}"))
            .await;
        let mut deep = &row["fields"]["deep"];
        let mut depth = 0;
        while let Some(inner) = deep.get(0).or_else(|| deep.get("a")) {
            (deep, depth) = (inner, depth + 1);
        }
        assert_eq!(depth, 50);
        let text = deep.as_str().expect("text");
        assert_eq!(text.matches(open).count() + depth, DEEP);
    }
    // As an event of its own: an array within an array is a message.
    let top = format!("{}1{}", "[".repeat(DEEP), "]".repeat(DEEP));
    assert_eq!(target.post(top, JSON).await.receipt(), Receipt::all_committed(1));
    for open in ["[", "{\"a\":"] {
        let receipt = target.post(open.repeat(DEEP), JSON).await.receipt();
        assert_eq!((receipt.committed, receipt.dead_lettered), (0, 1), "never closed");
    }
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_million_names_in_one_event_are_stored() {
    let target = Target::start().await;
    let names: Vec<String> = (0..1_000_000).map(|number| format!("\"k{number}\":1")).collect();
    let event = format!("{{\"message\":\"m\",\"wide\":{{{}}}}}", names.join(","));
    assert_eq!(target.post(event, JSON).await.receipt(), Receipt::all_committed(1));
    let query = "select count(*) from application_logs, jsonb_object_keys(fields -> 'wide')";
    assert_eq!(target.database.number(query).await, 1_000_000);
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_million_elements_in_one_event_are_stored() {
    let target = Target::start().await;
    let tags: Vec<String> = (0..1_000_000).map(|number| format!("\"t{number}\"")).collect();
    let event = format!(
        "{{\"message\":\"m\",\"tags\":[{}],\"list\":[{}]}}",
        tags.join(","),
        tags.join(",")
    );
    assert_eq!(target.post(event, JSON).await.receipt(), Receipt::all_committed(1));
    let query = "select sum(cardinality(tags) + jsonb_array_length(fields -> 'list'))::bigint from application_logs";
    assert_eq!(target.database.number(query).await, 2_000_000);
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn numbers_that_no_double_holds_are_kept_as_text_and_others_digit_by_digit() {
    let target = Target::start().await;
    let huge = "9".repeat(2_000);
    let event = format!(
        "{{\"message\":\"m\",\"a\":1e400,\"b\":-0,\"c\":123456789012345678901234567890,\"d\":1e-400,\"e\":-1E+99999999999,\
         \"f\":0.1000,\"g\":{huge},\"h\":1e308,\"metrics\":{{\"x\":1e400,\"y\":-0.0}},\"level\":1e400,\"timestamp\":1e400}}"
    );
    let row = target.assert_one_event(event).await;
    for (name, expected) in [
        ("a", "1e400"),
        ("d", "1e-400"),
        ("e", "-1E+99999999999"),
        ("g", huge.as_str()),
    ] {
        assert_eq!(row["fields"][name], expected, "{name}");
    }
    let texts = "select (fields ->> 'b') || ' ' || (fields ->> 'c') || ' ' || (fields ->> 'f') from application_logs \
                 where fields ? 'b'";
    let texts: String = sqlx::query_scalar(texts)
        .fetch_one(target.database.pool())
        .await
        .expect("texts");
    assert_eq!(texts, "0 123456789012345678901234567890 0.1000");
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn of_names_that_stand_twice_the_first_names_the_column_and_the_last_stays_in_fields() {
    let target = Target::start().await;
    let event = r#"{"message":"first","message":"last","x":1,"x":2,"level":"error","level":"debug"}"#;
    let row = target.assert_one_event(event.to_owned()).await;
    assert_eq!(
        (row["message"].as_str(), row["level"].as_str()),
        (Some("first"), Some("ERROR"))
    );
    assert_eq!(
        (&row["fields"]["message"], &row["fields"]["x"]),
        (&"last".into(), &2.into())
    );
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_string_of_50_mb_is_stored_whatever_it_is() {
    let target = Target::start().await;
    let long = "x".repeat(50_000_000);
    for (event, length) in [
        (format!("{{\"message\":\"{long}\"}}"), "length(message)"),
        (
            format!("{{\"message\":\"f\",\"field\":\"{long}\"}}"),
            "length(fields ->> 'field')",
        ),
        (
            format!("{{\"message\":\"s\",\"service\":\"{long}\"}}"),
            "length(fields ->> 'service')",
        ),
        (
            format!("{{\"message\":\"k\",\"{long}\":1}}"),
            "length((select max(k) from jsonb_object_keys(fields) k))",
        ),
    ] {
        assert_eq!(
            target.post(event, JSON).await.receipt(),
            Receipt::all_committed(1),
            "{length}"
        );
        let query = format!("select max({length})::bigint from application_logs");
        assert_eq!(target.database.number(&query).await, 50_000_000, "{length}");
    }
    target.assert_unharmed(MEMORY_OF_50_MB).await;
}

#[tokio::test]
async fn times_that_no_calendar_has_become_the_arrival_and_are_kept() {
    let target = Target::start().await;
    let times = [
        "\"9999-12-31T23:59:59Z\"",
        "\"0000-00-00T00:00:00Z\"",
        "\"294277-01-01T00:00:00Z\"",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551616",
        "\"2026-02-30T25:61:61Z\"",
        "{\"a\":[]}",
        "\"\\u0000\"",
    ];
    let events: Vec<String> = times
        .iter()
        .map(|time| format!("{{\"message\":\"m\",\"timestamp\":{time}}}"))
        .collect();
    let receipt = target.post(format!("[{}]", events.join(",")), JSON).await.receipt();
    assert_eq!(receipt, Receipt::all_committed(times.len()));
    // A microsecond apart, in their order.
    let arrived = "select count(distinct \"timestamp\") from application_logs \
                   where \"timestamp\" >= ingested_at and \"timestamp\" < ingested_at + interval '9 microseconds' \
                   and (fields #> '{_log_writer,timestamp}' is not null or fields -> 'timestamp' is not null)";
    assert_eq!(
        target.database.number(arrived).await,
        i64::try_from(times.len()).expect("few")
    );
    target.assert_unharmed(MEMORY).await;
}

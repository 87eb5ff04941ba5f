//! Any event goes through binary COPY into PostgreSQL and comes back as it was.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use log_writer_service::{
    event::{Level, LogEvent, Timestamp},
    timescale::{ClaimOrder, ClaimRequest},
};
use proptest::{
    option,
    prelude::{Strategy, any, prop},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::Value;
use uuid::Uuid;

use crate::timescale_database::{MODE, NOON, request, with_database};

/// Text as PostgreSQL takes it: anything but NUL.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>().prop_filter("no NUL", |c| *c != '\0'), 0..60)
        .prop_map(|chars| chars.into_iter().collect())
}

fn optional() -> impl Strategy<Value = Option<Cow<'static, str>>> {
    option::of(text().prop_map(Cow::Owned))
}

fn json() -> impl Strategy<Value = Option<String>> {
    option::of(
        prop::collection::hash_map(text(), text(), 0..4)
            .prop_map(|map: HashMap<String, String>| serde_json::to_string(&map).expect("a map of strings is JSON")),
    )
}

fn events() -> impl Strategy<Value = LogEvent<'static>> {
    let level = prop::sample::select(vec![
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
        Level::Fatal,
    ]);
    let columns = (
        text(),
        text(),
        optional(),
        optional(),
        optional(),
        optional(),
        optional(),
    );
    let rest = (
        prop::collection::vec(text().prop_map(Cow::Owned), 0..4),
        json(),
        json(),
        json(),
        json(),
    );
    (any::<u128>(), -10_000_000_000_i64..10_000_000_000, level, columns, rest).prop_map(
        |(id, offset, level, (service, message, host, correlation_id, user_id, trace_id, span_id), rest)| LogEvent {
            own_id: Some(Uuid::from_u128(id)),
            claimed_time: None,
            timestamp: Timestamp(NOON + offset),
            tenant: Arc::from("default"),
            level,
            service: Cow::Owned(service),
            host,
            message: Cow::Owned(message),
            correlation_id,
            user_id,
            trace_id,
            span_id,
            tags: rest.0,
            fields: rest.1.unwrap_or_default(),
            error_details: rest.2,
            performance_metrics: rest.3,
            ai_analysis: rest.4,
        },
    )
}

fn parsed(json: Option<&str>) -> Option<Value> {
    json.map(|json| serde_json::from_str(json).expect("JSON"))
}

#[tokio::test]
async fn any_event_comes_back_as_it_was_written() {
    let mut runner = TestRunner::deterministic();
    let written: Vec<LogEvent<'static>> = (0..400)
        .map(|_| events().new_tree(&mut runner).expect("an event").current())
        .collect();
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("any", &written)], &MODE)
            .await
            .expect("committed");
        let claim = ClaimRequest {
            owner: Uuid::nil(),
            lease: std::time::Duration::from_secs(60),
            events_max: 10_000,
            bytes_max: 1_000_000_000,
            order: ClaimOrder::OldestFirst,
            left_alone: &[],
        };
        let rows = database.outbox.claim(&claim).await.expect("claimed");
        let read: HashMap<Uuid, _> = database
            .outbox
            .read_back(&rows)
            .await
            .expect("read back")
            .into_iter()
            .flatten()
            .map(|event| (event.id, event))
            .collect();
        assert_eq!(read.len(), written.len());
        for event in &written {
            let stored = &read[&event.own_id.expect("an id")];
            assert_eq!(
                (stored.timestamp, stored.ingested_at),
                (event.timestamp, Timestamp(NOON))
            );
            assert_eq!((stored.batch_id, &*stored.tenant), (1, "default"));
            assert_eq!(stored.level, event.level.as_str());
            assert_eq!((&*stored.service, &*stored.message), (&*event.service, &*event.message));
            assert_eq!(stored.host.as_deref(), event.host.as_deref());
            assert_eq!(stored.correlation_id.as_deref(), event.correlation_id.as_deref());
            assert_eq!(stored.user_id.as_deref(), event.user_id.as_deref());
            assert_eq!(stored.trace_id.as_deref(), event.trace_id.as_deref());
            assert_eq!(stored.span_id.as_deref(), event.span_id.as_deref());
            assert_eq!(stored.tags, event.tags);
            let fields = Some(event.fields.as_str()).filter(|fields| !fields.is_empty());
            assert_eq!(parsed(stored.fields.as_deref()), parsed(fields));
            assert_eq!(
                parsed(stored.error_details.as_deref()),
                parsed(event.error_details.as_deref())
            );
            assert_eq!(
                parsed(stored.performance_metrics.as_deref()),
                parsed(event.performance_metrics.as_deref())
            );
            assert_eq!(
                parsed(stored.ai_analysis.as_deref()),
                parsed(event.ai_analysis.as_deref())
            );
        }
    })
    .await;
}

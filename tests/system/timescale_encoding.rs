//! Any event, and what is made of any text, goes through binary COPY into PostgreSQL and comes back as it was.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc};

use log_writer_service::{
    config::DEFAULT_FILE,
    event::{Arrival, Level, LogEvent, Normaliser, RawEvent, Timestamp},
    timescale::{ClaimOrder, ClaimRequest},
};
use proptest::{
    option,
    prelude::{Strategy, any, prop},
    sample::Index,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
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
            fields: rest.1.unwrap_or_default().into(),
            error_details: rest.2,
            performance_metrics: rest.3,
            ai_analysis: rest.4,
        },
    )
}

/// PostgreSQL writes `1e2` as `100`: the same number.
fn parsed(json: Option<&str>) -> Option<Value> {
    fn with_floats(value: &mut Value) {
        match value {
            Value::Number(number) => *value = Value::from(number.as_f64()),
            Value::Array(values) => values.iter_mut().for_each(with_floats),
            Value::Object(members) => members.values_mut().for_each(with_floats),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::from_str(json?).expect("JSON");
    with_floats(&mut value);
    Some(value)
}

/// A runner with a seed of its own each time; a failed test shows it.
#[expect(clippy::print_stdout, reason = "what a test prints is shown when it fails")]
fn runner() -> TestRunner {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    println!("seed {seed:?}");
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// Events of Vector's sources as text, some bytes of each exchanged, left out or repeated.
fn changed_events(runner: &mut TestRunner) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vector-events");
    let mut lines = Vec::new();
    for file in std::fs::read_dir(&folder).expect("the events of Vector's sources") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        lines.extend(text.lines().map(str::to_owned));
    }
    assert!(lines.len() > 6, "only {} events in {}", lines.len(), folder.display());
    let change = (any::<Index>(), 0_usize..9, prop::collection::vec(any::<u8>(), 0..5));
    let changes = prop::collection::vec(change, 0..6);
    (0..40)
        .flat_map(|_| &lines)
        .map(|line| {
            let mut bytes = line.as_bytes().to_vec();
            for (place, length, put) in changes.new_tree(runner).expect("changes").current() {
                let from = place.index(bytes.len() + 1);
                let to = (from + length).min(bytes.len());
                bytes.splice(from..to, put);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
        .collect()
}

#[tokio::test]
async fn what_is_made_of_any_text_is_taken_and_comes_back() {
    let texts = changed_events(&mut runner());
    let file: toml::Table = toml::from_str(DEFAULT_FILE).expect("the delivered configuration");
    let settings = file["events"].clone().try_into().expect("its section events");
    let normaliser = Normaliser::new(&settings).expect("its aliases");
    let arrival = Arrival {
        at: Timestamp(NOON),
        tenant: None,
        wrapper: None,
    };
    let raws = texts.iter().flat_map(|text| {
        [
            RawEvent::Text(text.into()),
            RawEvent::Value(text),
            RawEvent::Object(text),
        ]
    });
    let written: Vec<LogEvent<'_>> = raws
        .filter_map(|raw| normaliser.normalise(raw, &arrival).ok())
        .map(|event| LogEvent {
            own_id: Some(Uuid::new_v4()),
            ..event
        })
        .collect();
    assert!(
        written.len() > texts.len(),
        "{} of {} texts",
        written.len(),
        texts.len()
    );
    come_back(&written).await;
}

#[tokio::test]
async fn any_event_comes_back_as_it_was_written() {
    let mut runner = runner();
    let written: Vec<LogEvent<'static>> = (0..400)
        .map(|_| events().new_tree(&mut runner).expect("an event").current())
        .collect();
    come_back(&written).await;
}

/// Writes events in one commit, reads them back and compares.
async fn come_back(written: &[LogEvent<'_>]) {
    with_database(async |database| {
        let mut committer = database.committer("one").await;
        committer
            .commit(&mut [&mut request("any", written)], &MODE)
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
        for event in written {
            let stored = read.get(&event.own_id.expect("an id")).expect("every event is there");
            assert_eq!(
                (stored.timestamp, stored.ingested_at),
                (event.timestamp, Timestamp(NOON))
            );
            assert_eq!((stored.batch_id, &*stored.tenant), (1, "default"));
            let texts = stored.texts.columns();
            assert_eq!(texts.level, event.level.as_str());
            assert_eq!((texts.service, texts.message), (&*event.service, &*event.message));
            assert_eq!(texts.host, event.host.as_deref());
            assert_eq!(texts.correlation_id, event.correlation_id.as_deref());
            assert_eq!(texts.user_id, event.user_id.as_deref());
            assert_eq!(texts.trace_id, event.trace_id.as_deref());
            assert_eq!(texts.span_id, event.span_id.as_deref());
            assert_eq!(texts.tags, event.tags);
            let fields = Some(&*event.fields).filter(|fields| !fields.is_empty());
            assert_eq!(parsed(texts.fields), parsed(fields));
            assert_eq!(parsed(texts.error_details), parsed(event.error_details.as_deref()));
            assert_eq!(
                parsed(texts.performance_metrics),
                parsed(event.performance_metrics.as_deref())
            );
            assert_eq!(parsed(texts.ai_analysis), parsed(event.ai_analysis.as_deref()));
        }
    })
    .await;
}

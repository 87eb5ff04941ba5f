//! Vector's batches and time limits agree with the service's.

use std::collections::BTreeSet;

use log_writer_tests::vector_programs::{VectorConfig, configs};
use toml::{Table, Value};

use crate::settings::defaults;

/// A control character is one byte for Vector's count and six (`\u0000`) on the wire.
const EXPANSION: usize = 6;

/// The sinks that post to the service.
fn log_writer_sinks(config: &VectorConfig) -> Vec<Table> {
    let sinks = config.components("sinks").into_iter();
    sinks
        .filter(|(_, kind, _)| *kind == "http")
        .map(|(_, _, options)| options.clone())
        .collect()
}

/// All such sinks, each with the name of its file.
fn all_sinks() -> Vec<(String, Table)> {
    let configs = configs().unwrap();
    let sinks = configs.iter().flat_map(|config| {
        log_writer_sinks(config)
            .into_iter()
            .map(|sink| (config.name.clone(), sink))
    });
    let all: Vec<_> = sinks.collect();
    assert_eq!(
        all.len(),
        configs.len() - 1,
        "every file but the agent for Kafka posts to the service"
    );
    all
}

fn at<'a>(options: &'a Table, path: &str) -> &'a Value {
    let mut names = path.split('.');
    let first = options
        .get(names.next().unwrap())
        .unwrap_or_else(|| panic!("no {path}"));
    names.fold(first, |value, name| {
        value.get(name).unwrap_or_else(|| panic!("no {path}"))
    })
}

fn number(options: &Table, path: &str) -> usize {
    usize::try_from(at(options, path).as_integer().unwrap()).unwrap()
}

#[test]
fn a_batch_is_within_every_limit_of_the_service() {
    let service = defaults();
    for (name, sink) in all_sinks() {
        let bytes = number(&sink, "batch.max_bytes");
        let events = number(&sink, "batch.max_events");
        assert!(
            events <= service.events.per_request_max,
            "{name}: more events than one request may have"
        );
        assert!(
            events <= service.database.batch_rows_max,
            "{name}: more events than one commit takes"
        );
        assert!(
            bytes <= service.database.batch_bytes_max,
            "{name}: more bytes than one commit takes"
        );
        assert!(
            bytes * EXPANSION <= service.http.body_bytes_max,
            "{name}: a body could be answered 413"
        );
    }
}

#[test]
fn all_requests_of_one_vector_fit_in_what_the_service_holds() {
    // The body as received, expanded, and as encoded rows.
    const COPIES: usize = 3;
    let held = defaults().http.inflight_bytes_max;
    for (name, sink) in all_sinks() {
        let at_once = number(&sink, "request.adaptive_concurrency.max_concurrency_limit");
        assert!(at_once * number(&sink, "batch.max_bytes") * COPIES <= held, "{name}");
    }
}

#[test]
fn the_longest_line_alone_is_within_the_services_limit() {
    // Vector exempts the first event of a batch from `max_bytes`.
    let service = defaults();
    for config in configs().unwrap() {
        for (name, kind, options) in config.components("sources") {
            if matches!(kind, "file" | "kubernetes_logs") {
                let line = number(options, "max_line_bytes");
                assert!(
                    line * EXPANSION <= service.http.body_bytes_max,
                    "{}: {name}",
                    config.name
                );
            }
        }
    }
}

#[test]
fn vector_waits_longer_than_the_service_takes() {
    let service = defaults();
    let longest = service.http.body_timeout + service.http.answer_timeout;
    for (name, sink) in all_sinks() {
        assert!(
            number(&sink, "request.timeout_secs") as u64 > longest.as_secs(),
            "{name}"
        );
    }
}

#[test]
fn batches_are_kept_on_every_answer_that_can_be_put_right() {
    let wanted: BTreeSet<i64> = [401, 403, 404, 408, 429, 500].into_iter().chain(502..600).collect();
    for (name, sink) in all_sinks() {
        assert_eq!(at(&sink, "retry_strategy.type").as_str(), Some("custom"), "{name}");
        let codes = at(&sink, "retry_strategy.status_codes").as_array().unwrap();
        let codes: Vec<i64> = codes.iter().map(|code| code.as_integer().unwrap()).collect();
        assert_eq!(codes.iter().copied().collect::<BTreeSet<_>>(), wanted, "{name}");
        assert_eq!(codes.len(), wanted.len(), "{name}: a code stands twice");
        assert!(
            sink["request"].get("retry_attempts").is_none(),
            "{name}: attempts must not end"
        );
    }
}

#[test]
fn every_sink_to_the_service_waits_for_its_answer_and_has_a_bounded_buffer() {
    for (name, sink) in all_sinks() {
        assert_eq!(at(&sink, "acknowledgements.enabled"), &Value::Boolean(true), "{name}");
        assert_eq!(at(&sink, "buffer.when_full").as_str(), Some("block"), "{name}");
        assert_eq!(at(&sink, "compression").as_str(), Some("zstd"), "{name}");
        let uri = at(&sink, "uri").as_str().unwrap();
        assert_eq!(
            uri.strip_suffix("/ingest"),
            at(&sink, "healthcheck.uri").as_str().unwrap().strip_suffix("/health")
        );
        let kind = at(&sink, "buffer.type").as_str().unwrap();
        if name == "kafka-aggregator.toml" {
            assert_eq!(
                kind, "memory",
                "a disk buffer would move on in the topic before the commit"
            );
        } else {
            assert_eq!(kind, "disk", "{name}");
            assert!(
                number(&sink, "buffer.max_size") >= 268_435_488,
                "{name}: below what Vector takes"
            );
        }
    }
}

#[test]
fn a_configuration_for_this_machine_posts_to_the_default_address() {
    let listen = defaults().http.listen;
    for (name, sink) in all_sinks() {
        let uri = at(&sink, "uri").as_str().unwrap();
        assert!(uri.contains(&format!(":{}/", listen.port())), "{name}: {uri}");
        if !matches!(name.as_str(), "compose.toml" | "kubernetes.toml") {
            assert_eq!(uri, format!("http://{listen}/ingest"), "{name}");
        }
    }
}

#[test]
fn kafka_events_wait_for_kafka_without_end_and_go_on_only_when_committed() {
    let all = configs().unwrap();
    let find = |name: &str| all.iter().find(|config| config.name == name).unwrap();
    let (_, _, sink) = find("kafka-agent.toml").components("sinks")[0];
    assert_eq!(number(sink, "message_timeout_ms"), 0);
    assert_eq!(at(sink, "acknowledgements.enabled"), &Value::Boolean(true));
    assert_eq!(at(sink, "librdkafka_options.acks").as_str(), Some("all"));
    let (_, _, source) = find("kafka-aggregator.toml").components("sources")[0];
    assert_eq!(at(source, "topics"), &Value::Array(vec![sink["topic"].clone()]));
    assert_eq!(at(source, "auto_offset_reset").as_str(), Some("earliest"));
    assert!(number(source, "drain_timeout_ms") < number(source, "session_timeout_ms"));
}

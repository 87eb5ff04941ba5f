//! What the service applies to the cluster, and that it never touches what is not its own.
//!
//! The names are fixed, so these tests have the cluster's templates alone.

use log_writer_tests::{
    client::{Receipt, Request},
    conditions::{SOON, eventually},
    invariants::assert_delivered_exactly_once,
    search::Search,
    service::{Service, Settings, run_command},
    stack::{DATASET, Database, Stream, Templates, random_word},
};
use serde_json::{Value, json};

use crate::events::fresh;

const OBJECTS: [&str; 2] = ["/_index_template/logs_template", "/_ilm/policy/logs_policy"];

/// Marks what these tests make in somebody else's place: what a failed test leaves of it goes with ours.
pub(crate) const FOREIGN: &str = "somebody else, for the tests of log-writer";

/// Removes our objects, as on a cluster that has never seen the service. Somebody else's are not ours to remove.
pub(crate) async fn forget_all(search: &Search) {
    for path in OBJECTS {
        let (status, found) = search.call("GET", path, None).await.expect("it answers");
        let found = found.to_string();
        let is_ours = found.contains(r#""managed_by":"log-writer""#) || found.contains(FOREIGN);
        assert!(
            status == 404 || is_ours,
            "{path} of this cluster is not the service's: this test needs a cluster without it: {found}"
        );
    }
    remove_all(search).await;
}

/// Also the streams of tests before, which keep a template from going: a `_bulk` of a killed service can arrive, and
/// make its stream again, after that was removed.
async fn remove_all(search: &Search) {
    for path in OBJECTS {
        eventually("no stream of tests before to come again", SOON, || async {
            remove_abandoned_streams(search).await;
            let (status, answer) = search.call("DELETE", path, None).await.expect("it answers");
            let is_in_use = status == 400 && answer.to_string().contains("in use by a data stream");
            assert!(is_in_use || matches!(status, 200 | 404), "{path}: {status} {answer}");
            (!is_in_use).then_some(())
        })
        .await;
    }
}

/// Every stream of a random tenant: who has the templates alone has no test beside it.
async fn remove_abandoned_streams(search: &Search) {
    let found = search
        .ok("GET", &format!("/_data_stream/logs-{DATASET}-t*"), None)
        .await;
    for stream in found["data_streams"].as_array().expect("a list") {
        let name = stream["name"].as_str().expect("a name");
        let tenant = name.rsplit('-').next().and_then(|tenant| tenant.strip_prefix('t'));
        if tenant
            .is_some_and(|word| word.len() == random_word().len() && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            search.ok("DELETE", &format!("/_data_stream/{name}"), None).await;
        }
    }
}

async fn state(search: &Search) -> Vec<Value> {
    let mut state = Vec::new();
    for path in OBJECTS {
        // The policy's `version` counts every PUT, so that an equal state means that none was sent.
        let mut object = search.ok("GET", path, None).await;
        if let Some(policy) = object.get_mut("logs_policy").and_then(Value::as_object_mut) {
            policy.remove("in_use_by");
        }
        state.push(object);
    }
    state
}

async fn bootstrapped(service: &Service) {
    service
        .until_status("the bootstrap", |status| {
            status["elasticsearch"]["bootstrapped"] == true
        })
        .await;
}

#[tokio::test]
async fn templates_and_policy_are_applied_and_left_alone_by_the_second_start() {
    let stream = Stream::with(Templates::alone().await);
    let database = Database::create().await;
    forget_all(&stream.search).await;
    let settings = Settings::new(database.url(), stream.search.url(), &stream.tenant);
    let mut service = Service::start(settings).await;
    bootstrapped(&service).await;
    let first = state(&stream.search).await;
    let template = first[0]["index_templates"][0]["index_template"].clone();
    assert_eq!(
        template["index_patterns"],
        json!(["logs-app-*"]),
        "not Elastic's own pattern"
    );
    assert!(template["data_stream"].is_object(), "{template}");

    service.ingest(&fresh(3)).await;
    service.until_delivered().await;
    let name = stream.name();
    let settings = stream.search.ok("GET", &format!("/{name}/_settings"), None).await;
    let index = settings
        .as_object()
        .and_then(|all| all.values().next())
        .expect("one backing index");
    assert_eq!(
        index.pointer("/settings/index/lifecycle/name"),
        Some(&json!("logs_policy")),
        "{index}"
    );
    assert_eq!(
        index.pointer("/settings/index/refresh_interval"),
        Some(&json!("1s")),
        "{index}"
    );
    let mapping = stream.search.ok("GET", &format!("/{name}/_mapping"), None).await;
    let mapping = mapping
        .as_object()
        .and_then(|all| all.values().next())
        .expect("one backing index");
    let properties = &mapping["mappings"]["properties"];
    assert_eq!(properties["@timestamp"]["type"], "date_nanos", "{mapping}");
    assert_eq!(properties["level"]["type"], "keyword", "{mapping}");
    assert_eq!(properties["message"]["type"], "text", "{mapping}");
    assert_eq!(mapping["mappings"]["dynamic"], "false", "{mapping}");

    service.terminate();
    service.until_ended(std::time::Duration::from_secs(40)).await;
    service.restart().await;
    bootstrapped(&service).await;
    assert_eq!(state(&stream.search).await, first, "the second start changes nothing");
}

#[tokio::test]
async fn a_foreign_template_is_not_touched_is_named_and_only_delivery_waits() {
    let stream = Stream::with(Templates::alone().await);
    let database = Database::create().await;
    forget_all(&stream.search).await;
    // The common tutorial makes exactly this one.
    let foreign = json!({ "index_patterns": ["logs-*"], "data_stream": {}, "priority": 600,
        "_meta": { "made_by": FOREIGN }, "template": { "settings": { "number_of_replicas": 0 } } });
    let path = "/_index_template/logs_template";
    stream.search.ok("PUT", path, Some(&foreign)).await;
    let before = stream.search.ok("GET", path, None).await;

    let service = Service::start(Settings::new(database.url(), stream.search.url(), &stream.tenant)).await;
    assert_eq!(service.ingest(&fresh(30)).await, Receipt::all_committed(30));
    let status = service
        .until_status("the status to name the template", |status| {
            status["elasticsearch"]["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains("logs_template"))
        })
        .await;
    assert_eq!(status["elasticsearch"]["bootstrapped"], false, "{status}");
    assert_eq!(status["ready"], true, "ingest goes on: {status}");
    let status = service.known_status().await;
    assert_eq!(status["books"]["outstanding"], 30, "the backlog is kept: {status}");
    assert!(
        status["elasticsearch"]["problem"]
            .as_str()
            .is_some_and(|text| text.contains("bootstrap --force")),
        "{status}"
    );
    assert_eq!(stream.search.ok("GET", path, None).await, before, "not touched");
    assert!(stream.search.documents(&stream.name()).await.is_empty());

    stream.search.ok("DELETE", path, None).await;
    service.until_delivered().await;
    let documents = stream.search.documents(&stream.name()).await;
    assert_delivered_exactly_once(&service, &database, &documents, 30).await;
}

#[tokio::test]
async fn a_foreign_policy_is_not_touched_and_is_named() {
    let stream = Stream::with(Templates::alone().await);
    let database = Database::create().await;
    forget_all(&stream.search).await;
    let path = "/_ilm/policy/logs_policy";
    let phases = json!({ "delete": { "min_age": "90d", "actions": { "delete": {} } } });
    let foreign = json!({ "policy": { "_meta": { "made_by": FOREIGN }, "phases": phases } });
    stream.search.ok("PUT", path, Some(&foreign)).await;
    let before = stream.search.ok("GET", path, None).await;
    let service = Service::start(Settings::new(database.url(), stream.search.url(), &stream.tenant)).await;
    service
        .until_status("the status to name the policy", |status| {
            status["elasticsearch"]["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains("logs_policy"))
        })
        .await;
    let after = stream.search.ok("GET", path, None).await;
    for member in ["/logs_policy/policy", "/logs_policy/version"] {
        assert_eq!(after.pointer(member), before.pointer(member), "not touched");
    }
    remove_all(&stream.search).await;
    bootstrapped(&service).await;
}

/// Waits until the status names what is wrong with the stream, and `told` what to do; and the metric shows it.
async fn until_told(service: &Service, stream: &str, told: &str) -> Value {
    let what = format!("the status to say of {stream}: {told}");
    let status = service
        .until_status(&what, |status| {
            let problem = status["elasticsearch"]["problem"].as_str().unwrap_or_default();
            problem.contains(stream) && problem.contains(told)
        })
        .await;
    let page = service.send(&Request::get("/metrics")).await.text();
    assert!(page.contains("log_writer_elasticsearch_ready 0"), "{status}");
    status
}

#[tokio::test]
async fn a_template_that_goes_while_the_service_runs_is_applied_again_for_a_stream_that_needs_it() {
    let stream = Stream::with(Templates::alone().await);
    let database = Database::create().await;
    let service = Service::start(Settings::new(database.url(), stream.search.url(), &stream.tenant)).await;
    bootstrapped(&service).await;
    let before = state(&stream.search).await;
    forget_all(&stream.search).await;
    service.ingest(&fresh(3)).await;
    service.until_delivered().await;
    assert_eq!(state(&stream.search).await[0], before[0], "as it was");
    let documents = stream.search.documents(&stream.name()).await;
    assert_delivered_exactly_once(&service, &database, &documents, 3).await;
    assert!(service.log().contains("no index template makes it"), "the log says why");
}

#[tokio::test]
async fn a_stream_whose_template_may_not_be_applied_again_is_named_with_what_stands_in_the_way() {
    let stream = Stream::with(Templates::alone().await);
    let database = Database::create().await;
    let service = Service::start(Settings::new(database.url(), stream.search.url(), &stream.tenant)).await;
    bootstrapped(&service).await;
    forget_all(&stream.search).await;
    let foreign = json!({ "index_patterns": ["somebody-*"], "_meta": { "made_by": FOREIGN } });
    let path = "/_index_template/logs_template";
    stream.search.ok("PUT", path, Some(&foreign)).await;
    service.ingest(&fresh(3)).await;
    until_told(&service, &stream.name(), "bootstrap --force").await;
    let status = service.known_status().await;
    assert_eq!(status["books"]["outstanding"], 3, "{status}");
    stream.search.ok("DELETE", path, None).await;
    service.until_delivered().await;
    service
        .until_status("nothing to be wrong", |status| {
            status["elasticsearch"]["problem"].is_null()
        })
        .await;
}

#[tokio::test]
async fn where_the_operator_applies_templates_a_stream_without_one_is_named_until_there_is_one() {
    let stream = Stream::with(Templates::alone().await);
    let database = Database::create().await;
    forget_all(&stream.search).await;
    let settings =
        Settings::new(database.url(), stream.search.url(), &stream.tenant).set("elasticsearch.bootstrap", "false");
    let service = Service::start(settings.clone()).await;
    service.ingest(&fresh(3)).await;
    until_told(&service, &stream.name(), "run `log-writer-service bootstrap`").await;
    assert!(!service.log().contains("elasticsearch is prepared"), "it does not know");
    let applied = run_command(&["bootstrap"], &settings).await;
    assert!(applied.status.success(), "{applied:?}");
    service.until_delivered().await;
    let documents = stream.search.documents(&stream.name()).await;
    assert_delivered_exactly_once(&service, &database, &documents, 3).await;
}

#[tokio::test]
async fn events_committed_for_another_dataset_are_named_and_keep_no_other_stream_waiting() {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let settings = Settings::new(database.url(), stream.search.url(), &stream.tenant);
    let former = settings
        .clone()
        .set("elasticsearch.dataset", "former")
        .set("elasticsearch.urls", "[\"http://127.0.0.1:1\"]");
    let mut service = Service::start(former).await;
    service.ingest(&fresh(3)).await;
    service.kill();
    service.restart_with(settings).await;
    let name = format!("logs-former-{}", stream.tenant);
    until_told(&service, &name, "elasticsearch.dataset").await;
    service.ingest(&fresh(2)).await;
    let status = service
        .until_status("the other stream's events to be delivered", |status| {
            status["books"]["indexed"] == 2
        })
        .await;
    assert_eq!(status["books"]["outstanding"], 3, "{status}");
}

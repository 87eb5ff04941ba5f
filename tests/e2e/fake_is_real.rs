//! The same requests to the fake Elasticsearch and to the real one: what the service reads of the answers is the same.

use log_writer_tests::{
    fake_elasticsearch::FakeElasticsearch,
    search::Search,
    stack::{Stream, Templates, random_word},
};
use serde_json::{Value, json};

/// What the service reads of an answer: status, and the members that do not depend on time or chance.
#[derive(Debug, PartialEq)]
struct Read {
    request: String,
    status: u16,
    members: Value,
}

struct Scenario {
    search: Search,
    /// Unique, as the real cluster is shared.
    word: String,
    read: Vec<Read>,
}

impl Scenario {
    async fn json(&mut self, method: &str, path: &str, body: Option<Value>, pointers: &[&str]) {
        let (status, answer) = self.search.call(method, path, body.as_ref()).await.expect("it answers");
        let members = pointers
            .iter()
            .map(|pointer| answer.pointer(pointer).cloned().unwrap_or(Value::Null));
        self.note(method, path, status, members.collect());
    }

    /// A `_bulk`, of which status, operation, error type and generation of the index count.
    async fn bulk(&mut self, what: &str, query: &str, body: String) {
        let path = format!("/_bulk{query}");
        let answer = self
            .search
            .call_with("POST", &path, "application/x-ndjson", Some(body))
            .await;
        let (status, answer) = answer.expect("it answers");
        let of_item = |item: &Value| {
            let (operation, result) = item
                .as_object()
                .and_then(|item| item.iter().next())
                .expect("one operation");
            let index = result["_index"].as_str().expect("an index");
            let generation = index.strip_prefix(".ds-").and_then(|name| name.rsplit('-').next());
            json!([operation, result["status"], result["error"]["type"], generation])
        };
        let items: Vec<Value> = answer["items"].as_array().into_iter().flatten().map(of_item).collect();
        let members = json!([answer["errors"], items, answer["error"]["type"]]);
        self.note("POST", &format!("{path} ({what})"), status, members);
    }

    fn note(&mut self, method: &str, path: &str, status: u16, members: Value) {
        let request = format!("{method} {path}").replace(&self.word, "*");
        let members = serde_json::from_str(&members.to_string().replace(&self.word, "*")).expect("JSON");
        self.read.push(Read {
            request,
            status,
            members,
        });
    }

    async fn backing_index(&self, stream: &str, position: usize) -> String {
        self.search.backing_indices(stream).await[position].clone()
    }
}

fn create(stream: &str, id: &str, source: &Value) -> String {
    format!("{}\n{source}\n", json!({ "create": { "_index": stream, "_id": id } }))
}

/// Everything the service asks of a cluster, in the order it does.
async fn run(search: Search) -> Vec<Read> {
    let word = format!("lwfake{}", random_word());
    let mut scenario = Scenario {
        search,
        word: word.clone(),
        read: Vec::new(),
    };
    let stream = format!("logs-{word}-default");
    let event = json!({ "@timestamp": "2026-11-20T00:00:00.123456Z", "message": "m" });
    objects(&mut scenario, &word, &stream).await;
    scenario
        .json(
            "GET",
            &format!("/_data_stream/{stream}"),
            None,
            &["/error/type", "/status"],
        )
        .await;

    let required = "?require_data_stream=true";
    scenario
        .bulk(
            "first",
            required,
            create(&stream, "a", &event) + &create(&stream, "b", &event),
        )
        .await;
    scenario.bulk("again", required, create(&stream, "a", &event)).await;
    scenario
        .bulk(
            "twice in one",
            required,
            create(&stream, "c", &event) + &create(&stream, "c", &event),
        )
        .await;
    scenario
        .bulk("no time", required, create(&stream, "d", &json!({ "message": "m" })))
        .await;
    scenario
        .bulk(
            "no template",
            required,
            create(&format!("{word}-none-default"), "a", &event),
        )
        .await;
    scenario
        .bulk(
            "no newline",
            required,
            create(&stream, "e", &event).trim_end().to_owned(),
        )
        .await;
    let index_operation = format!("{}\n{event}\n", json!({ "index": { "_index": stream, "_id": "f" } }));
    scenario.bulk("index into a stream", required, index_operation).await;

    over_a_rollover(&mut scenario, &stream, &event).await;
    for path in [
        format!("/_data_stream/{stream}"),
        format!("/_index_template/{word}"),
        format!("/_component_template/{word}"),
    ] {
        let _gone = scenario.search.call("DELETE", &path, None).await;
    }
    scenario.read
}

async fn over_a_rollover(scenario: &mut Scenario, stream: &str, event: &Value) {
    let required = "?require_data_stream=true";
    let first = scenario.backing_index(stream, 0).await;
    let asked = json!({ "ids": ["a", "none"] });
    let members = ["/docs/0/found", "/docs/1/found", "/docs/0/_id", "/docs/0/error/type"];
    scenario.mget(&first, asked.clone(), &members).await;
    scenario.mget(".ds-none-000001", asked, &members).await;
    scenario
        .json("POST", &format!("/{stream}/_rollover"), None, &["/rolled_over"])
        .await;
    scenario
        .bulk("old id after a rollover", required, create(stream, "a", event))
        .await;
    scenario
        .json(
            "GET",
            &format!("/_data_stream/{stream}"),
            None,
            &["/data_streams/0/generation", "/data_streams/0/name"],
        )
        .await;
    let delete = |id: &str| format!("{}\n", json!({ "delete": { "_index": first, "_id": id } }));
    scenario.bulk("delete from an old index", "", delete("a")).await;
    scenario.bulk("delete what is not there", "", delete("a")).await;
}

impl Scenario {
    async fn mget(&mut self, index: &str, body: Value, pointers: &[&str]) {
        let (status, answer) = self
            .search
            .call("POST", &format!("/{index}/_mget?_source=false"), Some(&body))
            .await
            .expect("it answers");
        let members = pointers
            .iter()
            .map(|pointer| answer.pointer(pointer).cloned().unwrap_or(Value::Null));
        // The name of a backing index holds the date.
        self.note("POST", "/{index}/_mget", status, members.collect());
    }
}

async fn objects(scenario: &mut Scenario, word: &str, stream: &str) {
    let component = json!({ "template": {
        "settings": { "index": { "number_of_replicas": 0, "refresh_interval": "1s", "mapping": { "total_fields": { "limit": 500 } } } },
        "mappings": { "dynamic": false, "properties": { "@timestamp": { "type": "date_nanos" }, "message": { "type": "text" } } } },
        "_meta": { "managed_by": "tests" } });
    let template = json!({ "index_patterns": [format!("logs-{word}-*")], "data_stream": {}, "priority": 700, "composed_of": [word] });
    let (component_path, template_path) = (
        format!("/_component_template/{word}"),
        format!("/_index_template/{word}"),
    );
    scenario.json("GET", &component_path, None, &["/error/type"]).await;
    scenario
        .json("PUT", &component_path, Some(component), &["/acknowledged"])
        .await;
    let of_component = |rest: &str| format!("/component_templates/0/component_template{rest}");
    let (settings, mappings, meta) = (
        of_component("/template/settings"),
        of_component("/template/mappings"),
        of_component("/_meta"),
    );
    scenario
        .json("GET", &component_path, None, &[&settings, &mappings, &meta])
        .await;
    scenario
        .json("PUT", &template_path, Some(template), &["/acknowledged"])
        .await;
    scenario
        .json(
            "GET",
            &template_path,
            None,
            &[
                "/index_templates/0/name",
                "/index_templates/0/index_template/index_patterns",
                "/index_templates/0/index_template/priority",
                "/index_templates/0/index_template/composed_of",
            ],
        )
        .await;
    let simulate = format!("/_index_template/_simulate_index/{stream}");
    scenario
        .json(
            "POST",
            &simulate,
            None,
            &[
                "/template/settings/index/number_of_replicas",
                "/template/settings/index/refresh_interval",
                "/template/settings/index/mapping/total_fields/limit",
                "/template/mappings/dynamic",
                "/template/mappings/_data_stream_timestamp/enabled",
                "/template/mappings/properties/@timestamp/type",
                "/overlapping",
            ],
        )
        .await;
}

#[tokio::test]
async fn the_fake_answers_what_the_real_one_answers() {
    let stream = Stream::with(Templates::shared().await);
    let fake = FakeElasticsearch::start().await;
    let (real, faked) = (run(stream.search.clone()).await, run(Search::new(&fake.url())).await);
    assert_eq!(real.len(), faked.len());
    for (real, faked) in real.iter().zip(&faked) {
        assert_eq!(faked, real);
    }
}

//! The key that docs/SECURITY.md prints, on a secured Elasticsearch: enough for all that the service does, and what is
//! said when a part of it is missing.

use log_writer_tests::{
    conditions::{SOON, eventually},
    invariants::assert_delivered_exactly_once,
    search::{Search, secured_ca, secured_password},
    service::{Service, Settings, run_command},
    stack::{Database, in_a_thread, random_word},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    events::fresh,
    replaced::{annotate_in, until_taken},
};

const DOCUMENT: &str = include_str!("../../docs/SECURITY.md");
const TENANT: &str = "default";

/// The request for a key as it is printed.
fn printed() -> Value {
    let after = DOCUMENT.split("POST _security/api_key\n").nth(1).expect("a request");
    let body = after.split("```").next().expect("its body");
    serde_json::from_str(body).expect("JSON")
}

/// The request without some privileges on indices.
fn without(privileges: &[&str]) -> Value {
    let mut request = printed();
    let granted = request["role_descriptors"]["log_writer"]["indices"][0]["privileges"]
        .as_array_mut()
        .expect("privileges");
    let before = granted.len();
    granted.retain(|privilege| !privileges.iter().any(|other| privilege == other));
    assert_eq!(granted.len(), before - privileges.len(), "they are printed");
    request
}

/// A dataset of its own on the secured cluster, and a service with a key.
struct Secured {
    service: Service,
    settings: Settings,
    database: Database,
    dataset: Dataset,
    key: String,
    _folder: TempDir,
}

/// Removed after the test with its templates and policy.
struct Dataset {
    name: String,
    search: Search,
}

impl Secured {
    /// With the key that a request makes, and failpoints if any.
    async fn start(request: &Value, armed: Option<&str>) -> Self {
        Self::start_with(request, armed, |settings| settings).await
    }

    /// With further settings.
    async fn start_with(request: &Value, armed: Option<&str>, set: impl FnOnce(Settings) -> Settings) -> Self {
        let dataset = Dataset {
            name: format!("t{}", random_word()),
            search: Search::secured(),
        };
        let mut request = request.clone();
        request["name"] = json!(dataset.name);
        let made = dataset.search.ok("POST", "/_security/api_key", Some(&request)).await;
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        let folder = TempDir::with_prefix("log-writer-key-").expect("a folder");
        let file = folder.path().join("api_key");
        std::fs::write(&file, text("encoded")).expect("a file");
        let database = Database::create().await;
        let settings = Settings::new(database.url(), dataset.search.url(), TENANT)
            .set("elasticsearch.dataset", &dataset.name)
            .set("elasticsearch.replicas", "0")
            .set("elasticsearch.ca_file", &secured_ca())
            .set("elasticsearch.api_key_file", file.to_str().expect("text"));
        let settings = set(settings);
        let first = armed.map_or_else(|| settings.clone(), |armed| settings.clone().failpoints(armed));
        Self {
            service: Service::start(first).await,
            settings,
            database,
            dataset,
            key: text("id"),
            _folder: folder,
        }
    }

    fn stream(&self) -> String {
        format!("logs-{}-{TENANT}", self.dataset.name)
    }

    /// How many documents there are of each message.
    async fn copies(&self, message: &str) -> Vec<Value> {
        let documents = self.dataset.search.documents(&self.stream()).await;
        let of_message = documents.into_iter().filter(|found| found.source["message"] == message);
        of_message
            .map(|found| found.source["ai_analysis"]["summary"].clone())
            .collect()
    }

    /// Puts a second copy of an event into a new write index, as a rollover in the middle of a resend does.
    async fn double(&self, message: &str) {
        let (search, stream) = (&self.dataset.search, self.stream());
        let documents = search.documents(&stream).await;
        let copy = documents.into_iter().find(|found| found.source["message"] == message);
        let copy = copy.expect("a document");
        search.ok("POST", &format!("/{stream}/_rollover"), None).await;
        search
            .ok("PUT", &format!("/{stream}/_create/{}", copy.id), Some(&copy.source))
            .await;
        assert_eq!(self.copies(message).await.len(), 2);
    }

    /// Doubles one of the messages and changes it: afterwards there is one copy, with the change.
    async fn assert_a_doubled_event_is_written_over(&self) {
        self.double("event 1").await;
        annotate_in(&self.database, "event 1", "changed").await;
        until_taken(&self.database).await;
        self.service.until_delivered().await;
        assert_eq!(
            self.copies("event 1").await,
            [json!("changed")],
            "one copy, written over"
        );
    }

    /// So many events stand once in both stores, and Elasticsearch has refused nothing.
    async fn assert_all_was_allowed(&self, events: u64) {
        let documents = self.dataset.search.documents(&self.stream()).await;
        assert_delivered_exactly_once(&self.service, &self.database, &documents, events).await;
        let log = self.service.log();
        assert!(
            !log.contains("grant `") && !log.contains("security_exception"),
            "something was refused"
        );
    }

    async fn until_logged(&self, text: &str) {
        eventually(&format!("the log to say: {text}"), SOON, || async {
            self.service.log().contains(text).then_some(())
        })
        .await;
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        let name = self.name.clone();
        in_a_thread(async move {
            // Connections of the test's own client stand still with its runtime.
            let search = Search::secured();
            for path in [
                format!("/_data_stream/logs-{name}-*"),
                format!("/_index_template/*{name}*"),
                format!("/_component_template/*{name}*"),
                format!("/_ilm/policy/logs_policy_{name}"),
            ] {
                let answer = search.call("DELETE", &path, None).await;
                assert!(matches!(answer, Ok((200 | 404, _))), "{path}: {answer:?}");
            }
            let named = json!({ "name": name });
            let answer = search.call("DELETE", "/_security/api_key", Some(&named)).await;
            assert!(matches!(answer, Ok((200, _))), "{answer:?}");
        });
    }
}

#[tokio::test]
async fn the_printed_key_is_enough_to_set_up_deliver_look_up_repair_and_write_over() {
    let point = "delivery::after_bulk";
    let mut secured = Secured::start(&printed(), Some(&format!("{point}=1*return(abort)"))).await;
    // The first bulk makes the stream, and its answer is lost: a look-up finds what it indexed.
    let request = log_writer_tests::client::Request::json(&fresh(10));
    let first = secured.service.send(&request).await.receipt();
    assert_eq!(first.committed, 10);
    secured.service.until_died_at(point).await;
    assert_eq!(secured.dataset.search.documents(&secured.stream()).await.len(), 10);
    secured.service.restart_with(secured.settings.clone()).await;
    secured.service.until_delivered().await;
    assert_eq!(secured.dataset.search.documents(&secured.stream()).await.len(), 10);

    secured.assert_a_doubled_event_is_written_over().await;
    assert_eq!(secured.service.ingest(&fresh(5)).await.committed, 5);
    secured.service.until_delivered().await;
    secured.assert_all_was_allowed(15).await;
}

#[tokio::test]
async fn without_delete_and_index_the_stream_goes_on_and_the_log_names_what_is_missing() {
    let secured = Secured::start(&without(&["delete", "index"]), None).await;
    secured.service.ingest(&fresh(3)).await;
    secured.service.until_delivered().await;
    secured.double("event 1").await;
    annotate_in(&secured.database, "event 1", "changed").await;
    until_taken(&secured.database).await;
    secured.until_logged("grant `delete` on the service's indices").await;
    secured.until_logged("grant `index` on the service's indices").await;
    // New events are not held up; only the replacement waits.
    secured.service.ingest(&fresh(4)).await;
    secured
        .service
        .until_status("the new events to be delivered", |status| {
            status["books"]["outstanding"] == 1
        })
        .await;
    assert_eq!(secured.copies("event 2").await.len(), 2, "one of each request");
    assert_eq!(secured.copies("event 1").await.len(), 3, "with the second copy");

    // Granted later, the rest is done without a restart.
    let granted = json!({ "role_descriptors": printed()["role_descriptors"] });
    let path = format!("/_security/api_key/{}", secured.key);
    secured.dataset.search.ok("PUT", &path, Some(&granted)).await;
    secured.service.until_delivered().await;
    // The rights come one after the other: what may be written over before its copy may be deleted is looked for again.
    eventually("the second copy to be deleted", SOON, || async {
        let left = secured.dataset.search.documents(&secured.stream()).await.len();
        (left == 7).then_some(())
    })
    .await;
    assert!(secured.copies("event 1").await.contains(&json!("changed")));
}

#[tokio::test]
async fn no_right_on_the_cluster_is_needed_where_an_administrator_applies_the_templates() {
    let mut request = printed();
    request["role_descriptors"]["log_writer"]["cluster"] = json!([]);
    let secured = Secured::start_with(&request, None, |settings| {
        settings.set("elasticsearch.bootstrap", "false")
    })
    .await;
    // The key itself may not.
    let refused = run_command(&["bootstrap"], &secured.settings).await;
    assert!(!refused.status.success(), "{refused:?}");
    let administrator = Settings::new(secured.database.url(), secured.dataset.search.url(), TENANT)
        .set("elasticsearch.dataset", &secured.dataset.name)
        .set("elasticsearch.replicas", "0")
        .set("elasticsearch.ca_file", &secured_ca())
        .set("elasticsearch.username", "elastic")
        .set("elasticsearch.password", &secured_password());
    let applied = run_command(&["bootstrap"], &administrator).await;
    assert!(applied.status.success(), "{applied:?}");
    secured.service.ingest(&fresh(5)).await;
    secured.service.until_delivered().await;

    secured.assert_a_doubled_event_is_written_over().await;
    secured.assert_all_was_allowed(5).await;
}

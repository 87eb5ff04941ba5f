//! `verify [--repair]`: what differs between the stores is found, named and put right, beside a running service, and
//! what is merely on its way is no difference.

use std::{collections::BTreeSet, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    search::Document,
    service::{Service, Settings, run_command},
    stack::{Database, Stream, random_word},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{Stage, event};

/// What the command said: its exit code, the differences, the sums.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    found: Vec<Value>,
    sums: Value,
}

impl Said {
    /// Differences of one kind.
    fn of(&self, kind: &str) -> Vec<&Value> {
        self.found.iter().filter(|found| found["found"] == kind).collect()
    }

    fn assert_equal(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.found.is_empty(), "{self:?}");
        assert_eq!(self.sums["equal"], true, "{self:?}");
    }
}

async fn verify(stage: &Stage, more: &[&str]) -> Said {
    // The cluster has other tests' streams too.
    let first = ["verify", "--json", "--tenant", &stage.stream.tenant];
    let output = run_command(&[&first, more].concat(), &stage.settings).await;
    let mut lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert!(!lines.is_empty(), "no sums: {output:?}");
    let sums = lines.pop().expect("the last line");
    Said {
        code: output.status.code(),
        found: lines,
        sums,
    }
}

/// Events of several hours, delivered; their documents.
async fn delivered(stage: &Stage) -> Vec<Document> {
    let events: Vec<Value> = (0..40).map(|number| event(number % 4)).collect();
    stage.service.ingest(&Value::Array(events)).await;
    stage.service.until_delivered().await;
    stage.stream.search.documents(&stage.stream.name()).await
}

async fn delete(stage: &Stage, document: &Document) {
    let path = format!("/{}/_doc/{}?refresh=true", document.index, document.id);
    stage.stream.search.ok("DELETE", &path, None).await;
}

/// Writes a document by way of the stream, so into its newest index.
async fn create(stage: &Stage, id: &str, source: &Value) {
    let path = format!("/{}/_create/{id}?refresh=true", stage.stream.name());
    stage.stream.search.ok("PUT", &path, Some(source)).await;
}

async fn roll_over(stage: &Stage) {
    let path = format!("/{}/_rollover", stage.stream.name());
    stage.stream.search.ok("POST", &path, None).await;
}

fn ids<'a>(documents: impl IntoIterator<Item = &'a Document>) -> BTreeSet<String> {
    documents
        .into_iter()
        .map(|document| document.source["event"]["id"].to_string())
        .collect()
}

fn found_ids(found: &[&Value]) -> BTreeSet<String> {
    found.iter().map(|found| found["id"].to_string()).collect()
}

#[tokio::test]
async fn stores_that_agree_are_equal_and_a_repair_changes_nothing() {
    let stage = Stage::start(|settings| settings).await;
    verify(&stage, &[]).await.assert_equal();
    delivered(&stage).await;
    let said = verify(&stage, &["--sample", "1000"]).await;
    said.assert_equal();
    assert_eq!(
        (&said.sums["events"], &said.sums["documents"]),
        (&json!(40), &json!(40))
    );
    assert_eq!(said.sums["sampled"], 40, "{said:?}");
    verify(&stage, &["--repair"]).await.assert_equal();
    let early = verify(&stage, &["--since", "10h", "--until", "150m"]).await;
    early.assert_equal();
    assert_eq!(early.sums["events"], 10, "{early:?}");
    stage.assert_nothing_lost_or_doubled(40).await;
}

#[tokio::test]
async fn what_is_missing_is_named_and_a_repair_brings_it_back_once() {
    let stage = Stage::start(|settings| settings).await;
    let documents = delivered(&stage).await;
    let lost = &documents[10..13];
    for document in lost {
        delete(&stage, document).await;
    }
    let said = verify(&stage, &[]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(found_ids(&said.of("missing")), ids(lost));
    assert_eq!((said.found.len(), &said.sums["repaired"]), (3, &json!(0)), "{said:?}");
    let said = verify(&stage, &["--repair"]).await;
    assert_eq!((said.code, &said.sums["repaired"]), (Some(1), &json!(3)), "{said:?}");
    stage.assert_nothing_lost_or_doubled(40).await;
    assert_eq!(stage.service.known_status().await["books"]["requeued"], 3);
    verify(&stage, &[]).await.assert_equal();
    let recorded = "select affected from log_writer.audit where action = 'verify repair' and outcome = 'done'";
    assert_eq!(stage.database.number(recorded).await, 3);
}

#[tokio::test]
async fn of_second_copies_the_oldest_is_left() {
    let stage = Stage::start(|settings| settings).await;
    let documents = delivered(&stage).await;
    roll_over(&stage).await;
    for document in &documents[5..7] {
        create(&stage, &document.id, &document.source).await;
    }
    let said = verify(&stage, &[]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(found_ids(&said.of("doubled")), ids(&documents[5..7]));
    assert_eq!(said.found.len(), 2, "{said:?}");
    let said = verify(&stage, &["--repair"]).await;
    assert_eq!((said.code, &said.sums["repaired"]), (Some(1), &json!(2)), "{said:?}");
    let left = stage.stream.search.documents(&stage.stream.name()).await;
    assert!(left.iter().all(|document| document.index == documents[0].index));
    stage.assert_nothing_lost_or_doubled(40).await;
    verify(&stage, &[]).await.assert_equal();
}

#[tokio::test]
async fn documents_that_no_event_stands_for_are_named_and_left_alone() {
    let stage = Stage::start(|settings| settings).await;
    let documents = delivered(&stage).await;
    // Of no event, and of an event under another id than its own.
    let time = &documents[0].source["@timestamp"];
    let strange = [
        (
            "of-no-event",
            json!({ "@timestamp": time, "tenant": stage.stream.tenant, "event": { "id": Uuid::now_v7(), "id_tail": 7 } }),
        ),
        ("of-another-id", documents[0].source.clone()),
    ];
    for (id, source) in &strange {
        create(&stage, id, source).await;
    }
    for arguments in [&[][..], &["--repair"]] {
        let said = verify(&stage, arguments).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        let named: BTreeSet<&str> = said
            .of("stranger")
            .iter()
            .filter_map(|found| found["document"].as_str())
            .collect();
        assert_eq!(named, BTreeSet::from(strange.each_ref().map(|(id, _)| *id)), "{said:?}");
        assert_eq!((said.found.len(), &said.sums["repaired"]), (2, &json!(0)), "{said:?}");
    }
    let left = stage.stream.search.documents(&stage.stream.name()).await;
    assert_eq!(left.len(), 42);
}

#[tokio::test]
async fn another_content_is_found_by_a_sample_and_written_over() {
    let stage = Stage::start(|settings| settings).await;
    let documents = delivered(&stage).await;
    let mut changed = documents[3].clone();
    changed.source["message"] = json!("forged");
    delete(&stage, &documents[3]).await;
    create(&stage, &changed.id, &changed.source).await;
    verify(&stage, &[]).await.assert_equal();
    let said = verify(&stage, &["--sample", "1000", "--repair"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(found_ids(&said.of("different")), ids([&changed]));
    assert_eq!(said.of("different")[0]["names"], json!(["message"]), "{said:?}");
    stage.assert_nothing_lost_or_doubled(40).await;
    verify(&stage, &["--sample", "1000"]).await.assert_equal();
}

#[tokio::test]
async fn what_is_on_its_way_or_a_dead_letter_is_not_missing() {
    let stage = Stage::start(|settings| settings).await;
    delivered(&stage).await;
    // A pipeline that is not there: every document is refused for good.
    let path = format!("/{}/_settings", stage.stream.name());
    let refusing = json!({ "index.default_pipeline": "absent" });
    stage.stream.search.ok("PUT", &path, Some(&refusing)).await;
    stage.service.ingest(&json!([event(0), event(1)])).await;
    let letters = "select count(*) from log_writer.dead_letters where stage = 'index'";
    eventually("the dead letters", SOON, || async {
        (stage.database.number(letters).await == 2).then_some(())
    })
    .await;
    let blocked = json!({ "index.default_pipeline": null, "index.blocks.write": true });
    stage.stream.search.ok("PUT", &path, Some(&blocked)).await;
    stage.service.ingest(&json!([event(0), event(1), event(2)])).await;
    let said = verify(&stage, &["--repair"]).await;
    said.assert_equal();
    assert_eq!(
        (&said.sums["outstanding"], &said.sums["dead_letters"]),
        (&json!(3), &json!(2)),
        "{said:?}"
    );
    let open = json!({ "index.blocks.write": null });
    stage.stream.search.ok("PUT", &path, Some(&open)).await;
    stage.assert_nothing_lost_or_doubled(45).await;
}

#[tokio::test]
async fn a_dead_letter_whose_document_is_there_is_named_and_a_repair_takes_it_back() {
    // Else the service itself finds it.
    let seldom = |settings: Settings| settings.set("delivery.lease", "10m").set("delivery.renew_every", "1m");
    let stage = Stage::start(seldom).await;
    let documents = delivered(&stage).await;
    let buried = &documents[7];
    delete(&stage, buried).await;
    let path = format!("/{}/_settings", stage.stream.name());
    let refusing = json!({ "index.default_pipeline": "absent" });
    stage.stream.search.ok("PUT", &path, Some(&refusing)).await;
    verify(&stage, &["--repair"]).await;
    let letters = "select count(*) from log_writer.dead_letters where stage = 'index'";
    eventually("the dead letter", SOON, || async {
        (stage.database.number(letters).await == 1).then_some(())
    })
    .await;
    verify(&stage, &[]).await.assert_equal();
    // As a bulk that was long on its way.
    let taking = json!({ "index.default_pipeline": null });
    stage.stream.search.ok("PUT", &path, Some(&taking)).await;
    create(&stage, &buried.id, &buried.source).await;
    let said = verify(&stage, &[]).await;
    assert_eq!((said.code, said.found.len()), (Some(1), 1), "{said:?}");
    assert_eq!(found_ids(&said.of("buried")), ids([buried]));
    assert_eq!(said.sums["repaired"], 0, "{said:?}");
    let said = verify(&stage, &["--repair"]).await;
    assert_eq!((said.code, &said.sums["repaired"]), (Some(1), &json!(1)), "{said:?}");
    stage.assert_nothing_lost_or_doubled(40).await;
    assert_eq!(stage.database.number(letters).await, 0);
    verify(&stage, &[]).await.assert_equal();
}

/// What the service says of its books, in the status and by a metric.
async fn until_balanced(stage: &Stage, balanced: bool) {
    let shown = format!("log_writer_books_balanced {}", u8::from(balanced));
    eventually(&shown, SOON, || async {
        let page = stage.service.send(&Request::get("/metrics")).await.text();
        let status = stage.service.status().await;
        (page.contains(&shown) && status["books"]["balanced"] == balanced).then_some(())
    })
    .await;
}

/// By how many events an ended repair says that it corrected the books.
const CORRECTED: &str = "select coalesce(sum((target ->> 'books_corrected')::bigint), 0)::bigint from log_writer.audit
    where action = 'verify repair' and outcome = 'done'";

#[tokio::test]
async fn events_of_outbox_rows_that_were_lost_are_brought_by_a_repair_and_the_books_balance_again() {
    let stage = Stage::start(|settings| settings).await;
    delivered(&stage).await;
    until_balanced(&stage, true).await;
    let path = format!("/{}/_settings", stage.stream.name());
    let blocked = json!({ "index.blocks.write": true });
    stage.stream.search.ok("PUT", &path, Some(&blocked)).await;
    stage.service.ingest(&json!([event(0), event(1), event(2)])).await;
    // As after a restore of a part.
    stage.database.execute("delete from log_writer.outbox").await;
    until_balanced(&stage, false).await;
    let open = json!({ "index.blocks.write": null });
    stage.stream.search.ok("PUT", &path, Some(&open)).await;
    let said = verify(&stage, &["--repair"]).await;
    assert_eq!(
        (said.of("missing").len(), &said.sums["repaired"]),
        (3, &json!(3)),
        "{said:?}"
    );
    until_balanced(&stage, true).await;
    stage.assert_nothing_lost_or_doubled(43).await;
    assert_eq!(stage.database.number(CORRECTED).await, 3);
    verify(&stage, &["--repair"]).await.assert_equal();
    assert_eq!(stage.database.number(CORRECTED).await, 3, "what balances is left alone");
}

#[tokio::test]
async fn where_documents_of_lost_outbox_rows_are_there_a_repair_of_everything_balances_the_books() {
    // A dataset of its own: to compare everything is to compare this alone.
    let (database, stream) = (Database::create().await, Stream::create().await);
    let dataset = format!("t{}", random_word());
    let settings =
        Settings::new(database.url(), stream.search.url(), &stream.tenant).set("elasticsearch.dataset", &dataset);
    let point = "delivery::before_settling";
    let armed = settings.clone().failpoints(&format!("{point}=1*return(stop)"));
    let stage = Stage {
        service: Service::start(armed).await,
        settings,
        database,
        stream,
    };
    let outcome = AssertUnwindSafe(balances_again(&stage, point)).catch_unwind().await;
    // Whatever came of it.
    stage.stream.remove_dataset(&dataset).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn balances_again(stage: &Stage, point: &str) {
    stage.service.ingest(&json!([event(0), event(1)])).await;
    stage.service.until_stopped_at(point).await;
    stage.database.execute("delete from log_writer.outbox").await;
    stage.service.signal("CONT");
    until_balanced(stage, false).await;
    verify(stage, &["--repair"]).await.assert_equal();
    until_balanced(stage, false).await;
    let output = run_command(&["verify", "--repair"], &stage.settings).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    until_balanced(stage, true).await;
    assert_eq!(stage.database.number(CORRECTED).await, 2);
}

#[tokio::test]
async fn beside_a_load_nothing_is_found_that_is_not_so() {
    let stage = Stage::start(|settings| settings).await;
    let documents = delivered(&stage).await;
    let load = stage.traffic(4, || event(0));
    for _ in 0..5 {
        verify(&stage, &["--repair"]).await.assert_equal();
    }
    delete(&stage, &documents[0]).await;
    let said = verify(&stage, &["--repair"]).await;
    assert_eq!(found_ids(&said.of("missing")), ids(&documents[..1]), "{said:?}");
    assert_eq!(said.found.len(), 1, "{said:?}");
    let acknowledged = load.stop().await.acknowledged;
    assert!(acknowledged > 20, "there was a load: {acknowledged}");
    stage.assert_nothing_lost_or_doubled(40 + acknowledged).await;
}

#[tokio::test]
async fn stores_that_cannot_be_compared_are_no_difference() {
    let stage = Stage::start(|settings| settings).await;
    for (key, value) in [
        ("elasticsearch.urls", "[\"http://127.0.0.1:1\"]"),
        ("database.url", "postgres://postgres@127.0.0.1:1/postgres"),
        ("elasticsearch.enabled", "false"),
    ] {
        let settings = stage.settings.clone().set(key, value);
        let output = run_command(&["verify"], &settings).await;
        assert_eq!(output.status.code(), Some(2), "{key}: {output:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{key}: {output:?}"
        );
    }
    let output = run_command(&["verify", "--since", "1h", "--until", "2h"], &stage.settings).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

//! Documents: taken whatever they hold, found by what they hold, judged one by one.

use log_writer_service::{
    config::{Gzip, Naming},
    elasticsearch::{BootstrapMode, BulkBody, BulkFailure, Client, Targets, Verdict, bootstrap},
    event::{StoredTexts, TextColumns, Timestamp},
};
use serde_json::{Value, json};

use crate::node::{Dataset, NOVEMBER, Node, event, id_of, with_dataset};

async fn apply(dataset: &Dataset) {
    let report = bootstrap(&dataset.client(), &dataset.settings, BootstrapMode::Apply)
        .await
        .unwrap();
    assert!(report.is_ready(), "{report:?}");
}

#[tokio::test]
async fn each_document_gets_its_own_verdict() {
    with_dataset(Node::plain(), |dataset| async move {
        apply(&dataset).await;
        dataset.index(&[event(1)]).await;
        let mut beyond = event(2);
        // `date_nanos` ends in 2262.
        beyond.timestamp = Timestamp(i64::MAX / 1000 + 1_000_000);
        let events = [event(1), beyond, event(3), event(3)];
        let verdicts = dataset.client().bulk(&dataset.body(&events)).await.unwrap();
        let index = dataset.client().backing_indices(&dataset.stream()).await.unwrap().remove(0);
        assert_eq!(verdicts[0], Verdict::Duplicate { index: index.as_str().into() });
        assert!(matches!(&verdicts[1], Verdict::Reject { status: 400, error_type, .. } if error_type == "document_parsing_exception"), "{verdicts:?}");
        assert_eq!(verdicts[2], Verdict::Indexed { index: index.as_str().into() });
        assert_eq!(verdicts[3], Verdict::Duplicate { index: index.into() });
    })
    .await;
}

#[tokio::test]
async fn without_a_template_nothing_is_made() {
    with_dataset(Node::plain(), |dataset| async move {
        let verdicts = dataset.client().bulk(&dataset.body(&[event(1)])).await.unwrap();
        assert!(
            matches!(&verdicts[0], Verdict::MissingTemplate { status: 404, .. }),
            "{verdicts:?}"
        );
        assert_eq!(
            dataset.client().backing_indices(&dataset.stream()).await.unwrap(),
            [""; 0]
        );
        let (status, _) = dataset.node.ask(reqwest::Method::GET, &dataset.stream(), None).await;
        assert_eq!(status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_body_can_be_cut_short_and_compressed() {
    with_dataset(Node::plain(), |mut dataset| async move {
        apply(&dataset).await;
        dataset.settings.gzip = Gzip::Always;
        let events: Vec<_> = (0..7).map(event).collect();
        let body = dataset.body(&events);
        let client = dataset.client();
        let mut first = body.clone();
        first.truncate(3);
        let verdicts = client.bulk(&first).await.unwrap();
        assert_eq!(verdicts.len(), 3);
        assert!(
            verdicts
                .iter()
                .all(|verdict| matches!(verdict, Verdict::Indexed { .. })),
            "{verdicts:?}"
        );
        let all = client.bulk(&body).await.unwrap();
        assert!(
            all.iter()
                .enumerate()
                .all(|(number, verdict)| matches!(verdict, Verdict::Duplicate { .. }) == (number < 3)),
            "{all:?}"
        );
        first.truncate(0);
        assert_eq!(client.bulk(&first).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_down_is_passed_over() {
    with_dataset(Node::plain(), |mut dataset| async move {
        apply(&dataset).await;
        let dead = "http://127.0.0.1:9".parse().unwrap();
        dataset.settings.urls.insert(0, dead);
        let client = dataset.client();
        for number in 0..6 {
            let verdicts = client.bulk(&dataset.body(&[event(number)])).await.unwrap();
            assert!(matches!(&verdicts[0], Verdict::Indexed { .. }), "{verdicts:?}");
        }
        dataset.settings.urls.truncate(1);
        let failure = dataset.client().bulk(&dataset.body(&[event(9)])).await.unwrap_err();
        assert!(
            matches!(&failure, BulkFailure::Unreachable(detail) if detail.contains("127.0.0.1:9")),
            "{failure}"
        );
    })
    .await;
}

#[tokio::test]
async fn events_are_found_by_their_parts_and_counted_by_their_ids() {
    with_dataset(Node::plain(), |mut dataset| async move {
        dataset
            .settings
            .promote
            .insert("http.status".to_owned(), "long".to_owned());
        apply(&dataset).await;
        let mut events: Vec<_> = (1..=20).map(event).collect();
        for (number, event) in events.iter_mut().enumerate() {
            let fields = format!(
                r#"{{"error_code": "E{}", "http": {{"status": {}}}}}"#,
                number % 2,
                200 + number
            );
            event.texts = StoredTexts::from(TextColumns {
                fields: Some(&fields),
                ..event.texts.columns()
            });
        }
        dataset.index(&events).await;
        dataset.refresh().await;
        let query = json!({"size": 1, "sort": [{"@timestamp": "desc"}], "query": {"bool": {"filter": [
            {"term": {"error_code": "E1"}}, {"range": {"http.status": {"gte": 210}}}, {"match": {"message": "PAYMENT"}},
            {"term": {"host.name": "web-1"}}, {"term": {"fields.http.status": "219"}}]}},
            "aggs": {"all": {"global": {}, "aggs": {"ids": {"sum": {"field": "event.id_tail"}},
            "slow": {"max": {"field": "performance_metrics.ms"}}}}}});
        let answer = dataset
            .node
            .post(&format!("{}/_search", dataset.stream()), Some(query))
            .await;
        assert_eq!(answer["hits"]["total"]["value"], 1, "{answer}");
        // Nanoseconds: nothing of the microseconds is lost.
        assert_eq!(answer["hits"]["hits"][0]["sort"][0], (NOVEMBER + 20) * 1000);
        assert_eq!(answer["aggregations"]["all"]["ids"]["value"].as_f64(), Some(210.0));
        assert_eq!(answer["aggregations"]["all"]["slow"]["value"].as_f64(), Some(12.5));
    })
    .await;
}

/// What refused a document under a naive mapping, and more of the kind.
fn nasty_objects() -> Vec<String> {
    let recorded = include_bytes!("../../fixtures/elasticsearch/bulk-nasty-documents/000.request.body");
    let recorded = String::from_utf8_lossy(recorded);
    let mut objects = Vec::new();
    for source in recorded.lines().skip(1).step_by(2) {
        objects.push(source.to_owned());
        let Ok(Value::Object(members)) = serde_json::from_str(source) else {
            continue;
        };
        // Written again as `jsonb` does: of two members of one name it keeps the last.
        objects.push(Value::Object(members.clone()).to_string());
        objects.extend(members.values().map(Value::to_string));
    }
    let many = |count: usize, member: &dyn Fn(usize) -> String| {
        let members: Vec<String> = (0..count).map(member).collect();
        format!("{{{}}}", members.join(", "))
    };
    let nested = |levels: usize| format!("{}1{}", "{\"k\": ".repeat(levels), "}".repeat(levels));
    objects.extend([
        many(600, &|number| format!("\"m{number}\": {number}.5")),
        many(5000, &|number| format!("\"key {number}\": \"x\"")),
        format!("{{\"a\": \"{}\"}}", "x".repeat(40_000)),
        format!("{{\"{}\": 1}}", "x".repeat(40_000)),
        format!("{{\"a\": {}}}", "9".repeat(400)),
        format!("{{\"a\": {}.5}}", "9".repeat(5000)),
        format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200)),
        format!("{{\"a\": [{}]}}", nested(60)),
        nested(50),
        nested(51),
        nested(1100),
        r#"{"": 1, ".": 2, "a..b": 3, " ": 4, ".a": {"": 5, ".": [{"": 6}]}, "a.": null, "_id": 7, "*": 8}"#.to_owned(),
        r#"{"ms": {"a": 1}, "ms.a": [1, "x", {"b": []}], "ok": true, "when": "2026-11-21T00:00:00Z"}"#.to_owned(),
        r#"{"lone": "\ud800", "\udc00": 1, "nul\u0000": "a\u0000b"}"#.to_owned(),
        "{\n\t\"pretty\": [\n1\n]\r\n}".to_owned(),
    ]);
    objects
}

#[tokio::test]
async fn no_event_is_refused_whatever_it_holds() {
    with_dataset(Node::plain(), |mut dataset| async move {
        dataset.settings.promote = [("a", "long"), ("ok", "boolean"), ("ms.a", "double"), ("lone", "ip")]
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .into();
        apply(&dataset).await;
        let mut events = Vec::new();
        for (position, object) in nasty_objects().into_iter().enumerate() {
            // `jsonb` has no two members of one name; as it is here, this text could not come out of it.
            if object.contains("\"a\":1,\"a\":2") || object.contains("\"message\":\"a\",\"message\":\"b\"") {
                continue;
            }
            let mut event = event(u32::try_from(position).unwrap());
            let (service, object): (String, &str) = (object.chars().take(500).collect(), &object);
            event.texts = StoredTexts::from(TextColumns {
                message: object,
                service: &service,
                user_id: Some(object),
                fields: Some(object),
                error_details: Some(object),
                ai_analysis: Some(object),
                performance_metrics: Some(object),
                tags: vec![object, ""],
                ..event.texts.columns()
            });
            events.push(event);
        }
        assert!(events.len() > 100, "{}", events.len());
        let client = dataset.client();
        for event in &events {
            let verdicts = client.bulk(&dataset.body(std::slice::from_ref(event))).await.unwrap();
            let shown: String = event.texts.columns().message.chars().take(300).collect();
            assert!(matches!(&verdicts[0], Verdict::Indexed { .. }), "{verdicts:?}: {shown}");
        }
        dataset.refresh().await;
        let count = dataset.node.get(&format!("{}/_count", dataset.stream())).await;
        assert_eq!(count["count"], events.len());
    })
    .await;
}

#[tokio::test]
async fn monthly_indices_are_plain_and_have_their_own_policy() {
    with_dataset(Node::plain(), |mut dataset| async move {
        dataset.settings.naming = Naming::Monthly;
        // All installations with this naming share these objects; the template goes at the end, since it would be listed
        // as overlapping by whoever simulates one of ours.
        apply(&dataset).await;
        let client = Client::new(&dataset.settings).unwrap();
        let targets = Targets::new(&dataset.settings, "default").unwrap();
        // The dataset is in no name here; the tenant is this test's own.
        let target = targets.target(&dataset.name, event(1).timestamp);
        assert_eq!(*target, *format!("logs-{}-2026.11", dataset.name));
        let mut body = BulkBody::new(dataset.settings.naming);
        body.push(&target, &id_of(&event(1)), &event(1), &dataset.writer());
        let verdicts = client.bulk(&body).await.unwrap();
        let expected = Verdict::Indexed {
            index: (&*target).into(),
        };
        assert_eq!(verdicts, [expected]);
        assert_eq!(client.backing_indices(&target).await.unwrap(), [target.to_string()]);
        assert_eq!(
            client
                .find(&target, &[id_of(&event(1)), id_of(&event(2))])
                .await
                .unwrap(),
            [true, false]
        );
        let made = dataset.node.get(&target).await;
        let index = &made[&*target];
        assert_eq!(
            index["settings"]["index"]["lifecycle"]["name"], "logs_policy_monthly",
            "{made}"
        );
        assert_eq!(index["mappings"]["properties"]["@timestamp"]["type"], "date_nanos");
        assert_eq!(index.get("data_stream"), None);
        for path in [target.to_string(), "_index_template/logs_template_monthly".to_owned()] {
            let (status, answer) = dataset.node.ask(reqwest::Method::DELETE, &path, None).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
    })
    .await;
}

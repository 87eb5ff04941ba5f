//! Policy and templates: applied, left alone, taken over, overridden.

use log_writer_service::elasticsearch::{BootstrapMode, BootstrapReport, ObjectState, SearchError, bootstrap};
use serde_json::{Value, json};

use crate::node::{Dataset, Node, event, with_dataset};

async fn run(dataset: &Dataset, mode: BootstrapMode) -> Result<BootstrapReport, SearchError> {
    bootstrap(&dataset.client(), &dataset.settings, mode).await
}

fn states(report: &BootstrapReport) -> Vec<ObjectState> {
    report.objects.iter().map(|object| object.state).collect()
}

/// The four objects as the node has them, without what changes by itself.
async fn objects(dataset: &Dataset) -> Vec<(u16, Value)> {
    let mut all = Vec::new();
    for (path, file) in [
        ("_ilm/policy", "logs_policy"),
        ("_component_template", "logs_settings"),
        ("_component_template", "logs_mappings"),
        ("_index_template", "logs_template"),
    ] {
        let path = format!("{path}/{}", dataset.object(file));
        let (status, body) = dataset.node.ask(reqwest::Method::GET, &path, None).await;
        all.push((status, if status == 200 { body } else { Value::Null }));
    }
    all
}

#[tokio::test]
async fn the_second_start_changes_nothing() {
    with_dataset(Node::plain(), |dataset| async move {
        let first = run(&dataset, BootstrapMode::Apply).await.unwrap();
        assert_eq!(states(&first), [ObjectState::Created; 4]);
        assert!(first.is_ready() && !first.changes().is_empty(), "{first:?}");
        assert_eq!(first.problems(), [""; 0]);
        let before = objects(&dataset).await;

        for mode in [BootstrapMode::Apply, BootstrapMode::Check, BootstrapMode::Force] {
            let report = run(&dataset, mode).await.unwrap();
            assert_eq!(states(&report), [ObjectState::Unchanged; 4], "{mode:?}");
            assert!(report.is_ready() && report.changes().is_empty(), "{report:?}");
        }
        // Also the policy's own version, which every PUT raises.
        assert_eq!(objects(&dataset).await, before);
    })
    .await;
}

#[tokio::test]
async fn a_check_changes_nothing() {
    with_dataset(Node::plain(), |dataset| async move {
        let report = run(&dataset, BootstrapMode::Check).await.unwrap();
        assert_eq!(states(&report), [ObjectState::Absent; 4]);
        assert!(!report.is_ready());
        assert_eq!(report.problems().len(), 4);
        assert!(objects(&dataset).await.iter().all(|(status, _)| *status == 404));
    })
    .await;
}

#[tokio::test]
async fn an_object_that_was_changed_by_hand_is_put_right() {
    with_dataset(Node::plain(), |dataset| async move {
        run(&dataset, BootstrapMode::Apply).await.unwrap();
        let right = objects(&dataset).await;
        let object = |file: &str| dataset.object(file);
        let policy = &right[0].1[&object("logs_policy")]["policy"];
        let template = &right[3].1["index_templates"][0]["index_template"];
        let edits = [
            (
                "_ilm/policy",
                "logs_policy",
                json!({ "policy": policy }),
                "/policy/phases/delete/min_age",
                json!("90d"),
            ),
            (
                "_component_template",
                "logs_settings",
                right[1].1["component_templates"][0]["component_template"].clone(),
                "/template/settings/index/number_of_replicas",
                json!("3"),
            ),
            (
                "_component_template",
                "logs_mappings",
                right[2].1["component_templates"][0]["component_template"].clone(),
                "/template/mappings/properties/message",
                json!({"type": "text", "fields": {"keyword": {"type": "keyword"}}}),
            ),
            (
                "_index_template",
                "logs_template",
                template.clone(),
                "/priority",
                json!(511),
            ),
        ];
        for (position, (path, file, mut body, at, value)) in edits.into_iter().enumerate() {
            *body.pointer_mut(at).unwrap() = value;
            dataset.node.put(&format!("{path}/{}", object(file)), body).await;
            let mut expected = [ObjectState::Unchanged; 4];
            expected[position] = ObjectState::Differs;
            assert_eq!(
                states(&run(&dataset, BootstrapMode::Check).await.unwrap()),
                expected,
                "{file}"
            );
            expected[position] = ObjectState::Updated;
            let report = run(&dataset, BootstrapMode::Apply).await.unwrap();
            assert_eq!(states(&report), expected, "{file}");
            assert!(report.is_ready(), "{report:?}");
        }
        assert_eq!(objects(&dataset).await[1..], right[1..]);
    })
    .await;
}

#[tokio::test]
async fn foreign_objects_stay_untouched_until_they_are_taken_over() {
    with_dataset(Node::plain(), |dataset| async move {
        let pattern = format!("logs-{}-*", dataset.name);
        let policy = json!({"policy": {"phases": {"delete": {"min_age": "1d", "actions": {"delete": {}}}}}});
        let template = json!({"index_patterns": [pattern], "priority": 510, "data_stream": {},
            "_meta": {"managed_by": "someone"}});
        dataset
            .node
            .put(&format!("_ilm/policy/{}", dataset.object("logs_policy")), policy)
            .await;
        dataset
            .node
            .put(
                &format!("_index_template/{}", dataset.object("logs_template")),
                template,
            )
            .await;
        let before = objects(&dataset).await;

        let report = run(&dataset, BootstrapMode::Apply).await.unwrap();
        let expected = [
            ObjectState::Foreign,
            ObjectState::Waiting,
            ObjectState::Created,
            ObjectState::Foreign,
        ];
        assert_eq!(states(&report), expected);
        assert!(!report.is_ready());
        let problems = report.problems().join("\n");
        assert!(
            problems.contains(&format!("index template `{}`", dataset.object("logs_template"))),
            "{problems}"
        );
        assert!(problems.contains("bootstrap --force"), "{problems}");
        let after = objects(&dataset).await;
        assert_eq!((&after[0], &after[3]), (&before[0], &before[3]));
        assert_eq!(after[1].0, 404);

        let forced = run(&dataset, BootstrapMode::Force).await.unwrap();
        let expected = [
            ObjectState::Updated,
            ObjectState::Created,
            ObjectState::Unchanged,
            ObjectState::Updated,
        ];
        assert_eq!(states(&forced), expected);
        assert!(forced.is_ready(), "{forced:?}");
        assert_eq!(
            states(&run(&dataset, BootstrapMode::Apply).await.unwrap()),
            [ObjectState::Unchanged; 4]
        );
    })
    .await;
}

#[tokio::test]
async fn a_template_that_goes_over_ours_is_named() {
    with_dataset(Node::plain(), |dataset| async move {
        let other = format!("other-{}", dataset.name);
        for template in [
            json!({"index_patterns": [format!("logs-{}*", dataset.name)], "priority": 600, "data_stream": {}}),
            json!({"index_patterns": [dataset.stream()], "priority": 601}),
        ] {
            dataset.node.put(&format!("_index_template/{other}"), template).await;
            let report = run(&dataset, BootstrapMode::Apply).await.unwrap();
            assert!(!report.is_ready());
            let simulated = report.simulated.clone().unwrap();
            assert_eq!(simulated.overridden_by.as_deref(), Some(other.as_str()));
            assert!(
                simulated.wrong.iter().any(|wrong| wrong.contains("date_nanos")),
                "{simulated:?}"
            );
            assert!(report.problems().join("\n").contains(&other));
        }
    })
    .await;
}

#[tokio::test]
async fn replicas_that_start_together_do_not_disturb_each_other() {
    with_dataset(Node::plain(), |dataset| async move {
        let runs = (0..4).map(|_| run(&dataset, BootstrapMode::Apply));
        for report in futures::future::join_all(runs).await {
            assert!(report.unwrap().is_ready());
        }
        assert_eq!(
            states(&run(&dataset, BootstrapMode::Apply).await.unwrap()),
            [ObjectState::Unchanged; 4]
        );
    })
    .await;
}

#[tokio::test]
async fn an_index_with_an_older_mapping_is_named_until_the_next_rollover() {
    with_dataset(Node::plain(), |mut dataset| async move {
        run(&dataset, BootstrapMode::Apply).await.unwrap();
        dataset.index(&[event(1)]).await;
        let written = dataset.client().backing_indices(&dataset.stream()).await.unwrap();
        let report = run(&dataset, BootstrapMode::Apply).await.unwrap();
        assert_eq!(
            report.older_indices, [""; 0],
            "the metric it mapped by itself is no older mapping"
        );

        dataset
            .settings
            .promote
            .insert("http.status".to_owned(), "long".to_owned());
        let report = run(&dataset, BootstrapMode::Apply).await.unwrap();
        assert_eq!(states(&report)[2], ObjectState::Updated);
        assert!(report.is_ready());
        assert_eq!(report.older_indices, written);

        dataset.roll_over().await;
        let report = run(&dataset, BootstrapMode::Apply).await.unwrap();
        assert_eq!(states(&report), [ObjectState::Unchanged; 4]);
        assert_eq!(report.older_indices, [""; 0]);
    })
    .await;
}

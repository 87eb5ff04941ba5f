//! A secured cluster: CA file, least privileges, refusals that show no secret.

use log_writer_service::{
    config,
    elasticsearch::{BootstrapMode, BulkBody, BulkFailure, Client, SearchErrorKind, StoredCopy, Verdict, bootstrap},
};
use serde_json::json;

use crate::node::{Dataset, Node, event, id_of, with_dataset};

/// The settings with an API key of these privileges in place of user and password.
async fn with_key(dataset: &Dataset, cluster: &[&str], index: &[&str]) -> (config::Elasticsearch, String) {
    let role = json!({"cluster": cluster, "indices": [{"names": ["logs-*"], "privileges": index}]});
    let request = json!({"name": dataset.name, "expiration": "1d", "role_descriptors": {"log_writer": role}});
    let key = dataset.node.post("_security/api_key", Some(request)).await;
    let encoded = key["encoded"].as_str().unwrap().to_owned();
    let mut settings = dataset.settings.clone();
    settings.username = None;
    settings.password = None;
    settings.api_key = Some(encoded.clone().into());
    (settings, encoded)
}

#[tokio::test]
async fn the_documented_key_can_do_all_that_is_needed() {
    with_dataset(Node::secured(), |mut dataset| async move {
        let cluster = ["monitor", "manage_index_templates", "manage_ilm"];
        let index = [
            "auto_configure",
            "create_doc",
            "read",
            "view_index_metadata",
            "delete",
            "index",
        ];
        dataset.settings = with_key(&dataset, &cluster, &index).await.0;
        let client = dataset.client();
        let report = bootstrap(&client, &dataset.settings, BootstrapMode::Apply)
            .await
            .unwrap();
        assert!(report.is_ready(), "{report:?}");
        dataset.index(&[event(1), event(2)]).await;
        dataset.roll_over().await;
        let older = client.backing_indices(&dataset.stream()).await.unwrap().remove(0);
        let ids = [id_of(&event(1)), id_of(&event(2))];
        let located = client.locate(&older, &ids).await.unwrap();
        let copy = StoredCopy {
            index: older.as_str().into(),
            version: located[0].unwrap(),
        };
        let mut body = BulkBody::over_copies();
        body.push_over(&copy, &ids[0], &event(1), &dataset.writer());
        let verdicts = client.bulk(&body).await.unwrap();
        assert!(matches!(&verdicts[0], Verdict::Indexed { .. }), "{verdicts:?}");
        client.delete(&older, &ids).await.unwrap();
        assert_eq!(client.find(&older, &ids).await.unwrap(), [false, false]);
        let report = bootstrap(&client, &dataset.settings, BootstrapMode::Apply)
            .await
            .unwrap();
        assert!(report.is_ready() && report.changes().is_empty(), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn a_key_without_a_privilege_is_refused_where_it_lacks_it() {
    with_dataset(Node::secured(), |mut dataset| async move {
        let report = bootstrap(&dataset.client(), &dataset.settings, BootstrapMode::Apply)
            .await
            .unwrap();
        assert!(report.is_ready(), "{report:?}");
        dataset.index(&[event(1)]).await;
        let older = dataset
            .client()
            .backing_indices(&dataset.stream())
            .await
            .unwrap()
            .remove(0);

        dataset.settings = with_key(&dataset, &["monitor"], &["create_doc", "read", "view_index_metadata"])
            .await
            .0;
        let client = dataset.client();
        let error = bootstrap(&client, &dataset.settings, BootstrapMode::Apply)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), SearchErrorKind::Forbidden, "{error}");
        let error = client.delete(&older, &[id_of(&event(1))]).await.unwrap_err();
        assert_eq!(error.kind(), SearchErrorKind::Forbidden, "{error}");
        assert_eq!(client.find(&older, &[id_of(&event(1))]).await.unwrap(), [true]);
        // It may write to the stream that is there, and to no other.
        dataset.index(&[event(2)]).await;
        let mut body = dataset.body(&[event(3)]);
        body.push("metrics-app-default", &id_of(&event(4)), &event(4), &dataset.writer());
        let verdicts = client.bulk(&body).await.unwrap();
        assert!(matches!(&verdicts[0], Verdict::Indexed { .. }), "{verdicts:?}");
        assert!(
            matches!(&verdicts[1], Verdict::Forbidden { status: 403, .. }),
            "{verdicts:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn wrong_credentials_and_an_unknown_ca_are_told_without_the_secret() {
    with_dataset(Node::secured(), |mut dataset| async move {
        dataset.settings.password = Some("not-the-password".to_owned().into());
        let failure = dataset.client().bulk(&dataset.body(&[event(1)])).await.unwrap_err();
        assert!(
            matches!(&failure, BulkFailure::Forbidden { status: 401, .. }),
            "{failure}"
        );
        let error = dataset.client().info().await.unwrap_err();
        assert_eq!(error.kind(), SearchErrorKind::Forbidden, "{error}");
        let shown = format!("{error} {error:?} {failure} {failure:?} {:?}", dataset.client());
        assert!(!shown.contains("not-the-password"), "{shown}");

        dataset.settings.ca_file = None;
        let failure = dataset.client().bulk(&dataset.body(&[event(1)])).await.unwrap_err();
        assert!(
            matches!(&failure, BulkFailure::Unreachable(detail) if detail.contains("ertificate")),
            "{failure}"
        );

        dataset.settings.username = None;
        for key in ["", "with blank", "l\u{ed}ne"] {
            dataset.settings.password = None;
            dataset.settings.api_key = Some(key.to_owned().into());
            let error = Client::new(&dataset.settings).unwrap_err();
            assert_eq!(error.kind(), SearchErrorKind::Settings);
        }
        let (settings, key) = with_key(&dataset, &["monitor"], &["read"]).await;
        let client = Client::new(&settings).unwrap();
        let shown = format!("{client:?} {settings:?}");
        assert!(!shown.contains(&key), "{shown}");
    })
    .await;
}

//! Copies in several indices of a stream: found, deleted, written over.

use log_writer_service::{
    elasticsearch::{BootstrapMode, BulkBody, SearchErrorKind, StoredCopy, Verdict, bootstrap},
    event::{StoredTexts, TextColumns},
};
use serde_json::Value;

use crate::node::{Dataset, Node, event, id_of, with_dataset};

async fn apply(dataset: &Dataset) {
    let report = bootstrap(&dataset.client(), &dataset.settings, BootstrapMode::Apply)
        .await
        .unwrap();
    assert!(report.is_ready(), "{report:?}");
}

async fn source(dataset: &Dataset, index: &str, number: u32) -> Value {
    dataset
        .node
        .get(&format!("{index}/_doc/{}", id_of(&event(number))))
        .await["_source"]
        .clone()
}

#[tokio::test]
async fn a_double_made_over_a_rollover_is_found_and_deleted() {
    with_dataset(Node::plain(), |dataset| async move {
        apply(&dataset).await;
        let client = dataset.client();
        dataset.index(&[event(1)]).await;
        dataset.roll_over().await;
        let indices = client.backing_indices(&dataset.stream()).await.unwrap();
        assert_eq!(indices.len(), 2);
        assert!(
            indices[0].ends_with("000001") && indices[1].ends_with("000002"),
            "{indices:?}"
        );

        let ids = [id_of(&event(1)), id_of(&event(2))];
        assert_eq!(client.find(&indices[0], &ids).await.unwrap(), [true, false]);
        assert_eq!(client.find(&indices[1], &ids).await.unwrap(), [false, false]);
        // Elasticsearch knows an id only within one index.
        let verdicts = client.bulk(&dataset.body(&[event(1)])).await.unwrap();
        let newer = indices[1].clone();
        assert_eq!(
            verdicts,
            [Verdict::Indexed {
                index: newer.as_str().into()
            }]
        );
        assert_eq!(client.find(&indices[1], &ids).await.unwrap(), [true, false]);

        client.delete(&indices[1], &ids).await.unwrap();
        assert_eq!(client.find(&indices[1], &ids).await.unwrap(), [false, false]);
        assert_eq!(client.find(&indices[0], &ids).await.unwrap(), [true, false]);
        // Deleted already: asked for again after a lost answer.
        client.delete(&indices[1], &ids).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_copy_is_written_over_only_if_it_is_the_one_that_was_located() {
    with_dataset(Node::plain(), |dataset| async move {
        apply(&dataset).await;
        let client = dataset.client();
        dataset.index(&[event(1), event(2)]).await;
        dataset.roll_over().await;
        let older = client.backing_indices(&dataset.stream()).await.unwrap().remove(0);
        let ids = [id_of(&event(1)), id_of(&event(2)), id_of(&event(3))];
        let located = client.locate(&older, &ids).await.unwrap();
        assert_eq!(located[2], None);
        let mut changed = event(1);
        changed.texts = StoredTexts::from(TextColumns {
            message: "changed",
            ..changed.texts.columns()
        });
        let copy = StoredCopy {
            index: older.as_str().into(),
            version: located[0].unwrap(),
        };
        let writer = dataset.writer();
        let mut body = BulkBody::over_copies();
        body.push_over(&copy, &ids[0], &changed, &writer);
        let verdicts = client.bulk(&body).await.unwrap();
        assert_eq!(
            verdicts,
            [Verdict::Indexed {
                index: older.as_str().into()
            }]
        );
        assert_eq!(source(&dataset, &older, 1).await["message"], "changed");

        // The version is an old one now, and another document's version is none of a third.
        body.push_over(&copy, &ids[2], &changed, &writer);
        let verdicts = client.bulk(&body).await.unwrap();
        for verdict in &verdicts {
            assert!(matches!(verdict, Verdict::Retry { status: 409, .. }), "{verdicts:?}");
        }
        assert_eq!(client.find(&older, &ids).await.unwrap(), [true, true, false]);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_looked_up_is_never_absent() {
    with_dataset(Node::plain(), |dataset| async move {
        apply(&dataset).await;
        let client = dataset.client();
        assert_eq!(client.backing_indices(&dataset.stream()).await.unwrap(), [""; 0]);
        dataset.index(&[event(1)]).await;
        let ids = [id_of(&event(1))];
        // The stream itself, and an index that the policy has deleted.
        for index in [dataset.stream(), format!(".ds-{}-2026.11.21-000009", dataset.stream())] {
            let error = client.find(&index, &ids).await.unwrap_err();
            assert_eq!(error.kind(), SearchErrorKind::Missing, "{error}");
            client.delete(&index, &ids).await.unwrap_err();
        }
        assert_eq!(client.find("no-such-index", &[]).await.unwrap(), [false; 0]);
    })
    .await;
}

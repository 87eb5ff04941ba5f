//! The content of a few: the document that an event would make now, beside the one that is there.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;
use uuid::Uuid;

use super::{Found, Listener, Run, VerifyError};
use crate::{
    elasticsearch::{DocumentId, Range, document_id},
    event::{StoredEvent, Timestamp},
    timescale::{OutboxId, OutboxRow, Standing, WorkKind},
};

impl<L: Listener> Run<'_, L> {
    /// Compares what a random few documents of an hour hold.
    pub(super) async fn sample(&mut self, tenant: &str, hour: Range) -> Result<(), VerifyError> {
        let client = &self.verifier.client;
        let sampled = client.sample(&self.indices, tenant, hour, self.scope.sample).await?;
        let keys: Vec<(Timestamp, Uuid)> = sampled.iter().filter_map(|(_, _, source)| key(source)).collect();
        let events = self.events_of(tenant, &keys).await?;
        let mut different = Vec::new();
        for (index, id, source) in sampled {
            let Some(rows) = events.get(id.as_str()) else { continue };
            self.outcome.sampled += 1;
            // Where the table has no key, an event may stand in it twice; either row may have come first.
            let compared = rows
                .iter()
                .map(|event| (names_that_differ(&self.expected(event), &source), event));
            if let Some((names, event)) = compared.min_by_key(|(names, _)| names.len())
                && !names.is_empty()
            {
                different.push(((event.timestamp, event.id), index, names));
            }
        }
        let keys: Vec<(Timestamp, Uuid)> = different.iter().map(|(key, ..)| *key).collect();
        // What is about to be written over is no difference.
        let standings = self.verifier.census.standing(tenant, &keys).await?;
        for ((key, index, names), standing) in different.into_iter().zip(standings) {
            if standing == Standing::Settled {
                self.different(tenant, key, index, names).await?;
            }
        }
        Ok(())
    }

    async fn different(
        &mut self,
        tenant: &str,
        (time, id): (Timestamp, Uuid),
        index: String,
        names: Vec<String>,
    ) -> Result<(), VerifyError> {
        let target = self.verifier.target(tenant, time);
        let repaired = self
            .deliver_again(WorkKind::Replace, tenant, &target, &[(time, id)])
            .await?;
        self.outcome.different += 1;
        self.listener.found(&Found::Different {
            tenant: tenant.to_owned(),
            id: id.to_string(),
            timestamp: time.to_rfc3339(),
            index,
            names,
            repaired,
        });
        Ok(())
    }

    /// The stored events of these, by their documents' ids.
    async fn events_of(
        &self,
        tenant: &str,
        keys: &[(Timestamp, Uuid)],
    ) -> Result<HashMap<String, Vec<StoredEvent>>, VerifyError> {
        let times = || keys.iter().map(|(time, _)| *time);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return Ok(HashMap::new());
        };
        // As delivery reads what stands in the outbox.
        let row = OutboxRow {
            id: OutboxId(0),
            batch_id: 0,
            target: Arc::from(""),
            tenants: vec![tenant.to_owned()],
            first,
            last,
            events: i64::try_from(keys.len()).unwrap_or(i64::MAX),
            bytes: 0,
            kind: WorkKind::Replace,
            open: Some(keys.iter().map(|(time, id)| (*id, *time)).collect()),
            attempts: 1,
            taken_over: false,
            awaits_bulk: false,
            claimable: 1,
        };
        let events = self.verifier.outbox.read_back(&[row]).await?;
        let mut by_id: HashMap<String, Vec<StoredEvent>> = HashMap::new();
        for event in events.into_iter().flatten() {
            by_id.entry(self.id_of(&event).to_string()).or_default().push(event);
        }
        Ok(by_id)
    }

    fn id_of(&self, event: &StoredEvent) -> DocumentId {
        document_id(event.id, event.timestamp, &event.tenant, &self.bare_tenant)
    }

    fn expected(&self, event: &StoredEvent) -> Value {
        let mut text = Vec::new();
        self.verifier.documents.write(event, &mut text);
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Time and id as the document itself has them.
fn key(source: &Value) -> Option<(Timestamp, Uuid)> {
    let time: chrono::DateTime<chrono::Utc> = source.get("@timestamp")?.as_str()?.parse().ok()?;
    let id: Uuid = source.get("event")?.get("id")?.as_str()?.parse().ok()?;
    Some((time.into(), id))
}

/// Top-level names whose values are not the same.
fn names_that_differ(expected: &Value, found: &Value) -> Vec<String> {
    let names = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys().cloned())
            .collect()
    };
    let mut all = names(expected);
    all.extend(names(found));
    all.sort_unstable();
    all.dedup();
    all.retain(|name| expected.get(name) != found.get(name));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_differ_that_are_changed_added_or_gone() {
        let expected = json!({ "a": 1, "b": { "c": [1, 2] }, "d": null });
        assert!(names_that_differ(&expected, &expected).is_empty());
        let found = json!({ "a": 2, "b": { "c": [1] }, "e": 1, "d": null });
        assert_eq!(names_that_differ(&expected, &found), ["a", "b", "e"]);
    }
}

//! Event by event: both stores side by side in the order of time and id, and a second look at whatever has no counterpart.

use std::{cmp::Ordering, collections::VecDeque};

use uuid::Uuid;

use super::{Found, GROUP, Listener, PAGE, Run, VerifyError};
use crate::{
    elasticsearch::{DocumentId, FoundDocument, Range, SearchErrorKind, document_id},
    event::Timestamp,
    timescale::{Again, Requeued, Standing, WorkKind},
};

/// Time and id, in which order both stores are read.
type Key = (Timestamp, Uuid);

/// What has no counterpart, or several, as far as searches see; to be judged.
#[derive(Debug, Default)]
struct Suspects {
    events: Vec<Key>,
    documents: Vec<FoundDocument>,
}

impl<L: Listener> Run<'_, L> {
    /// Compares a tenant's events and documents one by one.
    pub(super) async fn minute(&mut self, tenant: Option<&str>, range: Range) -> Result<(), VerifyError> {
        let mut events = Events::new(tenant, range);
        let mut documents = Documents::new(tenant, range);
        let mut suspects = Suspects::default();
        loop {
            events.fill(self).await?;
            documents.fill(self).await?;
            let order = match (events.page.front(), documents.page.front()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(event), Some(document)) => event.cmp(&key(document)),
            };
            match order {
                Ordering::Less => suspects.events.extend(events.page.pop_front()),
                Ordering::Greater => suspects.documents.extend(documents.page.pop_front()),
                Ordering::Equal => {
                    if let Some(event) = events.page.pop_front() {
                        self.pair(tenant, event, &mut documents, &mut suspects).await?;
                    }
                }
            }
            if suspects.events.len() >= GROUP || suspects.documents.len() >= GROUP {
                self.judge(tenant, std::mem::take(&mut suspects)).await?;
            }
        }
        self.judge(tenant, suspects).await
    }

    /// The documents of one event: one under its own id is as it should be.
    async fn pair(
        &mut self,
        tenant: Option<&str>,
        event: Key,
        documents: &mut Documents<'_>,
        suspects: &mut Suspects,
    ) -> Result<(), VerifyError> {
        let own = self.document_id(tenant.unwrap_or_default(), event);
        let mut copies = 0;
        loop {
            documents.fill(self).await?;
            let Some(document) = documents.page.pop_front_if(|document| key(document) == event) else {
                break;
            };
            if document.id == own {
                copies += 1;
            } else {
                suspects.documents.push(document);
            }
        }
        if copies != 1 {
            suspects.events.push(event);
        }
        Ok(())
    }

    fn document_id(&self, tenant: &str, (time, id): Key) -> DocumentId {
        document_id(id, time, tenant, &self.bare_tenant)
    }

    async fn judge(&mut self, tenant: Option<&str>, suspects: Suspects) -> Result<(), VerifyError> {
        if let Some(tenant) = tenant {
            for events in suspects.events.chunks(GROUP) {
                self.judge_events(tenant, events).await?;
            }
        }
        for documents in suspects.documents.chunks(GROUP) {
            self.judge_documents(tenant, documents).await?;
        }
        Ok(())
    }

    /// Of events that are settled, those that are in no index, or in several.
    async fn judge_events(&mut self, tenant: &str, events: &[Key]) -> Result<(), VerifyError> {
        let standings = self.verifier.census.standing(tenant, events).await?;
        let mut settled: Vec<Key> = events
            .iter()
            .zip(standings)
            .filter_map(|(event, standing)| (standing == Standing::Settled).then_some(*event))
            .collect();
        // By monthly naming a minute has one target all the same; by streams there is but one.
        settled.sort_unstable();
        let Some((first, _)) = settled.first() else {
            return Ok(());
        };
        let target = self.verifier.target(tenant, *first);
        let (mut missing, mut doubled) = (Vec::new(), Vec::new());
        let ids: Vec<DocumentId> = settled.iter().map(|event| self.document_id(tenant, *event)).collect();
        let holders = self.verifier.client.holders(&target, &ids).await?;
        for (event, indices) in settled.iter().zip(holders) {
            match indices.len() {
                0 => missing.push(*event),
                1 => {}
                _ => doubled.push((*event, indices)),
            }
        }
        self.missing(tenant, &target, &missing).await?;
        self.doubled(tenant, doubled).await
    }

    async fn missing(&mut self, tenant: &str, target: &str, events: &[Key]) -> Result<(), VerifyError> {
        let repaired = self.deliver_again(WorkKind::Repair, tenant, target, events).await?;
        for (time, id) in events {
            self.outcome.missing += 1;
            self.listener.found(&Found::Missing {
                tenant: tenant.to_owned(),
                id: id.to_string(),
                timestamp: time.to_rfc3339(),
                target: target.to_owned(),
                repaired,
            });
        }
        Ok(())
    }

    /// Puts events into the outbox again if somebody repairs; whether they stand there.
    pub(super) async fn deliver_again(
        &mut self,
        kind: WorkKind,
        tenant: &str,
        target: &str,
        events: &[Key],
    ) -> Result<bool, VerifyError> {
        let Some(repair) = self.repair.filter(|_| !events.is_empty()) else {
            return Ok(false);
        };
        let again = Again {
            worker: &repair.worker,
            action: repair.action,
            kind,
            events_max: self.verifier.events_max,
            bytes_max: self.verifier.bytes_max,
        };
        let census = &self.verifier.census;
        let enqueued = census.deliver_again(again, tenant, target, events).await?;
        self.outcome.repaired += u64::try_from(enqueued).unwrap_or_default();
        Ok(true)
    }

    async fn doubled(&mut self, tenant: &str, events: Vec<(Key, Vec<String>)>) -> Result<(), VerifyError> {
        if let Some(repair) = self.repair {
            for (event, indices) in &events {
                let id = self.document_id(tenant, *event);
                // Every process keeps the oldest.
                for index in indices.iter().skip(1) {
                    self.verifier.client.delete(index, std::slice::from_ref(&id)).await?;
                }
            }
            let count = events.len();
            self.verifier.census.note_deleted(repair.action, count).await?;
            self.outcome.repaired += u64::try_from(count).unwrap_or_default();
        }
        for ((time, id), indices) in events {
            self.outcome.doubled += 1;
            self.listener.found(&Found::Doubled {
                tenant: tenant.to_owned(),
                id: id.to_string(),
                timestamp: time.to_rfc3339(),
                indices,
                repaired: self.repair.is_some(),
            });
        }
        Ok(())
    }

    /// A dead letter whose document is there: the next delivery finds it, and the letter goes.
    async fn buried(&mut self, tenant: &str, (time, id): Key, index: &str) -> Result<(), VerifyError> {
        let verifier = self.verifier;
        let requeued = match self.repair {
            Some(repair) => {
                let (pool, event) = (verifier.census.pool(), [(id, time, tenant)]);
                let (events_max, bytes_max) = (verifier.events_max, verifier.bytes_max);
                let action = Some(repair.action);
                Requeued::requeue_indexed(pool, &repair.worker, action, &event, events_max, bytes_max).await?
            }
            None => 0,
        };
        self.outcome.buried += 1;
        self.outcome.repaired += u64::try_from(requeued).unwrap_or_default();
        self.listener.found(&Found::Buried {
            tenant: tenant.to_owned(),
            id: id.to_string(),
            timestamp: time.to_rfc3339(),
            index: index.to_owned(),
            repaired: requeued > 0,
        });
        Ok(())
    }

    /// Of documents that searches found and that are still there, those of dead letters and those of no event.
    async fn judge_documents(&mut self, tenant: Option<&str>, documents: &[FoundDocument]) -> Result<(), VerifyError> {
        let keys: Vec<Key> = documents.iter().map(key).collect();
        let standings = match tenant {
            Some(tenant) => self.verifier.census.standing(tenant, &keys).await?,
            None => vec![Standing::Gone; keys.len()],
        };
        for ((document, event), standing) in documents.iter().zip(keys).zip(standings) {
            let is_events_own = tenant.is_some_and(|tenant| self.document_id(tenant, event) == document.id);
            if is_events_own
                && matches!(
                    standing,
                    Standing::Outstanding | Standing::RefusedChange | Standing::Settled
                )
            {
                continue;
            }
            let there = self
                .verifier
                .client
                .find(&document.index, std::slice::from_ref(&document.id))
                .await;
            match there {
                Ok(there) if there == [true] => {}
                Ok(_) => continue,
                // Its index went meanwhile.
                Err(error) if error.kind() == SearchErrorKind::Missing => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(tenant) = tenant.filter(|_| is_events_own && standing == Standing::DeadLetter) {
                self.buried(tenant, event, &document.index).await?;
                continue;
            }
            self.outcome.strangers += 1;
            self.listener.found(&Found::Stranger {
                tenant: tenant.map(str::to_owned),
                document: document.id.to_string(),
                timestamp: document.timestamp.to_rfc3339(),
                index: document.index.clone(),
            });
        }
        Ok(())
    }
}

fn key(document: &FoundDocument) -> Key {
    // Those without an id stand last of their time.
    (document.timestamp, document.event.unwrap_or(Uuid::max()))
}

/// A tenant's events of a range, a page at a time.
struct Events<'a> {
    tenant: Option<&'a str>,
    range: Range,
    page: VecDeque<Key>,
    last: Option<Key>,
    is_over: bool,
}

impl<'a> Events<'a> {
    fn new(tenant: Option<&'a str>, range: Range) -> Self {
        Self {
            tenant,
            range,
            page: VecDeque::new(),
            last: None,
            is_over: tenant.is_none(),
        }
    }

    async fn fill<L>(&mut self, run: &Run<'_, L>) -> Result<(), VerifyError> {
        if !self.page.is_empty() || self.is_over {
            return Ok(());
        }
        let census = &run.verifier.census;
        let tenant = self.tenant.unwrap_or_default();
        let page = census.events(tenant, self.range, self.last, PAGE).await?;
        self.is_over = page.len() < PAGE;
        self.last = page.last().copied();
        self.page = page.into();
        Ok(())
    }
}

/// The documents of a range that name the tenant, a page at a time.
struct Documents<'a> {
    tenant: Option<&'a str>,
    range: Range,
    page: VecDeque<FoundDocument>,
    last: Option<FoundDocument>,
    is_over: bool,
}

impl<'a> Documents<'a> {
    fn new(tenant: Option<&'a str>, range: Range) -> Self {
        Self {
            tenant,
            range,
            page: VecDeque::new(),
            last: None,
            is_over: false,
        }
    }

    async fn fill<L>(&mut self, run: &Run<'_, L>) -> Result<(), VerifyError> {
        if !self.page.is_empty() || self.is_over {
            return Ok(());
        }
        let client = &run.verifier.client;
        let page = client
            .documents(&run.indices, self.tenant, self.range, self.last.as_ref(), PAGE)
            .await?;
        self.is_over = page.len() < PAGE;
        self.last = page.last().cloned();
        self.page = page.into();
        Ok(())
    }
}

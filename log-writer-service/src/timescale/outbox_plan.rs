//! Which outbox rows a batch makes: one for each chunk and target, pointing at its rows without holding them.
//!
//! A row of the outbox names its events by batch, tenants and first and last time. Rows that were there already carry
//! another batch, so they are left out by themselves. Where that would not tell two outbox rows of one batch apart, both
//! list their ids.

use std::{collections::HashSet, sync::Arc};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    batch::{Batch, Place},
    bisect::{Exception, Outcome},
    error::StoreError,
};
use crate::event::Timestamp;

/// Outbox rows to be.
pub(super) struct Plan {
    /// One for each chunk and target.
    pub(super) rows: Vec<PlannedRow>,
    /// Stored rows that go nowhere.
    pub(super) unmirrored: i64,
}

/// One outbox row to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedRow {
    chunk: i64,
    target: Option<Arc<str>>,
    tenants: Vec<Arc<str>>,
    first: Timestamp,
    last: Timestamp,
    /// Rows really inserted.
    pub(super) events: i64,
    bytes: i64,
    open: Option<Vec<(Uuid, Timestamp)>>,
}

/// What one outbox row may stand for; a larger one would have to be read back at one go.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowLimits {
    /// Time that a chunk spans, in microseconds.
    pub(super) chunk_micros: i64,
    /// Events at most.
    pub(super) events_max: usize,
    /// Bytes at most, as encoded.
    pub(super) bytes_max: usize,
}

/// Groups the rows that were really inserted.
pub(super) fn plan(batch: &Batch<'_>, exceptions: &[Exception], limits: RowLimits) -> Plan {
    let chunk_of = |stored: &Stored<'_>| stored.timestamp.0.div_euclid(limits.chunk_micros.max(1));
    let mut groups: Vec<PlannedRow> = Vec::new();
    for_each_stored(batch, exceptions, |stored| {
        let chunk = chunk_of(&stored);
        let fits = |row: &&mut PlannedRow| row.chunk == chunk && row.target.as_ref() == stored.target;
        match groups.iter_mut().rev().find(fits) {
            Some(row) => row.add(&stored),
            None => groups.push(PlannedRow::of(chunk, &stored)),
        }
    });
    let mut plan = Plan {
        rows: Vec::with_capacity(groups.len()),
        unmirrored: 0,
    };
    for (number, group) in groups.iter().enumerate() {
        let alike = groups
            .iter()
            .enumerate()
            .any(|(other, that)| other != number && group.cannot_be_told_from(that));
        if group.target.is_none() {
            plan.unmirrored += group.events;
        } else if alike || group.exceeds(limits) {
            let mut listed = Vec::new();
            for_each_stored(batch, exceptions, |stored| {
                if chunk_of(&stored) == group.chunk && stored.target == group.target.as_ref() {
                    listed.push(stored);
                }
            });
            plan.rows.extend(cut(listed, group.chunk, limits));
        } else {
            plan.rows.push(group.clone());
        }
    }
    plan
}

/// Rows within the limits that list their events, neighbours in time together.
fn cut(mut listed: Vec<Stored<'_>>, chunk: i64, limits: RowLimits) -> Vec<PlannedRow> {
    listed.sort_unstable_by_key(|stored| stored.timestamp);
    let mut rows: Vec<PlannedRow> = Vec::new();
    for stored in &listed {
        match rows.last_mut().filter(|row| row.has_room_for(stored, limits)) {
            Some(row) => row.add(stored),
            None => rows.push(PlannedRow {
                open: Some(Vec::new()),
                ..PlannedRow::of(chunk, stored)
            }),
        }
        if let Some(open) = rows.last_mut().and_then(|row| row.open.as_mut()) {
            open.push((stored.id(), stored.timestamp));
        }
    }
    rows
}

/// Inserts the rows, within the caller's transaction; from one attempt on Elasticsearch is asked before anything is sent.
pub(super) async fn enqueue(
    connection: &mut PgConnection,
    batch_id: i64,
    rows: &[PlannedRow],
    attempts: i32,
) -> Result<(), StoreError> {
    // In groups: what lists its events is large as JSON, and a large request makes many of them.
    for group in rows.chunk_by(|one, next| one.open.is_none() && next.open.is_none()) {
        enqueue_group(connection, batch_id, group, attempts).await?;
    }
    Ok(())
}

async fn enqueue_group(
    connection: &mut PgConnection,
    batch_id: i64,
    rows: &[PlannedRow],
    attempts: i32,
) -> Result<(), StoreError> {
    let json: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "target": row.target.as_deref(),
                "tenants": row.tenants.iter().map(|tenant| &**tenant).collect::<Vec<_>>(),
                "first_micros": row.first.0,
                "last_micros": row.last.0,
                "events": row.events,
                "bytes": row.bytes,
                "open_ids": row.open.as_ref().map(|open| open.iter().map(|(id, _)| *id).collect::<Vec<_>>()),
                "open_micros": row.open.as_ref().map(|open| open.iter().map(|(_, time)| time.0).collect::<Vec<_>>()),
            })
        })
        .collect();
    sqlx::query(include_str!("sql/enqueue_outbox_rows.sql"))
        .bind(batch_id)
        .bind(serde_json::Value::from(json))
        .bind(attempts)
        .execute(connection)
        .await
        .map_err(StoreError::during("enqueue outbox rows"))?;
    Ok(())
}

struct Stored<'b> {
    place: Place<'b>,
    /// Its id, if not the encoded one.
    renamed: Option<Uuid>,
    timestamp: Timestamp,
    // Not counted: two committers would count the same ones.
    tenant: &'b Arc<str>,
    target: Option<&'b Arc<str>>,
    bytes: i64,
}

fn for_each_stored<'b>(batch: &Batch<'b>, exceptions: &[Exception], mut visit: impl FnMut(Stored<'b>)) {
    let mut exceptions = exceptions.iter().peekable();
    for (number, place) in batch.places() {
        let exception = exceptions
            .next_if(|exception| exception.row == number)
            .map(|exception| &exception.outcome);
        let renamed = match exception {
            None => None,
            Some(Outcome::Renamed(id)) => Some(*id),
            Some(Outcome::Duplicate | Outcome::Refused { .. }) => continue,
        };
        let Some(note) = place.rows.note(place.row) else {
            continue;
        };
        visit(Stored {
            renamed,
            timestamp: note.timestamp,
            tenant: &note.tenant,
            target: note.target.as_ref(),
            bytes: i64::try_from(place.rows.row(place.row).len()).unwrap_or(i64::MAX),
            place,
        });
    }
}

impl Stored<'_> {
    /// Read only where it is needed: most rows need not be touched for the plan.
    fn id(&self) -> Uuid {
        self.renamed.unwrap_or_else(|| self.place.rows.id(self.place.row))
    }
}

impl PlannedRow {
    fn of(chunk: i64, stored: &Stored<'_>) -> Self {
        Self {
            chunk,
            target: stored.target.map(Arc::clone),
            tenants: vec![Arc::clone(stored.tenant)],
            first: stored.timestamp,
            last: stored.timestamp,
            events: 1,
            bytes: stored.bytes,
            open: None,
        }
    }

    fn add(&mut self, stored: &Stored<'_>) {
        if !self
            .tenants
            .iter()
            .rev()
            .any(|tenant| Arc::ptr_eq(tenant, stored.tenant) || tenant == stored.tenant)
        {
            self.tenants.push(Arc::clone(stored.tenant));
        }
        self.first = self.first.min(stored.timestamp);
        self.last = self.last.max(stored.timestamp);
        self.events += 1;
        self.bytes = self.bytes.saturating_add(stored.bytes);
    }

    fn exceeds(&self, limits: RowLimits) -> bool {
        usize::try_from(self.events).is_ok_and(|events| events > limits.events_max)
            || usize::try_from(self.bytes).is_ok_and(|bytes| bytes > limits.bytes_max)
    }

    fn has_room_for(&self, stored: &Stored<'_>, limits: RowLimits) -> bool {
        usize::try_from(self.events).is_ok_and(|events| events < limits.events_max)
            && usize::try_from(self.bytes + stored.bytes).is_ok_and(|bytes| bytes <= limits.bytes_max)
    }

    /// Whether some event could be taken for one of either row.
    fn cannot_be_told_from(&self, other: &Self) -> bool {
        let tenants: HashSet<&str> = self.tenants.iter().map(|tenant| &**tenant).collect();
        self.first <= other.last
            && other.first <= self.last
            && other.tenants.iter().any(|tenant| tenants.contains(&**tenant))
    }
}

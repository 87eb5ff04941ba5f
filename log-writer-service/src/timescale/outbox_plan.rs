//! Which outbox rows a batch makes: one for each chunk and target, pointing at its rows without holding them.
//!
//! A row of the outbox names its events by batch, tenants and first and last time. Rows that were there already carry
//! another batch, so they are left out by themselves. Where that would not tell two outbox rows of one batch apart, both
//! list their ids.

use std::{collections::HashSet, sync::Arc};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    batch::Batch,
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

/// Groups the rows that were really inserted.
pub(super) fn plan(batch: &Batch<'_>, exceptions: &[Exception], chunk_micros: i64) -> Plan {
    let mut rows: Vec<PlannedRow> = Vec::new();
    for_each_stored(batch, exceptions, |stored| {
        let chunk = stored.timestamp.0.div_euclid(chunk_micros.max(1));
        let fits = |row: &&mut PlannedRow| row.chunk == chunk && row.target == stored.target;
        match rows.iter_mut().rev().find(fits) {
            Some(row) => row.add(&stored),
            None => rows.push(PlannedRow::of(chunk, &stored)),
        }
    });
    let alike: Vec<usize> = rows
        .iter()
        .enumerate()
        .filter(|(number, row)| {
            rows.iter()
                .enumerate()
                .any(|(other, that)| other != *number && row.cannot_be_told_from(that))
        })
        .map(|(number, _)| number)
        .collect();
    for number in alike {
        let Some(row) = rows.get_mut(number) else { continue };
        let mut open = Vec::new();
        for_each_stored(batch, exceptions, |stored| {
            if stored.timestamp.0.div_euclid(chunk_micros.max(1)) == row.chunk && stored.target == row.target {
                open.push((stored.id, stored.timestamp));
            }
        });
        row.open = Some(open);
    }
    let unmirrored = rows
        .iter()
        .filter(|row| row.target.is_none())
        .map(|row| row.events)
        .sum();
    rows.retain(|row| row.target.is_some());
    Plan { rows, unmirrored }
}

/// Inserts the rows, within the caller's transaction.
pub(super) async fn enqueue(
    connection: &mut PgConnection,
    batch_id: i64,
    rows: &[PlannedRow],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
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
        .execute(connection)
        .await
        .map_err(StoreError::during("enqueue outbox rows"))?;
    Ok(())
}

struct Stored {
    id: Uuid,
    timestamp: Timestamp,
    tenant: Arc<str>,
    target: Option<Arc<str>>,
    bytes: i64,
}

fn for_each_stored(batch: &Batch<'_>, exceptions: &[Exception], mut visit: impl FnMut(Stored)) {
    let mut exceptions = exceptions.iter().peekable();
    for (number, place) in batch.places() {
        let exception = exceptions
            .next_if(|exception| exception.row == number)
            .map(|exception| &exception.outcome);
        let id = match exception {
            None => place.rows.id(place.row),
            Some(Outcome::Renamed(id)) => *id,
            Some(Outcome::Duplicate | Outcome::Refused { .. }) => continue,
        };
        let Some(note) = place.rows.note(place.row) else {
            continue;
        };
        visit(Stored {
            id,
            timestamp: note.timestamp,
            tenant: Arc::clone(&note.tenant),
            target: note.target.clone(),
            bytes: i64::try_from(place.rows.row(place.row).len()).unwrap_or(i64::MAX),
        });
    }
}

impl PlannedRow {
    fn of(chunk: i64, stored: &Stored) -> Self {
        Self {
            chunk,
            target: stored.target.clone(),
            tenants: vec![Arc::clone(&stored.tenant)],
            first: stored.timestamp,
            last: stored.timestamp,
            events: 1,
            bytes: stored.bytes,
            open: None,
        }
    }

    fn add(&mut self, stored: &Stored) {
        if !self
            .tenants
            .iter()
            .rev()
            .any(|tenant| Arc::ptr_eq(tenant, &stored.tenant) || *tenant == stored.tenant)
        {
            self.tenants.push(Arc::clone(&stored.tenant));
        }
        self.first = self.first.min(stored.timestamp);
        self.last = self.last.max(stored.timestamp);
        self.events += 1;
        self.bytes = self.bytes.saturating_add(stored.bytes);
    }

    /// Whether some event could be taken for one of either row.
    fn cannot_be_told_from(&self, other: &Self) -> bool {
        let tenants: HashSet<&str> = self.tenants.iter().map(|tenant| &**tenant).collect();
        self.first <= other.last
            && other.first <= self.last
            && other.tenants.iter().any(|tenant| tenants.contains(&**tenant))
    }
}

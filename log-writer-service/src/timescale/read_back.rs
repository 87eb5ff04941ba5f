//! Reads the events of claimed outbox rows back from the hypertable.
//!
//! Rows that stand for a whole batch are read together, by windows of time and `batch_id = any`: the key's time column
//! keeps other chunks out. Rows that list their events are read by the key. An event that retention took meanwhile is
//! simply not among the answers; the caller counts.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    error::StoreError,
    outbox::{Outbox, OutboxRow, WorkKind},
};
use crate::event::{StoredEvent, Timestamp};

impl Outbox {
    /// Reads the open events of each row, in no particular order within a row.
    ///
    /// # Errors
    /// As any query.
    pub async fn read_back(&self, rows: &[OutboxRow]) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        let mut events: Vec<Vec<StoredEvent>> = rows
            .iter()
            .map(|row| Vec::with_capacity(usize::try_from(row.events).unwrap_or_default().min(10_000)))
            .collect();
        if rows.iter().any(|row| row.open.is_none()) {
            self.read_whole_rows(rows, &mut events).await?;
        }
        if rows.iter().any(|row| row.open.is_some()) {
            self.read_listed_events(rows, &mut events).await?;
        }
        Ok(events)
    }

    async fn read_whole_rows(&self, rows: &[OutboxRow], events: &mut [Vec<StoredEvent>]) -> Result<(), StoreError> {
        let attempted = "read batches back";
        let mut of_batch: HashMap<i64, Vec<usize>> = HashMap::new();
        for (number, row) in rows.iter().enumerate().filter(|(_, row)| row.open.is_none()) {
            of_batch.entry(row.batch_id).or_default().push(number);
        }
        let batches: Vec<i64> = of_batch.keys().copied().collect();
        let (firsts, lasts): (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) = windows(rows).into_iter().unzip();
        let mut found = sqlx::query(include_str!("sql/read_batches.sql"))
            .bind(&firsts)
            .bind(&lasts)
            .bind(&batches)
            .fetch(&self.pool);
        let mut tenants = Tenants::default();
        while let Some(row) = found.try_next().await.map_err(StoreError::during(attempted))? {
            let event = stored_event(&row, &mut tenants).map_err(StoreError::during(attempted))?;
            let owner = of_batch.get(&event.batch_id).into_iter().flatten().find(|number| {
                rows.get(**number).is_some_and(|row| {
                    row.first <= event.timestamp
                        && event.timestamp <= row.last
                        && row.tenants.iter().any(|tenant| **tenant == *event.tenant)
                })
            });
            // Events of the same batch that another outbox row of it stands for lie in the window too.
            if let Some(of_row) = owner.and_then(|number| events.get_mut(*number)) {
                of_row.push(event);
            }
        }
        Ok(())
    }

    async fn read_listed_events(&self, rows: &[OutboxRow], events: &mut [Vec<StoredEvent>]) -> Result<(), StoreError> {
        let attempted = "read listed events back";
        let mut numbers: Vec<i32> = Vec::new();
        let mut ids: Vec<Uuid> = Vec::new();
        let mut times: Vec<DateTime<Utc>> = Vec::new();
        for (number, row) in (0_i32..).zip(rows) {
            for (id, time) in row.open.iter().flatten() {
                numbers.push(number);
                ids.push(*id);
                times.push((*time).into());
            }
        }
        let mut found = sqlx::query(include_str!("sql/read_listed_events.sql"))
            .bind(&numbers)
            .bind(&ids)
            .bind(&times)
            .fetch(&self.pool);
        let mut tenants = Tenants::default();
        while let Some(row) = found.try_next().await.map_err(StoreError::during(attempted))? {
            let event = stored_event(&row, &mut tenants).map_err(StoreError::during(attempted))?;
            let number: i32 = row.try_get("number").map_err(StoreError::during(attempted))?;
            let Ok(number) = usize::try_from(number) else { continue };
            // Another tenant's event may have the same id and time, and so may, for a fresh row, another batch's.
            let ours = rows.get(number).is_some_and(|row| {
                row.tenants.iter().any(|tenant| **tenant == *event.tenant)
                    && (row.kind != WorkKind::Fresh || row.batch_id == event.batch_id)
            });
            if let Some(of_row) = events.get_mut(number).filter(|_| ours) {
                of_row.push(event);
            }
        }
        Ok(())
    }
}

/// Windows of time that cover the whole rows, without overlaps: no event is read twice.
fn windows(rows: &[OutboxRow]) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let mut sorted: Vec<(Timestamp, Timestamp)> = rows
        .iter()
        .filter(|row| row.open.is_none())
        .map(|row| (row.first, row.last))
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(Timestamp, Timestamp)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(window) if first <= window.1 => window.1 = window.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
        .into_iter()
        .map(|(first, last)| (first.into(), last.into()))
        .collect()
}

/// Tenants seen so far: thousands of events share one allocation.
#[derive(Default)]
struct Tenants(Vec<Arc<str>>);

impl Tenants {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        self.0.push(Arc::clone(&new));
        new
    }
}

fn stored_event(row: &PgRow, tenants: &mut Tenants) -> Result<StoredEvent, sqlx::Error> {
    Ok(StoredEvent {
        id: row.try_get("id")?,
        timestamp: row.try_get::<DateTime<Utc>, _>("timestamp")?.into(),
        ingested_at: row.try_get::<DateTime<Utc>, _>("ingested_at")?.into(),
        batch_id: row.try_get("batch_id")?,
        tenant: tenants.shared(row.try_get("tenant")?),
        level: row.try_get("level")?,
        service: row.try_get("service")?,
        host: row.try_get("host")?,
        message: row.try_get("message")?,
        correlation_id: row.try_get("correlation_id")?,
        user_id: row.try_get("user_id")?,
        trace_id: row.try_get("trace_id")?,
        span_id: row.try_get("span_id")?,
        tags: row.try_get::<Option<Vec<String>>, _>("tags")?.unwrap_or_default(),
        fields: row.try_get("fields")?,
        error_details: row.try_get("error_details")?,
        performance_metrics: row.try_get("performance_metrics")?,
        ai_analysis: row.try_get("ai_analysis")?,
    })
}

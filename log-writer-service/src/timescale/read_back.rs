//! Reads the events of claimed outbox rows back from the hypertable.
//!
//! Rows that stand for a whole batch are read together by one binary COPY, by `batch_id` (docs/adr/0001) within windows of
//! time that keep other chunks out. COPY, because it costs both sides less CPU than a typed query. Rows that
//! list their events are read by the key. An event that retention took meanwhile is simply not among the answers; the
//! caller counts.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    copy::COLUMNS,
    copy_out::{CopyReader, Tenants},
    error::{StoreError, StoreErrorKind},
    limits::{ANSWER_TIMEOUT, on_pool, within},
    outbox::{Outbox, OutboxRow, WorkKind},
};
use crate::event::{StoredEvent, StoredTexts, TextColumns, Timestamp};

/// Windows closer than this are read as one.
const NEAR_MICROS: i64 = 6 * 3_600_000_000;
/// How much wider than the rows' times a window is; less than half of [`NEAR_MICROS`], so that windows stay apart.
///
/// PostgreSQL takes a window of a second, later than what it last analysed, for one row, and then reads all of that second by
/// its time. A window of hours does not look smaller than a few batches, even where a quiet day becomes a busy one.
const WIDER_MICROS: i64 = 3_600_000_000;

impl Outbox {
    /// Reads the open events of each row, in no particular order within a row.
    ///
    /// # Errors
    /// As any query.
    pub async fn read_back(&self, rows: &[OutboxRow]) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        let mut events: Vec<Vec<StoredEvent>> = vec![Vec::new(); rows.len()];
        let place = |row: usize, event| {
            if let Some(of_row) = events.get_mut(row) {
                of_row.push(event);
            }
        };
        self.read_each(rows, place).await?;
        Ok(events)
    }

    /// The same, event by event, each with the position of its row, those of all rows mixed.
    ///
    /// # Errors
    /// As any query; some may have been read.
    pub async fn read_each(
        &self,
        rows: &[OutboxRow],
        mut place: impl FnMut(usize, StoredEvent),
    ) -> Result<(), StoreError> {
        let whole = self.read_whole_rows(rows, &mut place);
        within(ANSWER_TIMEOUT, "read batches back", whole).await?;
        if rows.iter().any(|row| row.open.is_some()) {
            let attempted = "read listed events back";
            on_pool(&self.pool, ANSWER_TIMEOUT, attempted, async |connection| {
                read_listed_events(connection, rows, &mut place).await
            })
            .await?;
        }
        Ok(())
    }

    async fn read_whole_rows(
        &self,
        rows: &[OutboxRow],
        place: &mut impl FnMut(usize, StoredEvent),
    ) -> Result<(), StoreError> {
        let attempted = "read batches back";
        let mut of_batch: HashMap<i64, Vec<usize>> = HashMap::new();
        for (number, row) in rows.iter().enumerate().filter(|(_, row)| row.open.is_none()) {
            of_batch.entry(row.batch_id).or_default().push(number);
        }
        let Some(statement) = copy_statement(&windows(rows), &of_batch.keys().copied().collect()) else {
            return Ok(());
        };
        let mut place_in_row = |event: StoredEvent, _: Option<i64>| {
            let owner = of_batch.get(&event.batch_id).into_iter().flatten().find(|number| {
                rows.get(**number).is_some_and(|row| {
                    row.first <= event.timestamp
                        && event.timestamp <= row.last
                        && row.tenants.iter().any(|tenant| **tenant == *event.tenant)
                })
            });
            // Events of the same batch that another outbox row of it stands for lie in the window too.
            if let Some(row) = owner {
                place(*row, event);
            }
        };
        let mut connection = self.reader().await?;
        let mut reader = CopyReader::default();
        let mut copy = connection
            .copy_out_raw(&statement)
            .await
            .map_err(StoreError::during(attempted))?;
        while let Some(message) = copy.try_next().await.map_err(StoreError::during(attempted))? {
            reader.read(&message, &mut place_in_row).ok_or_else(|| {
                StoreError::own(
                    StoreErrorKind::Other,
                    attempted,
                    "the server sent something else than rows",
                )
            })?;
        }
        drop(copy);
        // Only one that has read its COPY to the end may be used again; any other is dropped and so closed.
        self.keep_reader(connection);
        Ok(())
    }
}

async fn read_listed_events(
    connection: &mut PgConnection,
    rows: &[OutboxRow],
    place: &mut impl FnMut(usize, StoredEvent),
) -> Result<(), StoreError> {
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
        .fetch(connection);
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
        if ours {
            place(number, event);
        }
    }
    Ok(())
}

/// Numbers and times only, so nothing in it can be anything but a literal; COPY takes no parameters. `None` without batches.
///
/// Batches are named twice: in a chunk that was never analysed PostgreSQL takes a list for a tenth of the table, and a range
/// for a two-hundredth.
fn copy_statement(windows: &[(Timestamp, Timestamp)], batches: &BTreeSet<i64>) -> Option<String> {
    let (least, most) = (batches.first()?, batches.last()?);
    let list = batches.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let selects: Vec<String> = windows
        .iter()
        .map(|(first, last)| {
            let first = Timestamp(first.0.saturating_sub(WIDER_MICROS)).to_rfc3339();
            let last = Timestamp(last.0.saturating_add(WIDER_MICROS)).to_rfc3339();
            format!(
                "select {COLUMNS} from public.application_logs where batch_id between {least} and {most} and \
                 batch_id = any('{{{list}}}'::bigint[]) and \
                 \"timestamp\" between '{first}'::timestamptz and '{last}'::timestamptz"
            )
        })
        .collect();
    Some(format!(
        "copy ({}) to stdout (format binary)",
        selects.join(" union all ")
    ))
}

/// Windows of time that cover the whole rows, without overlaps: no event is read twice.
///
/// They only keep chunks out, the rows are found by batch; so what lies near each other becomes one.
fn windows(rows: &[OutboxRow]) -> Vec<(Timestamp, Timestamp)> {
    let mut sorted: Vec<(Timestamp, Timestamp)> = rows
        .iter()
        .filter(|row| row.open.is_none())
        .map(|row| (row.first, row.last))
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(Timestamp, Timestamp)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(window) if first.0 <= window.1.0.saturating_add(NEAR_MICROS) => window.1 = window.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn stored_event(row: &PgRow, tenants: &mut Tenants) -> Result<StoredEvent, sqlx::Error> {
    let tags: Option<Vec<String>> = row.try_get("tags")?;
    Ok(StoredEvent {
        id: row.try_get("id")?,
        timestamp: row.try_get::<DateTime<Utc>, _>("timestamp")?.into(),
        ingested_at: row.try_get::<DateTime<Utc>, _>("ingested_at")?.into(),
        batch_id: row.try_get("batch_id")?,
        tenant: tenants.shared(row.try_get("tenant")?),
        texts: StoredTexts::from(TextColumns {
            level: row.try_get("level")?,
            service: row.try_get("service")?,
            host: row.try_get("host")?,
            message: row.try_get("message")?,
            correlation_id: row.try_get("correlation_id")?,
            user_id: row.try_get("user_id")?,
            trace_id: row.try_get("trace_id")?,
            span_id: row.try_get("span_id")?,
            fields: row.try_get("fields")?,
            error_details: row.try_get("error_details")?,
            performance_metrics: row.try_get("performance_metrics")?,
            ai_analysis: row.try_get("ai_analysis")?,
            tags: tags.iter().flatten().map(String::as_str).collect(),
        }),
    })
}

//! Tells the database of events whose minute may be counted already: on the Apache edition counts are not kept up to
//! date by themselves, see `log_writer.refresh_stats` in `migrations/`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{batch::Batch, error::StoreError};
use crate::event::Timestamp;

/// Events are counted ten minutes after their time; this much older than now they are noted, which leaves nine for a
/// commit and for clocks that differ.
const LATE_AFTER_MICROS: i64 = 60_000_000;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Notes the spans of a batch's late events, one for each hour, within the caller's transaction.
pub(super) async fn note_late_events(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let late = now.0.saturating_sub(LATE_AFTER_MICROS);
    if batch
        .requests()
        .all(|rows| rows.span().is_none_or(|(oldest, _)| oldest.0 >= late))
    {
        return Ok(());
    }
    let mut spans: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (_, place) in batch.places() {
        let Some(time) = place.rows.note(place.row).map(|note| note.timestamp.0) else {
            continue;
        };
        if time < late {
            let span = spans.entry(time.div_euclid(HOUR_MICROS)).or_insert((time, time));
            *span = (span.0.min(time), span.1.max(time));
        }
    }
    if spans.is_empty() {
        return Ok(());
    }
    let times = |of: fn(&(i64, i64)) -> i64| -> Vec<DateTime<Utc>> {
        spans
            .values()
            .filter_map(|span| DateTime::from_timestamp_micros(of(span)))
            .collect()
    };
    sqlx::query("select log_writer.note_late_events($1, $2)")
        .bind(times(|span| span.0))
        .bind(times(|span| span.1))
        .execute(connection)
        .await
        .map_err(StoreError::during("note late events for log_stats"))?;
    Ok(())
}

//! Digests of requests: how a resend is known before anything is copied.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::{error::StoreError, write::Part};
use crate::event::Timestamp;

/// What is known of a request by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// First seen in this transaction.
    New,
    /// Committed before, or a twin of an earlier request in this batch.
    Known {
        /// Where it was committed; 0 if that was purged meanwhile.
        batch_id: i64,
    },
}

/// The batch and what is known of each of its requests, in their order.
#[derive(Debug)]
pub(super) struct NotedBatch {
    pub(super) batch_id: i64,
    /// When the transaction began, by PostgreSQL's clock.
    pub(super) begun: Timestamp,
    pub(super) requests: Vec<Noted>,
}

impl NotedBatch {
    /// A number for a batch whose requests are new whatever their digests are; none is noted.
    pub(super) async fn of_new(connection: &mut PgConnection, requests: usize) -> Result<Self, StoreError> {
        let (batch_id, begun) =
            sqlx::query_as("select nextval('log_writer.batch_ids'), (extract(epoch from now()) * 1000000)::bigint")
                .fetch_one(connection)
                .await
                .map_err(StoreError::during("take a number for the batch"))?;
        Ok(Self {
            batch_id,
            begun: Timestamp(begun),
            requests: vec![Noted::New; requests],
        })
    }
}

/// Notes the digests and takes a number for the batch.
///
/// Sorted, so that two committers with the same digests wait instead of deadlocking; a twin in flight elsewhere is
/// waited for, up to `lock_timeout`: whether it was a resend is known only when that one has ended.
pub(super) async fn note_digests(connection: &mut PgConnection, parts: &[Part<'_>]) -> Result<NotedBatch, StoreError> {
    let attempted = "note the digests of the batch";
    let mut sorted: Vec<(&[u8], i32)> = parts
        .iter()
        .map(|part| {
            (
                part.digest.0.as_slice(),
                i32::try_from(part.received).unwrap_or(i32::MAX),
            )
        })
        .collect();
    sorted.sort_unstable();
    sorted.dedup_by_key(|(digest, _)| *digest);
    let (digests, received): (Vec<&[u8]>, Vec<i32>) = sorted.into_iter().unzip();
    let rows = sqlx::query(include_str!("sql/note_digests.sql"))
        .bind(&digests)
        .bind(&received)
        .fetch_all(&mut *connection)
        .await
        .map_err(StoreError::during(attempted))?;
    let (mut batch_id, mut begun) = (0, 0);
    // The batch of each digest; for a new one only its first request, its twins find it known.
    let mut new: Vec<Vec<u8>> = Vec::with_capacity(rows.len());
    for row in &rows {
        batch_id = row.try_get("batch_id").map_err(StoreError::during(attempted))?;
        begun = row.try_get("now_micros").map_err(StoreError::during(attempted))?;
        new.extend(
            row.try_get::<Option<Vec<u8>>, _>("digest")
                .map_err(StoreError::during(attempted))?,
        );
    }
    let known = if new.len() == digests.len() {
        HashMap::new()
    } else {
        known_digests(connection, &digests).await?
    };

    let mut unseen: HashMap<&[u8], bool> = new.iter().map(|digest| (digest.as_slice(), true)).collect();
    let requests = parts
        .iter()
        .map(|part| match unseen.get_mut(part.digest.0.as_slice()) {
            Some(first @ true) => {
                *first = false;
                Noted::New
            }
            Some(false) => Noted::Known { batch_id },
            None => Noted::Known {
                batch_id: known.get(part.digest.0.as_slice()).copied().unwrap_or_default(),
            },
        })
        .collect();
    Ok(NotedBatch {
        batch_id,
        begun: Timestamp(begun),
        requests,
    })
}

async fn known_digests(connection: &mut PgConnection, digests: &[&[u8]]) -> Result<HashMap<Vec<u8>, i64>, StoreError> {
    let rows: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("select digest, batch_id from log_writer.requests where digest = any($1)")
            .bind(digests)
            .fetch_all(connection)
            .await
            .map_err(StoreError::during("look up known digests"))?;
    Ok(rows.into_iter().collect())
}

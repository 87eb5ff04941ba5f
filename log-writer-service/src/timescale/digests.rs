//! Digests of requests: how a resend is known before anything is copied.

use std::collections::HashMap;

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{error::StoreError, write::Part};
use crate::event::{Digest, Timestamp};

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

/// Prepares [`statement`]'s statement; once on each connection.
pub(super) const PREPARE: &str = concat!(
    "prepare log_writer_note_digests(text[], integer[]) as ",
    include_str!("sql/note_digests.sql")
);

/// Notes the digests and takes a number for the batch; its row is for [`noted_batch`].
///
/// Sorted, so that two committers with the same digests wait instead of deadlocking; a twin in flight elsewhere is
/// waited for, up to `lock_timeout`: whether it was a resend is known only when that one has ended.
pub(super) fn statement(parts: &[Part<'_>]) -> String {
    let mut sorted: Vec<(Digest, u32)> = parts.iter().map(|part| (part.digest, part.received)).collect();
    sorted.sort_unstable_by_key(|(digest, _)| digest.0);
    sorted.dedup_by_key(|(digest, _)| digest.0);
    let (digests, received): (Vec<String>, Vec<String>) = sorted
        .iter()
        .map(|(digest, received)| {
            (
                digest.to_hex(),
                i32::try_from(*received).unwrap_or(i32::MAX).to_string(),
            )
        })
        .unzip();
    format!(
        "execute log_writer_note_digests('{{{}}}', '{{{}}}')",
        digests.join(","),
        received.join(",")
    )
}

/// What [`statement`] found out about each part.
pub(super) async fn noted_batch(
    connection: &mut PgConnection,
    parts: &[Part<'_>],
    rows: &[PgRow],
) -> Result<NotedBatch, StoreError> {
    let attempted = "note the digests of the batch";
    let failed = |error| StoreError::during(attempted)(error);
    let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
    let batch_id = row.try_get("batch_id").map_err(failed)?;
    let begun = row.try_get("now_micros").map_err(failed)?;
    let new_digests: Option<&str> = row.try_get("new_digests").map_err(failed)?;
    // Of each new digest only the first request; its twins find it known.
    let mut unseen: HashMap<&str, bool> = new_digests
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(|digest| (digest, true))
        .collect();
    let digests: Vec<String> = parts.iter().map(|part| part.digest.to_hex()).collect();
    let known = if digests.iter().all(|digest| unseen.contains_key(digest.as_str())) {
        HashMap::new()
    } else {
        known_digests(connection, parts).await?
    };
    let requests = parts
        .iter()
        .zip(&digests)
        .map(|(part, digest)| match unseen.get_mut(digest.as_str()) {
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

async fn known_digests(connection: &mut PgConnection, parts: &[Part<'_>]) -> Result<HashMap<Vec<u8>, i64>, StoreError> {
    let digests: Vec<&[u8]> = parts.iter().map(|part| part.digest.0.as_slice()).collect();
    let rows: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("select digest, batch_id from log_writer.requests where digest = any($1)")
            .bind(digests)
            .fetch_all(connection)
            .await
            .map_err(StoreError::during("look up known digests"))?;
    Ok(rows.into_iter().collect())
}

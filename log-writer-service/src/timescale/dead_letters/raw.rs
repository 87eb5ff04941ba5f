//! A letter whose event is not stored, read whole, to be tried again.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    event::{Digest, Timestamp},
    timescale::error::{StoreError, StoreErrorKind},
};

/// A letter of the stages `decode` and `store` as it is tried again.
#[derive(Debug, Clone)]
pub struct RawLetter {
    /// Its number.
    pub id: i64,
    /// How often it failed; another number means that somebody else tried it meanwhile.
    pub attempts: i32,
    /// Digest that was noted for its request: derived ids come from it.
    pub digest: Digest,
    /// Place in the request, from 0; `None`: the whole request.
    pub position: Option<u32>,
    /// Id and time of the event, if it had become one; `raw` is then its row as JSON.
    pub event: Option<(Uuid, Timestamp)>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Who sent it.
    pub address: Option<IpAddr>,
    /// Header of the request.
    pub content_type: Option<String>,
    /// Header of the request.
    pub content_encoding: Option<String>,
    /// Path of the request.
    pub path: String,
    /// When it came in.
    pub first_at: Timestamp,
    /// As received, whole.
    pub raw: Vec<u8>,
}

impl RawLetter {
    /// Reads a letter of the stages `decode` and `store` with all that was received; none if there is no such letter.
    ///
    /// # Errors
    /// As any query; [`StoreErrorKind::Other`] if the letter does not name its request.
    pub async fn read(pool: &PgPool, id: i64) -> Result<Option<Self>, StoreError> {
        let attempted = "read a dead letter";
        let row = sqlx::query(
            "select id, attempts, identity, position, event_id, event_time, tenant, host(source_address) as source_address,
               content_type, content_encoding, coalesce(path, '/') as path, first_at, raw
             from log_writer.dead_letters
             where id = $1 and stage in ('decode', 'store') and octet_length(raw) >= greatest(raw_bytes, 1)",
        )
        .bind(id)
        .fetch_optional(pool)
        .await
        .map_err(StoreError::during(attempted))?;
        let Some(row) = row else { return Ok(None) };
        let identity: Vec<u8> = row.try_get("identity").map_err(StoreError::during(attempted))?;
        let Some(digest) = identity.first_chunk::<32>() else {
            let reason = format!("the identity of letter {id} holds no digest");
            return Err(StoreError::own(StoreErrorKind::Other, attempted, reason));
        };
        raw_letter(&row, Digest(*digest))
            .map(Some)
            .map_err(StoreError::during(attempted))
    }
}

fn raw_letter(row: &PgRow, digest: Digest) -> Result<RawLetter, sqlx::Error> {
    let id: Option<Uuid> = row.try_get("event_id")?;
    let time: Option<DateTime<Utc>> = row.try_get("event_time")?;
    let position: Option<i32> = row.try_get("position")?;
    let address: Option<String> = row.try_get("source_address")?;
    Ok(RawLetter {
        id: row.try_get("id")?,
        attempts: row.try_get("attempts")?,
        digest,
        position: position.and_then(|position| u32::try_from(position).ok()),
        event: id.zip(time.map(Timestamp::from)),
        tenant: row.try_get("tenant")?,
        address: address.and_then(|address| address.parse().ok()),
        content_type: row.try_get("content_type")?,
        content_encoding: row.try_get("content_encoding")?,
        path: row.try_get("path")?,
        first_at: row.try_get::<DateTime<Utc>, _>("first_at")?.into(),
        raw: row.try_get("raw")?,
    })
}

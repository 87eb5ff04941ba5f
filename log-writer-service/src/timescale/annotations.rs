//! Annotated events on their way back to the outbox.
//!
//! | step | a crash after it means |
//! |---|---|
//! | 1 begin, take the oldest off the queue | nothing: uncommitted |
//! | 2 outbox rows of the kind `replace` | nothing: uncommitted |
//! | 3 books: from `indexed`, or from its dead letter, to what is outstanding | nothing: uncommitted |
//! | 4 COMMIT | in the outbox, once |

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::{
    audit::Actor,
    books::{self, Books},
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};
use crate::event::Timestamp;

/// Events of one round; also those of one outbox row, which is read back at one go.
const ROUND_EVENTS: i64 = 1_000;

/// Adds an analysis to an event (`annotate_log`): `id`, `timestamp`, `analysis` and `tenant` of the request; recorded.
///
/// # Errors
/// With SQLSTATE P0002 if there is no such event, of class 22 if the request cannot be read.
pub async fn annotate(pool: &PgPool, request: &Value, actor: &Actor) -> Result<Value, StoreError> {
    let attempted = "annotate an event";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query_scalar(include_str!("sql/annotate_log.sql"))
            .bind(request)
            .bind(actor.to_string())
            .bind(actor.address().map(|address| address.to_string()))
            .fetch_one(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await
}

/// Puts the oldest annotated events into the outbox; how many were taken off the queue.
///
/// `target_of` names the stream or index of a tenant's event of some time.
///
/// # Errors
/// As any query; nothing is then done, or, if COMMIT was under way, all of it may be.
pub async fn requeue_annotated(
    pool: &PgPool,
    worker: &str,
    target_of: impl Fn(&str, Timestamp) -> Arc<str>,
) -> Result<usize, StoreError> {
    let attempted = "put annotated events into the outbox";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        use sqlx::Connection;
        let mut transaction = connection.begin().await.map_err(StoreError::during(attempted))?;
        let taken: Vec<(Uuid, DateTime<Utc>, String)> = sqlx::query_as(include_str!("sql/take_annotations.sql"))
            .bind(ROUND_EVENTS)
            .fetch_all(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
        if taken.is_empty() {
            return Ok(0);
        }
        let events: Vec<Value> = taken
            .iter()
            .map(|(id, time, tenant)| {
                json!({"target": target_of(tenant, Timestamp::from(*time)), "tenant": tenant, "id": id, "time": time})
            })
            .collect();
        let row = sqlx::query(include_str!("sql/requeue_annotated.sql"))
            .bind(Value::from(events))
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreError::during(attempted))?;
        let number = |name: &str| row.try_get::<i64, _>(name).map_err(StoreError::during(attempted));
        let (requeued, letters) = (number("requeued")?, number("letters")?);
        let books = Books {
            indexed: letters - requeued,
            index_dead_lettered: -letters,
            requeued,
            ..Books::default()
        };
        books::add_to_books(&mut transaction, worker, &books).await?;
        transaction.commit().await.map_err(StoreError::during(attempted))?;
        Ok(taken.len())
    })
    .await
}

/// Forgets annotated events where nothing is mirrored.
///
/// # Errors
/// As any query.
pub async fn forget_annotated(pool: &PgPool) -> Result<(), StoreError> {
    let attempted = "forget annotated events";
    on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query("delete from log_writer.annotations")
            .execute(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(())
}

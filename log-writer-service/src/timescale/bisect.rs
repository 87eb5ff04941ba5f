//! Brings the rows of a batch into the table: one COPY if all goes well, and what to do where it does not.
//!
//! A duplicate key sends the same rows through [`super::staging`]; where the table has no key, rows go that way that may be
//! there already though no digest tells. A row that PostgreSQL refuses is sought out inside
//! savepoints until it stands alone: it becomes a dead letter, every other row keeps its place.

use std::ops::Range;

use sqlx::Executor;
use uuid::Uuid;

use super::{
    batch::{Batch, Into},
    copy::COLUMNS,
    error::{StoreError, StoreErrorKind},
    staging,
    write::Session,
};
use crate::{config::Profile, failpoint::failpoint};

/// From how many rows on a COPY goes straight into the columnstore, where the table is columnar. Fewer would make a batch of
/// columns that costs more than rows do, now and when it is read; the columnstore policy packs them together later.
const COLUMNAR_ROWS_MIN: usize = 100;

/// Where rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Requests: their digests tell whether they are stored already.
    Request,
    /// A dead letter or an archive: nothing but the rows themselves tells.
    Kept,
}

/// A row that did not simply go in.
#[derive(Debug)]
pub(super) struct Exception {
    /// Number in the batch.
    pub(super) row: usize,
    /// What became of it.
    pub(super) outcome: Outcome,
}

/// What became of a row that did not simply go in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The same event was there already.
    Duplicate,
    /// Its id belongs to another event: it went in under this one.
    Renamed(Uuid),
    /// PostgreSQL refuses it.
    Refused {
        /// Short kind in `snake_case`.
        reason: &'static str,
        /// SQLSTATE and message.
        detail: String,
    },
}

/// Sets the savepoint that [`store_rows`] stores within.
pub(super) const SAVEPOINT: &str = "savepoint rows";

/// Sends it alone.
pub(super) async fn set_savepoint(session: &mut Session) -> Result<(), StoreError> {
    execute(session, SAVEPOINT).await
}

/// Stores all rows of the batch; returns those that did not simply go in, in order. [`SAVEPOINT`] was sent before, and
/// is left to the end of the transaction.
pub(super) async fn store_rows(
    session: &mut Session,
    batch: &Batch<'_>,
    origin: Origin,
    bisect: bool,
) -> Result<Vec<Exception>, StoreError> {
    let len = batch.len();
    let way = Way::of(session.profile, origin, batch);
    let mut exceptions = Vec::new();
    let (mut next, mut step) = (0, len);
    // Whether rows were stored since the savepoint.
    let mut is_used = false;
    // Whether there were few at once.
    let mut were_few = false;
    while next < len {
        let range = next..len.min(next.saturating_add(step));
        if std::mem::take(&mut is_used) {
            execute(session, "release savepoint rows; savepoint rows").await?;
        }
        // Columns are the connection's own choice, so that many rows need no message more.
        let are_few = range.len() < COLUMNAR_ROWS_MIN;
        if way == Way::Keyless && (are_few || were_few) {
            let columns = if are_few { "off" } else { "on" };
            let choice = format!("set local timescaledb.enable_direct_compress_copy = {columns}");
            execute(session, &choice).await?;
            were_few = true;
        }
        match store_range(session, batch, way, range.clone()).await {
            Ok(more) => {
                is_used = true;
                exceptions.extend(more);
                next = range.end;
                step = step.saturating_mul(2);
            }
            Err(error) if bisect && error.kind() == StoreErrorKind::Data => {
                failpoint!("commit::in_bisection");
                if range.len() == 1 {
                    session.met.rows_refused += 1;
                    exceptions.push(Exception {
                        row: next,
                        outcome: refused(&error),
                    });
                    next = range.end;
                } else {
                    // All before the named row, then that row alone, then twice as many each time: many poisoned rows
                    // cost one small COPY each, never the rest of the batch again.
                    step = error.row().map_or(range.len() / 2, |row| row - next).max(1);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exceptions)
}

/// How rows go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By COPY; a key that is taken tells of duplicates.
    Keyed,
    /// By COPY; nothing would tell of duplicates, and there can be none but those of other requests.
    Keyless,
    /// Through staging, where duplicates are looked for.
    Searched,
}

impl Way {
    fn of(profile: Profile, origin: Origin, batch: &Batch<'_>) -> Self {
        match (profile, origin) {
            (Profile::Row, _) => Self::Keyed,
            (Profile::Columnar, Origin::Kept) => Self::Searched,
            // One batch has an event once in both stores: what delivery records of a batch names events by their key.
            (Profile::Columnar, Origin::Request) if batch.has_twins() => Self::Searched,
            (Profile::Columnar, Origin::Request) => Self::Keyless,
        }
    }
}

/// Stores some rows, all or none; the transaction lives on whatever PostgreSQL thinks of them, with the savepoint as it was
/// before if none were stored.
async fn store_range(
    session: &mut Session,
    batch: &Batch<'_>,
    way: Way,
    range: Range<usize>,
) -> Result<Vec<Exception>, StoreError> {
    let stored = if way == Way::Searched {
        staging::store_through_staging(session, batch, range).await
    } else {
        match copy_rows(session, batch, range.clone()).await {
            Ok(()) => Ok(Vec::new()),
            // Only the SQLSTATE is matched: constraint and table in the message are the chunk's.
            Err(error) if error.sqlstate() == Some("23505") => {
                take_rows_back(session).await?;
                staging::store_through_staging(session, batch, range).await
            }
            Err(error) => Err(error),
        }
    };
    if let Err(error) = &stored
        && error.kind().keeps_connection()
    {
        take_rows_back(session).await?;
    }
    stored
}

/// With the rows a staging table goes that was made after the savepoint.
async fn take_rows_back(session: &mut Session) -> Result<(), StoreError> {
    session.staging_made = false;
    execute(session, "rollback to savepoint rows").await
}

async fn copy_rows(session: &mut Session, batch: &Batch<'_>, range: Range<usize>) -> Result<(), StoreError> {
    let statement = format!("copy public.application_logs ({COLUMNS}) from stdin (format binary)");
    let (connection, scratch) = (&mut session.connection, &mut session.scratch);
    batch.copy_in(connection, scratch, Into::Table, &statement, range).await
}

async fn execute(session: &mut Session, sql: &str) -> Result<(), StoreError> {
    session
        .connection
        .execute(sql)
        .await
        .map_err(StoreError::during("set a savepoint"))?;
    Ok(())
}

fn refused(error: &StoreError) -> Outcome {
    let reason = match error.sqlstate().and_then(|sqlstate| sqlstate.get(..2)) {
        Some("22") => "invalid_value",
        Some("23") => "constraint",
        Some("54") => "too_large",
        _ => "refused",
    };
    Outcome::Refused {
        reason,
        detail: error.to_string(),
    }
}

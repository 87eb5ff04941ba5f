//! The way for rows of which some are there already: a temporary table, `on conflict do nothing`, and a look at what was
//! passed over. Where the table has no key, a look before takes the place of the conflict; two transactions at once can then
//! both find nothing.
//!
//! A row passed over is a duplicate only if the row under its key has the same level, service and message. Else two
//! events share an id: the second goes in under its derived id, flagged in `fields._log_writer.id_conflict`.

use std::ops::Range;

use futures::TryStreamExt;
use sqlx::{Executor, Row, postgres::PgRow};

use super::{
    batch::{Batch, Into},
    bisect::{Exception, Outcome},
    copy::COLUMNS,
    error::StoreError,
    write::Session,
};
use crate::{config::Profile, failpoint::failpoint};

/// Stores some rows of the batch; returns the duplicates and the renamed.
///
/// # Crash safety
/// All within the caller's transaction and savepoint.
pub(super) async fn store_through_staging(
    session: &mut Session,
    batch: &Batch<'_>,
    range: Range<usize>,
) -> Result<Vec<Exception>, StoreError> {
    let attempted = "store rows through staging";
    session.met.staged += 1;
    // Columns by name: `like application_logs` would need the right to read it.
    let prepare = if session.staging_made {
        "truncate log_writer_staging"
    } else {
        include_str!("sql/create_staging.sql")
    };
    session
        .connection
        .execute(prepare)
        .await
        .map_err(StoreError::during("prepare the staging table"))?;
    session.staging_made = true;
    let copy = format!("copy pg_temp.log_writer_staging ({COLUMNS}, ordinal, derived_id) from stdin (format binary)");
    batch
        .copy_in(
            &mut session.connection,
            &mut session.scratch,
            Into::Staging,
            &copy,
            range,
        )
        .await?;

    let (insert, insert_conflicting) = match session.profile {
        Profile::Row => (
            include_str!("sql/insert_staged_rows.sql"),
            include_str!("sql/insert_conflicting_rows.sql"),
        ),
        Profile::Columnar => (
            include_str!("sql/insert_staged_rows_without_key.sql"),
            include_str!("sql/insert_conflicting_rows_without_key.sql"),
        ),
    };
    for step in [
        insert,
        include_str!("sql/judge_passed_over_rows.sql"),
        insert_conflicting,
    ] {
        sqlx::query(step)
            .execute(&mut session.connection)
            .await
            .map_err(StoreError::during(attempted))?;
    }
    failpoint!("commit::in_staging");
    let exceptions = sqlx::query(
        "select ordinal, outcome, derived_id from log_writer_staging where outcome <> 'stored' order by ordinal",
    )
    .fetch(&mut session.connection)
    .and_then(|row| std::future::ready(exception(&row)));
    exceptions.try_collect().await.map_err(StoreError::during(attempted))
}

fn exception(row: &PgRow) -> Result<Exception, sqlx::Error> {
    let ordinal: i32 = row.try_get("ordinal")?;
    let outcome: &str = row.try_get("outcome")?;
    Ok(Exception {
        row: usize::try_from(ordinal).unwrap_or(usize::MAX),
        outcome: match outcome {
            "renamed" => Outcome::Renamed(row.try_get("derived_id")?),
            _ => Outcome::Duplicate,
        },
    })
}

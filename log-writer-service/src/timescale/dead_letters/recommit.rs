//! Redrive of the stages `decode` and `store`: what was received is committed as if it had been usable at once.
//!
//! | step | a crash after it means |
//! |---|---|
//! | 1 begin, lock the letter as it was read | nothing |
//! | 2 rows, outbox rows | nothing: uncommitted |
//! | 3 the letter: removed, replaced by those of its events that are refused again, or counted up | nothing: uncommitted |
//! | 4 books: from `dead_lettered` to where each event went; audit trail | nothing: uncommitted |
//! | 5 COMMIT | redriven; a second attempt does not find the letter as it was |
//!
//! Letter and rows change places in one transaction, so nothing of it needs a digest to be exact.

use sqlx::{PgConnection, Row};

use super::keep::{self, Letter, WHOLE_REQUEST, without_nul};
use crate::{
    event::Digest,
    failpoint::failpoint,
    timescale::{
        audit::{self, ActionId, ActionOutcome},
        batch::Batch,
        bisect::{self, Origin},
        books::{self, Books},
        digests::NotedBatch,
        error::StoreError,
        late_events::note_late_events,
        outbox_plan,
        write::{self, CommitMode, Context, Part, Receipt, Session},
    },
};

/// What became of a redriven letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recommitted {
    /// Its events are stored, were there already, or are letters of their own.
    Done(Receipt),
    /// All of it was refused again: the same letter, counted up.
    Refused,
    /// Somebody else redrove or purged it meanwhile; nothing was done.
    Gone,
}

struct Held {
    stage: String,
    identity: Vec<u8>,
    events: i64,
}

impl Held {
    fn is_whole_request(&self) -> bool {
        self.identity.ends_with(&WHOLE_REQUEST.to_be_bytes())
    }
}

/// Runs the transaction for the letter `id` as it was after so many attempts.
pub(in crate::timescale) async fn recommit(
    session: &mut Session,
    context: &Context<'_>,
    (id, attempts): (i64, i32),
    action: ActionId,
    mut part: Part<'_>,
    mode: &CommitMode,
) -> Result<Recommitted, StoreError> {
    // 1
    write::begin(&mut session.connection, mode).await?;
    let Some(held) = lock(&mut session.connection, id, attempts).await? else {
        write::commit(&mut session.connection, context.warnings).await?;
        return Ok(Recommitted::Gone);
    };
    let noted = NotedBatch::of_new(&mut session.connection, 1).await?;
    let batch_id = noted.batch_id;
    part.rows.set_batch(batch_id);
    if !held.is_whole_request() {
        // The request may have letters of the same numbers.
        part.digest = Digest(*blake3::hash(&held.identity).as_bytes());
    }
    let parts = [part];
    // 2
    let batch = Batch::of_new(&parts, &noted.requests);
    bisect::set_savepoint(session).await?;
    let exceptions = bisect::store_rows(session, &batch, Origin::Kept, mode.bisect).await?;
    let receipts = write::receipts(&parts, &noted, &batch, &exceptions);
    let receipt = receipts.first().copied().unwrap_or_default();
    let letters = write::letters(
        &parts,
        &noted.requests,
        &batch,
        &exceptions,
        context.dead_letter_bytes_max,
    );
    // 3
    if let [letter] = letters.as_slice()
        && receipt.committed == 0
        && receipt.duplicates == 0
        && letter.stage.as_str() == held.stage
    {
        count_up(&mut session.connection, id, letter).await?;
        audit::progress(&mut session.connection, action, 1, ActionOutcome::Running).await?;
        write::commit(&mut session.connection, context.warnings).await?;
        return Ok(Recommitted::Refused);
    }
    keep::keep(&mut session.connection, batch_id, &letters).await?;
    replace(&mut session.connection, id, &letters).await?;
    note_late_events(&mut session.connection, &batch, noted.begun).await?;
    let plan = outbox_plan::plan(&batch, &exceptions, context.row_limits);
    outbox_plan::enqueue(&mut session.connection, batch_id, &plan.rows, 0).await?;
    // 4
    let mut books: Books = write::sum(&receipts, &plan);
    books.received -= held.events;
    books.dead_lettered -= held.events;
    books::add_to_books(&mut session.connection, context.worker, &books).await?;
    audit::progress(&mut session.connection, action, 1, ActionOutcome::Running).await?;
    // 5
    failpoint!("recommit::before_commit");
    write::commit(&mut session.connection, context.warnings).await?;
    failpoint!("recommit::after_commit");
    Ok(Recommitted::Done(receipt))
}

async fn lock(connection: &mut PgConnection, id: i64, attempts: i32) -> Result<Option<Held>, StoreError> {
    let attempted = "lock a dead letter";
    let row = sqlx::query(
        "select stage, identity, events from log_writer.dead_letters
         where id = $1 and attempts = $2 and stage in ('decode', 'store') for update",
    )
    .bind(id)
    .bind(attempts)
    .fetch_optional(connection)
    .await
    .map_err(StoreError::during(attempted))?;
    row.map(|row| {
        Ok(Held {
            stage: row.try_get("stage")?,
            identity: row.try_get("identity")?,
            events: row.try_get("events")?,
        })
    })
    .transpose()
    .map_err(StoreError::during(attempted))
}

async fn count_up(connection: &mut PgConnection, id: i64, letter: &Letter<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "update log_writer.dead_letters set attempts = attempts + 1, last_at = now(), reason = $2, detail = $3 where id = $1",
    )
    .bind(id)
    .bind(without_nul(letter.reason))
    .bind(without_nul(letter.detail))
    .execute(connection)
    .await
    .map_err(StoreError::during("count a dead letter up"))?;
    Ok(())
}

/// Removes the letter; those of its events that were refused again go on with its attempts and its first time.
async fn replace(connection: &mut PgConnection, id: i64, letters: &[Letter<'_>]) -> Result<(), StoreError> {
    let stages: Vec<&str> = letters.iter().map(|letter| letter.stage.as_str()).collect();
    let identities: Vec<&[u8]> = letters.iter().map(|letter| letter.identity.as_slice()).collect();
    sqlx::query(include_str!("../sql/replace_letter.sql"))
        .bind(id)
        .bind(stages)
        .bind(identities)
        .execute(connection)
        .await
        .map_err(StoreError::during("remove a redriven dead letter"))?;
    Ok(())
}

//! Events of an archive go through the normal commit path again, as they were.
//!
//! | step | a crash after it means |
//! |---|---|
//! | 1 begin | nothing |
//! | 2 rows, outbox rows | nothing: uncommitted |
//! | 3 books, audit trail | nothing: uncommitted |
//! | 4 COMMIT | restored; a second attempt finds them stored |
//!
//! No digest is noted: the same events may be restored, dropped and restored again within hours, and their keys tell what is
//! stored already. They are not noted as late either: they were counted when they came in, and what stands in `log_stats_*`
//! stays as it is. Their outbox rows begin with one attempt, so that Elasticsearch is asked, in all its indices, before
//! anything is sent: where the old documents are still there, they are found.

use super::{
    audit::{self, ActionId, ActionOutcome},
    batch::Batch,
    bisect::{self, Origin},
    books, dead_letters,
    digests::NotedBatch,
    error::StoreError,
    outbox_plan,
    write::{self, CommitMode, Context, Part, Receipt, Session},
};
use crate::failpoint::failpoint;

/// Attempts that an outbox row begins with.
const ATTEMPTS: i32 = 1;

/// Runs the transaction.
pub(super) async fn restore(
    session: &mut Session,
    context: &Context<'_>,
    action: ActionId,
    parts: &mut [Part<'_>],
    mode: &CommitMode,
) -> Result<Receipt, StoreError> {
    // 1
    write::begin(&mut session.connection, mode).await?;
    let noted = NotedBatch::of_new(&mut session.connection, parts.len()).await?;
    let batch_id = noted.batch_id;
    for part in parts.iter_mut() {
        part.rows.set_batch(batch_id);
    }
    // 2
    let batch = Batch::of_new(parts, &noted.requests);
    bisect::set_savepoint(session).await?;
    let exceptions = bisect::store_rows(session, &batch, Origin::Kept, mode.bisect).await?;
    let receipts = write::receipts(parts, &noted, &batch, &exceptions);
    let receipt = receipts.first().copied().unwrap_or_default();
    let letters = write::letters(
        parts,
        &noted.requests,
        &batch,
        &exceptions,
        context.dead_letter_bytes_max,
    );
    dead_letters::keep(&mut session.connection, batch_id, &letters).await?;
    let plan = outbox_plan::plan(&batch, &exceptions, context.row_limits);
    outbox_plan::enqueue(&mut session.connection, batch_id, &plan.rows, ATTEMPTS).await?;
    // 3
    books::add_to_books(&mut session.connection, context.worker, &write::sum(&receipts, &plan)).await?;
    let stored = i64::from(receipt.committed);
    audit::progress(&mut session.connection, action, stored, ActionOutcome::Running).await?;
    // 4
    failpoint!("restore::before_commit");
    write::commit(&mut session.connection, context.warnings).await?;
    failpoint!("restore::after_commit");
    Ok(receipt)
}

//! A commit with an event of our own that is taken back: whether one could be committed now.
//!
//! Everything that a batch touches is touched: digests, the table with its triggers, outbox, books. So what every body
//! would meet is met here, and what is met by some bodies alone is not. COMMIT is tried with nothing but zeros for the
//! books: it may wait for a standby that is not there.

use std::{borrow::Cow, sync::Arc};

use sqlx::Executor;
use uuid::Uuid;

use super::{
    books::{self, Books},
    clock,
    copy::EncodedRows,
    error::StoreError,
    write::{self, CommitMode, Context, Part, Session, Source},
};
use crate::event::{Digest, Level, LogEvent};

/// Where the event of a rehearsal would go.
const NOWHERE: &str = "rehearsal";

/// Does all of a commit, and takes all of it back but what adds nothing to the books.
///
/// # Errors
/// What a commit would meet.
///
/// # Crash safety
/// Nothing of the event is ever committed; a number of the sequence is skipped.
pub(super) async fn rehearse(
    session: &mut Session,
    context: &Context<'_>,
    mode: &CommitMode,
) -> Result<(), StoreError> {
    let now = clock::ask(&mut session.connection).await?;
    let mut rows = EncodedRows::new();
    let event = LogEvent {
        own_id: None,
        claimed_time: Some(now),
        timestamp: now,
        tenant: Arc::from(NOWHERE),
        level: Level::Info,
        service: "log-writer".into(),
        host: None,
        message: NOWHERE.into(),
        correlation_id: None,
        user_id: None,
        trace_id: None,
        span_id: None,
        tags: Vec::new(),
        fields: Cow::default(),
        error_details: None,
        performance_metrics: None,
        ai_analysis: None,
    };
    rows.push(&event, now, Some(&Arc::from(NOWHERE)));
    rows.set_ids(0, Uuid::new_v4(), Uuid::new_v4());
    let source = Source {
        tenant: Arc::from(NOWHERE),
        address: None,
        content_type: None,
        content_encoding: None,
        path: String::new(),
    };
    let mut parts = [Part {
        digest: Digest(*blake3::hash(Uuid::new_v4().as_bytes()).as_bytes()),
        received: 1,
        rows: &mut rows,
        letters: &[],
        source: &source,
    }];
    let (_, books) = write::store_parts(session, context, &mut parts, mode).await?;
    let books = books::statement(context.worker, &books);
    session
        .connection
        .execute(format!("{books}; set constraints all immediate; rollback").as_str())
        .await
        .map_err(StoreError::during("rehearse a commit"))?;
    session.staging_made = false;
    write::begin(&mut session.connection, mode).await?;
    write::commit_books(session, context, &Books::default()).await
}

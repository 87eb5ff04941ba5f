//! One commit: the transaction that an acknowledgement stands for. All requests of a batch, or none.
//!
//! | step | a crash after it means |
//! |---|---|
//! | 1 begin, with our own limits of time; note the digests, take a batch id | nothing: uncommitted; a number of the sequence is skipped |
//! | 2 rows within a savepoint: one binary COPY; duplicates through staging, poison bisected | nothing: uncommitted, dead space that vacuum takes back |
//! | 3 dead letters, outbox rows | nothing: uncommitted |
//! | 4 books and COMMIT sent | either: the sender has no answer and sends the same again; the digest says which it was |
//! | 5 COMMIT answered | committed: rows, digests, dead letters, outbox and books are there together, or the sender's resend is known |
//!
//! So the caller may repeat [`super::Committer::commit`] with the same requests after any error. Nothing here decides
//! about retries, and nothing but the database is told of a commit.
//!
//! A lone request waits for every answer of PostgreSQL, so what belongs together goes in one message: 1, the COPY's
//! beginning, its end, 4. Hence statements by SQL's own `prepare`: sqlx sends but one of its own at a time.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use sqlx::{Executor, PgConnection};
use tracing::{Dispatch, instrument::WithSubscriber};

use super::{
    batch::Batch,
    bisect::{self, Exception, Origin, Outcome, SAVEPOINT},
    books::{self, Books},
    copy::EncodedRows,
    dead_letters::{self, DeadLetter, NewLetter, Stage},
    digests::{self, Noted},
    error::{StoreError, StoreErrorKind},
    late_events::note_late_events,
    outbox_plan::{self, RowLimits},
    warnings::Warnings,
};
use crate::{config::Profile, event::Digest, failpoint::failpoint};

/// What one request brings to be committed.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// Decides whether it was committed before.
    pub digest: Digest,
    /// Events that it brought: its rows and its dead letters.
    pub received: u32,
    /// Its usable events.
    pub rows: EncodedRows,
    /// Its unusable events.
    pub dead_letters: Vec<DeadLetter>,
    /// As received, for a dead letter of the whole request.
    pub body: Bytes,
    /// Where it came from.
    pub source: Arc<Source>,
}

impl WriteRequest {
    /// Makes it one dead letter of the stage `store` with the whole body as received: its events stand nowhere else. Its
    /// digest is noted with it, so a resend is known.
    pub fn become_letter(&mut self, reason: &str, detail: &str) {
        // Freed before the body is copied.
        self.rows = EncodedRows::new();
        self.dead_letters = vec![DeadLetter {
            stage: Stage::Store,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            raw: self.body.to_vec(),
            raw_bytes: u64::try_from(self.body.len()).unwrap_or(u64::MAX),
            position: None,
        }];
    }

    /// Rows that it makes PostgreSQL write: a dead letter costs what an event does.
    pub fn rows_to_write(&self) -> usize {
        self.rows.len() + self.dead_letters.len()
    }

    /// Bytes of those rows.
    pub fn bytes_to_write(&self) -> usize {
        let letters: usize = self.dead_letters.iter().map(|letter| letter.raw.len()).sum();
        self.rows.bytes() + letters
    }
}

/// Where a request came from: what its dead letters say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The credential's tenant, or the default one.
    pub tenant: Arc<str>,
    /// The sender's address.
    pub address: Option<IpAddr>,
    /// Header `Content-Type`.
    pub content_type: Option<String>,
    /// Header `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// Path of the request.
    pub path: String,
}

/// What a request is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The transaction that committed it, now or before; 0 for a request without events.
    pub batch_id: i64,
    /// Events of the request: the sum of the three below.
    pub received: u32,
    /// New rows.
    pub committed: u32,
    /// Events that were there already.
    pub duplicates: u32,
    /// Events kept as dead letters.
    pub dead_lettered: u32,
}

/// How a batch is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitMode {
    /// How long to wait for one lock.
    pub lock_timeout: Duration,
    /// How long the transaction may take; then its connection is thrown away.
    pub transaction_timeout: Duration,
    /// Whether rows that PostgreSQL refuses are sought out and kept as dead letters; else they fail the batch.
    pub bisect: bool,
}

/// What a committer met that no receipt tells, in times or requests or rows; for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Requests whose digest was known: a resend, or a twin of the same batch.
    pub digests_known: u64,
    /// COPYs that met a key that exists and went through the staging table.
    pub staged: u64,
    /// Rows that PostgreSQL refused, found by bisection.
    pub rows_refused: u64,
    /// Transactions whose COMMIT was sent and not answered.
    pub outcomes_unknown: u64,
}

/// One request inside the transaction.
pub(super) struct Part<'a> {
    pub(super) digest: Digest,
    pub(super) received: u32,
    pub(super) rows: &'a mut EncodedRows,
    pub(super) letters: &'a [DeadLetter],
    pub(super) source: &'a Source,
}

/// What a committer brings to each of its transactions.
pub(super) struct Context<'a> {
    pub(super) worker: &'a str,
    pub(super) row_limits: RowLimits,
    pub(super) dead_letter_bytes_max: usize,
    pub(super) warnings: &'a Warnings,
}

/// A connection and what is known of its temporary table.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    /// Of the database when it was connected.
    pub(super) profile: Profile,
    pub(super) staging_made: bool,
    pub(super) scratch: Vec<u8>,
    pub(super) met: Met,
}

/// Prepares what [`commit_parts`] executes by name; once on each connection.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), StoreError> {
    connection
        .execute(format!("{}; {}", digests::PREPARE, books::PREPARE).as_str())
        .await
        .map_err(StoreError::during("prepare the statements of a commit"))?;
    Ok(())
}

/// Runs the transaction; receipts in the order of the parts.
pub(super) async fn commit_parts(
    session: &mut Session,
    context: &Context<'_>,
    parts: &mut [Part<'_>],
    mode: &CommitMode,
) -> Result<Vec<Receipt>, StoreError> {
    let (receipts, books) = store_parts(session, context, parts, mode).await?;
    // 4
    failpoint!("commit::before_commit");
    commit_books(session, context, &books).await?;
    failpoint!("commit::before_answer");
    Ok(receipts)
}

/// Adds to the books, and commits the transaction.
pub(super) async fn commit_books(
    session: &mut Session,
    context: &Context<'_>,
    books: &Books,
) -> Result<(), StoreError> {
    let books = books::statement(context.worker, books);
    // Counted before and taken back after an answer: whoever drops this future in between leaves it counted.
    session.met.outcomes_unknown += 1;
    let committed = commit_after(&books, &mut session.connection, context.warnings).await;
    if committed.as_ref().err().is_none_or(|error| error.sqlstate().is_some()) {
        session.met.outcomes_unknown -= 1;
    }
    committed
}

/// The steps before COMMIT, and what is to be added to the books.
pub(super) async fn store_parts(
    session: &mut Session,
    context: &Context<'_>,
    parts: &mut [Part<'_>],
    mode: &CommitMode,
) -> Result<(Vec<Receipt>, Books), StoreError> {
    // 1
    failpoint!("commit::before_begin");
    let first = format!("{}; {}; {SAVEPOINT}", begin_statements(mode), digests::statement(parts));
    let rows = session
        .connection
        .fetch_all(first.as_str())
        .await
        .map_err(StoreError::during(
            "begin the transaction and note the digests of the batch",
        ))?;
    let noted = digests::noted_batch(&mut session.connection, parts, &rows).await?;
    let known = noted.requests.iter().filter(|of_part| **of_part != Noted::New).count();
    session.met.digests_known += u64::try_from(known).unwrap_or(u64::MAX);
    for (part, of_part) in parts.iter_mut().zip(&noted.requests) {
        if *of_part == Noted::New {
            part.rows.set_batch(noted.batch_id);
        }
    }
    failpoint!("commit::after_digests");
    // 2
    let batch = Batch::of_new(parts, &noted.requests);
    let exceptions = bisect::store_rows(session, &batch, Origin::Request, mode.bisect)
        .await
        .map_err(|error| {
            let row = error.row().and_then(|row| batch.number_among_all(parts, row));
            error.at_row(row)
        })?;
    // 3
    let receipts = receipts(parts, &noted, &batch, &exceptions);
    let letters = letters(
        parts,
        &noted.requests,
        &batch,
        &exceptions,
        context.dead_letter_bytes_max,
    );
    dead_letters::keep(&mut session.connection, noted.batch_id, &letters).await?;
    note_late_events(&mut session.connection, &batch, noted.begun).await?;
    let plan = outbox_plan::plan(&batch, &exceptions, context.row_limits);
    outbox_plan::enqueue(&mut session.connection, noted.batch_id, &plan.rows, 0).await?;
    let books = sum(&receipts, &plan);
    Ok((receipts, books))
}

/// Begins a transaction for other steps than those of a commit.
pub(super) async fn begin(connection: &mut PgConnection, mode: &CommitMode) -> Result<(), StoreError> {
    connection
        .execute(begin_statements(mode).as_str())
        .await
        .map_err(StoreError::during("begin the transaction"))?;
    Ok(())
}

/// Begins with what the server's or role's own settings could have otherwise. Not `read write`: who makes a server
/// read-only by its settings, to save a disk that is full, means us too.
fn begin_statements(mode: &CommitMode) -> String {
    let transaction_ms = mode.transaction_timeout.as_millis().max(1);
    // Late rows may meet compressed ones, and TimescaleDB by default refuses to open many (53400). Where it lacks the
    // setting, PostgreSQL takes the name for a custom one.
    let late = if mode.bisect {
        "; set local timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
    } else {
        ""
    };
    format!(
        "begin isolation level read committed; set local lock_timeout = {}; set local statement_timeout = \
         {transaction_ms}; set local idle_in_transaction_session_timeout = {transaction_ms}{late}",
        mode.lock_timeout.as_millis().max(1),
    )
}

/// Commits; a COMMIT that PostgreSQL answers with a warning or turns into a rollback is a failure.
pub(super) async fn commit(connection: &mut PgConnection, warnings: &Warnings) -> Result<(), StoreError> {
    commit_after("select", connection, warnings).await
}

/// Commits with a last statement, which may be empty but must be there: in a transaction that has failed, COMMIT alone
/// would roll back and say so in its tag only, which sqlx hides; any statement before it fails there.
async fn commit_after(last: &str, connection: &mut PgConnection, warnings: &Warnings) -> Result<(), StoreError> {
    let attempted = "commit the batch";
    warnings.forget();
    let dispatch: Dispatch = warnings.dispatch();
    connection
        .execute(format!("{last}; commit").as_str())
        .with_subscriber(dispatch)
        .await
        .map_err(StoreError::during(attempted))?;
    match warnings.take() {
        // Such as a cancelled wait for a synchronous standby: committed here, perhaps nowhere else.
        Some(warning) => Err(StoreError::own(
            StoreErrorKind::Unavailable,
            attempted,
            format!("it was answered with: {warning}"),
        )),
        None => Ok(()),
    }
}

pub(super) fn receipts(
    parts: &[Part<'_>],
    noted: &digests::NotedBatch,
    batch: &Batch<'_>,
    exceptions: &[Exception],
) -> Vec<Receipt> {
    let mut receipts: Vec<Receipt> = parts
        .iter()
        .zip(&noted.requests)
        .map(|(part, of_part)| match *of_part {
            Noted::New => Receipt {
                batch_id: noted.batch_id,
                received: part.received,
                committed: u32::try_from(part.rows.len()).unwrap_or(u32::MAX),
                ..Receipt::default()
            },
            Noted::Known { batch_id } => Receipt {
                batch_id,
                received: part.received,
                duplicates: part.received,
                ..Receipt::default()
            },
        })
        .collect();
    for exception in exceptions {
        let Some(receipt) = batch
            .locate(exception.row)
            .and_then(|place| receipts.get_mut(place.part))
        else {
            continue;
        };
        match exception.outcome {
            Outcome::Duplicate => {
                receipt.committed = receipt.committed.saturating_sub(1);
                receipt.duplicates = receipt.duplicates.saturating_add(1);
            }
            Outcome::Refused { .. } => receipt.committed = receipt.committed.saturating_sub(1),
            Outcome::Renamed(_) => {}
        }
    }
    for receipt in &mut receipts {
        // What is neither a row nor a duplicate is a dead letter: so the receipt adds up, whatever one letter stands for.
        receipt.received = receipt
            .received
            .max(receipt.committed.saturating_add(receipt.duplicates));
        receipt.dead_lettered = receipt.received - receipt.committed - receipt.duplicates;
    }
    receipts
}

pub(super) fn letters<'a>(
    parts: &'a [Part<'_>],
    noted: &[Noted],
    batch: &Batch<'_>,
    exceptions: &'a [Exception],
    bytes_max: usize,
) -> Vec<NewLetter<'a>> {
    let mut letters = Vec::new();
    for (part, _) in parts.iter().zip(noted).filter(|(_, of_part)| **of_part == Noted::New) {
        letters.extend(
            (0_u32..)
                .zip(part.letters)
                .map(|(number, letter)| NewLetter::decoded(part, letter, number)),
        );
    }
    for exception in exceptions {
        if let Outcome::Refused { reason, detail } = &exception.outcome
            && let Some(place) = batch.locate(exception.row)
            && let Some(part) = parts.get(place.part)
        {
            letters.push(NewLetter::refused_row(part, &place, reason, detail, bytes_max));
        }
    }
    letters
}

pub(super) fn sum(receipts: &[Receipt], plan: &outbox_plan::Plan) -> Books {
    let mut books = Books {
        unmirrored: plan.unmirrored,
        ..Books::default()
    };
    for receipt in receipts {
        books.received += i64::from(receipt.received);
        books.committed += i64::from(receipt.committed);
        books.duplicates += i64::from(receipt.duplicates);
        books.dead_lettered += i64::from(receipt.dead_lettered);
    }
    books.mirrored = plan.rows.iter().map(|row| row.events).sum();
    books
}

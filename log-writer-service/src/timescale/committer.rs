//! A committer: one connection of its own that commits one batch after another.
//!
//! The connection leaves the committer for the length of a transaction and comes back only if it is known to be clean.
//! So whatever ends a commit early (an error, our time limit, the caller dropping the future) ends its connection, and
//! with it the transaction; the next commit opens another.

use std::{fmt, time::Duration};

use sqlx::{Executor, PgConnection, postgres::PgConnectOptions};

use super::{
    audit::ActionId,
    chunks::Chunks,
    dead_letters::{Recommitted, recommit},
    error::StoreError,
    limits::within,
    outbox_plan::RowLimits,
    pool::{self, COMMITTER_NAME},
    profile,
    rehearsal::rehearse,
    restore::restore,
    warnings::Warnings,
    write::{self, CommitMode, Context, Met, Part, Receipt, Session, WriteRequest, commit_parts},
};
use crate::config::Database;

/// How long a rollback may take before its connection is thrown away instead.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of a session that was left behind is waited for, in milliseconds.
const END_MS: i64 = 1_000;

/// Commits batches over a connection of its own.
pub struct Committer {
    options: PgConnectOptions,
    application_name: String,
    connect_timeout: Duration,
    worker: String,
    row_limits: RowLimits,
    dead_letter_bytes_max: usize,
    alone: CommitMode,
    warnings: Warnings,
    chunks: Chunks,
    session: Option<Session>,
    met: Met,
}

impl Committer {
    /// Opens the connection; `name` tells this committer from all others, of other replicas too.
    ///
    /// # Errors
    /// [`super::StoreErrorKind::Unavailable`] if the server cannot be reached within `connect_timeout`.
    pub async fn connect(settings: &Database, name: &str) -> Result<Self, StoreError> {
        let application_name = format!("{COMMITTER_NAME} {name}");
        let mut committer = Self {
            options: pool::connect_options(settings, &application_name)?,
            application_name,
            connect_timeout: settings.connect_timeout,
            worker: format!("committer {name}"),
            row_limits: RowLimits {
                chunk_micros: i64::try_from(settings.chunk_interval.as_micros()).unwrap_or(i64::MAX),
                events_max: settings.batch_rows_max,
                bytes_max: settings.batch_bytes_max,
            },
            dead_letter_bytes_max: settings.dead_letter_bytes_max,
            alone: CommitMode {
                lock_timeout: settings.lock_timeout,
                transaction_timeout: settings.transaction_timeout,
                bisect: false,
            },
            warnings: Warnings::new(),
            chunks: Chunks::default(),
            session: None,
            met: Met::default(),
        };
        committer.session = Some(committer.open_session().await?);
        Ok(committer)
    }

    /// Commits all requests in one transaction, or none; receipts in their order.
    ///
    /// A request whose digest is known gets a receipt with nothing committed and all events as duplicates; one without
    /// events is not noted and gets zeros.
    ///
    /// # Errors
    /// Nothing of the batch is committed, but for [`super::StoreErrorKind::Unavailable`] while COMMIT was under way and
    /// [`super::StoreErrorKind::Unanswered`]: then it may be. The same requests may be committed again after any error.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the outcome is then unknown in the same way.
    pub async fn commit(
        &mut self,
        requests: &mut [&mut WriteRequest],
        mode: &CommitMode,
    ) -> Result<Vec<Receipt>, StoreError> {
        let filled: Vec<bool> = requests.iter().map(|request| request.received > 0).collect();
        let mut parts: Vec<Part<'_>> = requests
            .iter_mut()
            .filter(|request| request.received > 0)
            .map(|request| {
                let request: &mut WriteRequest = request;
                Part {
                    digest: request.digest,
                    received: request.received,
                    rows: &mut request.rows,
                    letters: &request.dead_letters,
                    source: &request.source,
                }
            })
            .collect();
        let receipts = if parts.is_empty() {
            Vec::new()
        } else {
            self.transact(&mut parts, mode).await?
        };
        let mut receipts = receipts.into_iter();
        Ok(filled
            .into_iter()
            .map(|filled| if filled { receipts.next() } else { None }.unwrap_or_default())
            .collect())
    }

    /// Commits what a dead letter kept, in place of that letter: in the order of `letter`, its number and its attempts.
    /// Counts it to the action that it is a part of.
    ///
    /// # Errors
    /// As [`Self::commit`]; after an unknown outcome the letter is there as it was, or not.
    ///
    /// # Cancel safety
    /// As [`Self::commit`].
    pub async fn recommit(
        &mut self,
        letter: (i64, i32),
        action: ActionId,
        request: &mut WriteRequest,
        mode: &CommitMode,
    ) -> Result<Recommitted, StoreError> {
        let part = Part {
            digest: request.digest,
            received: request.received,
            rows: &mut request.rows,
            letters: &request.dead_letters,
            source: &request.source,
        };
        let mut session = self.taken_session().await?;
        let context = self.context();
        let transaction = Box::pin(recommit(&mut session, &context, letter, action, part, mode));
        let outcome = within(mode.transaction_timeout, "commit the batch", transaction).await;
        self.ended(session, outcome).await
    }

    /// Commits events of an archive; counts those that were not stored to the action.
    ///
    /// # Errors
    /// As [`Self::commit`]; the same may be restored again after any error.
    ///
    /// # Cancel safety
    /// As [`Self::commit`].
    pub async fn restore(
        &mut self,
        action: ActionId,
        request: &mut WriteRequest,
        mode: &CommitMode,
    ) -> Result<Receipt, StoreError> {
        let mut parts = [Part {
            digest: request.digest,
            received: request.received,
            rows: &mut request.rows,
            letters: &request.dead_letters,
            source: &request.source,
        }];
        let mut session = self.taken_session().await?;
        let mut chunks = std::mem::take(&mut self.chunks);
        let context = self.context();
        let transaction = Box::pin(async {
            chunks.make_for(&mut session.connection, &parts, mode).await?;
            restore(&mut session, &context, action, &mut parts, mode).await
        });
        let outcome = within(mode.transaction_timeout, "restore events", transaction).await;
        self.chunks = chunks;
        self.ended(session, outcome).await
    }

    /// What the transactions since the last call met, committed or not.
    pub fn take_met(&mut self) -> Met {
        std::mem::take(&mut self.met)
    }

    /// Does what a commit does, with an event of our own, and takes it back; then commits what says nothing.
    ///
    /// # Errors
    /// What a commit would meet.
    pub async fn rehearse(&mut self) -> Result<(), StoreError> {
        let mut session = self.taken_session().await?;
        let context = self.context();
        let rehearsal = Box::pin(rehearse(&mut session, &context, &self.alone));
        let outcome = within(self.alone.transaction_timeout, "rehearse a commit", rehearsal).await;
        self.ended(session, outcome).await
    }

    async fn transact(&mut self, parts: &mut [Part<'_>], mode: &CommitMode) -> Result<Vec<Receipt>, StoreError> {
        let mut session = self.taken_session().await?;
        let mut chunks = std::mem::take(&mut self.chunks);
        let context = self.context();
        let transaction = Box::pin(async {
            chunks.make_for(&mut session.connection, parts, mode).await?;
            commit_parts(&mut session, &context, parts, mode).await
        });
        let outcome = within(mode.transaction_timeout, "commit the batch", transaction).await;
        self.chunks = chunks;
        self.ended(session, outcome).await
    }

    fn context(&self) -> Context<'_> {
        Context {
            worker: &self.worker,
            row_limits: self.row_limits,
            dead_letter_bytes_max: self.dead_letter_bytes_max,
            warnings: &self.warnings,
        }
    }

    /// Keeps the connection if it is known to be clean after a transaction that ended like this.
    async fn ended<T>(&mut self, mut session: Session, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let met = std::mem::take(&mut session.met);
        let outcome = outcome.map_err(|error| match met.outcomes_unknown {
            0 => error,
            _ => error.after_commit(),
        });
        self.met.digests_known += met.digests_known;
        self.met.staged += met.staged;
        self.met.rows_refused += met.rows_refused;
        self.met.outcomes_unknown += met.outcomes_unknown;
        let clean = match &outcome {
            Ok(_) => true,
            Err(error) => error.kind().keeps_connection() && roll_back(&mut session).await,
        };
        if clean {
            self.session = Some(session);
        }
        outcome
    }

    async fn taken_session(&mut self) -> Result<Session, StoreError> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => self.open_session().await,
        }
    }

    async fn open_session(&self) -> Result<Session, StoreError> {
        let mut connection = pool::connect(&self.options, self.connect_timeout).await?;
        let preparing = async {
            end_left_behind(&mut connection, &self.application_name).await?;
            write::prepare(&mut connection).await?;
            profile::prepare(&mut connection).await
        };
        let profile = within(self.connect_timeout, "prepare a committer's connection", preparing)
            .await
            .map_err(StoreError::into_unavailable)?;
        Ok(Session {
            connection,
            profile,
            staging_made: false,
            scratch: Vec::new(),
            met: Met::default(),
        })
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// Ends what an earlier connection of this committer left on the server: a COMMIT that waits for a standby does not notice
/// that nobody waits for it any more, and would stay, with its locks, one more after each attempt.
///
/// A name over 63 bytes is cut in `pg_stat_activity` and finds nothing here: housekeeping ends those.
async fn end_left_behind(connection: &mut PgConnection, application_name: &str) -> Result<(), StoreError> {
    sqlx::query(
        "select pg_terminate_backend(pid, $2) from pg_stat_activity
         where datname = current_database() and usename = current_user and application_name = $1
           and pid <> pg_backend_pid()",
    )
    .bind(application_name)
    .bind(END_MS)
    .execute(connection)
    .await
    .map_err(StoreError::during("end the sessions that a committer left behind"))?;
    Ok(())
}

/// Whether the connection is clean again.
async fn roll_back(session: &mut Session) -> bool {
    // A temporary table made in this transaction goes with it.
    session.staging_made = false;
    let attempted = "roll back";
    let rollback = async {
        session
            .connection
            .execute("rollback")
            .await
            .map_err(StoreError::during(attempted))
    };
    within(ROLLBACK_TIMEOUT, attempted, rollback).await.is_ok()
}

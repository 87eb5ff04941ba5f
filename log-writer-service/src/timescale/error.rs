//! What can go wrong with the store, in kinds that decide what happens next.
//!
//! One table from SQLSTATE to [`StoreErrorKind`]; PostgreSQL's codes: Appendix A of its documentation (17).
//! What follows from a kind (status, retry, dead letter) is decided by whoever calls.

use std::borrow::Cow;

use sqlx::{migrate::MigrateError, postgres::PgDatabaseError};

/// What is added where a COMMIT is not answered: most often PostgreSQL waits for another server.
const UNANSWERED_COMMIT: &str = ": COMMIT was sent and is not answered. If synchronous_standby_names is set, look in \
     pg_stat_replication for the standby that PostgreSQL waits for, bring it back or take it out of the setting: \
     docs/OPERATIONS.md, \"A synchronous standby that is gone\"";
/// How much of what PostgreSQL said is kept: it may quote a value of any size.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Why a statement failed, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No connection, shutting down, read-only or out of room: the connection is thrown away, the same again later.
    Unavailable,
    /// Two transactions got in each other's way: the same again at once.
    Conflict,
    /// A lock was not free within `lock_timeout`.
    LockTimeout,
    /// Took longer than our own limit: the connection is thrown away.
    Timeout,
    /// COMMIT was sent and not answered within our own limit: it may be committed, and the server commits nothing now. The
    /// connection is thrown away.
    Unanswered,
    /// The rows' fault: the same rows fail again.
    Data,
    /// Rights, schema or settings: never the rows' fault, and no retry helps until someone repairs it.
    Setup,
    /// Anything else, our own mistakes included.
    Other,
}

impl StoreErrorKind {
    /// A stable name in `snake_case`, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::LockTimeout => "lock_timeout",
            Self::Timeout => "timeout",
            Self::Unanswered => "unanswered",
            Self::Data => "data",
            Self::Setup => "setup",
            Self::Other => "other",
        }
    }

    /// Whether the connection it happened on may be used again after a rollback.
    pub(super) fn keeps_connection(self) -> bool {
        match self {
            Self::Conflict | Self::LockTimeout | Self::Data | Self::Setup => true,
            Self::Unavailable | Self::Timeout | Self::Unanswered | Self::Other => false,
        }
    }
}

/// A failed attempt on the store.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .0.attempted, .0.reason)]
pub struct StoreError(Box<Failure>);

/// Boxed, so that results stay small.
#[derive(Debug)]
struct Failure {
    attempted: Cow<'static, str>,
    reason: String,
    kind: StoreErrorKind,
    sqlstate: Option<String>,
    row: Option<usize>,
}

impl StoreError {
    /// What decides the next step.
    pub fn kind(&self) -> StoreErrorKind {
        self.0.kind
    }

    /// PostgreSQL's five characters, if it was PostgreSQL that refused.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Which row of the batch was at fault, from 0 over all requests in order, those known already included; told for
    /// most [`StoreErrorKind::Data`].
    pub fn row(&self) -> Option<usize> {
        self.0.row
    }

    /// A commit that panicked: a defect, to be met like any other failure of its requests.
    pub fn panicked() -> Self {
        Self::own(StoreErrorKind::Other, "commit the batch", "it panicked")
    }

    /// An error of our own, without one of PostgreSQL below it.
    pub(super) fn own(
        kind: StoreErrorKind,
        attempted: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        Self(Box::new(Failure {
            attempted: attempted.into(),
            reason: reason.into(),
            kind,
            sqlstate: None,
            row: None,
        }))
    }

    /// Makes a function for `map_err` that says what was attempted.
    pub(super) fn during(attempted: impl Into<Cow<'static, str>>) -> impl FnOnce(sqlx::Error) -> Self {
        move |error| Self::from_sqlx(attempted.into(), error)
    }

    /// The same for migrations.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it may grow; all of it says what is wrong with the set-up"
    )]
    pub(super) fn from_migration(error: MigrateError) -> Self {
        let attempted = "migrate the database";
        let reason = match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                return Self::from_sqlx(attempted.into(), error);
            }
            MigrateError::VersionMismatch(version) => {
                format!("migration {version} was applied with another text than this version has")
            }
            other => other.to_string(),
        };
        Self::own(StoreErrorKind::Setup, attempted, reason)
    }

    /// The same error of a server that gave no sign of life: a limit that was met means there is no connection.
    pub(super) fn into_unavailable(mut self) -> Self {
        if self.0.kind == StoreErrorKind::Timeout {
            self.0.kind = StoreErrorKind::Unavailable;
        }
        self
    }

    /// The same error of a transaction whose COMMIT had been sent: a limit that was met means that it is not answered.
    pub(super) fn after_commit(mut self) -> Self {
        if self.0.kind == StoreErrorKind::Timeout {
            self.0.kind = StoreErrorKind::Unanswered;
            self.0.reason.push_str(UNANSWERED_COMMIT);
        }
        self
    }

    /// The same error, with the row counted otherwise.
    pub(super) fn at_row(mut self, row: Option<usize>) -> Self {
        self.0.row = row;
        self
    }

    fn from_sqlx(attempted: Cow<'static, str>, error: sqlx::Error) -> Self {
        let Some(refusal) = refusal(&error) else {
            let kind = kind_without_sqlstate(&error);
            return Self::own(kind, attempted, error.to_string());
        };
        let sqlstate = refusal.code().to_owned();
        let mut reason = format!("{} ({sqlstate})", beginning(refusal.message()));
        // Details of data errors quote the sender's values, which have no place in our log.
        let kind = kind_of_sqlstate(&sqlstate);
        if kind == StoreErrorKind::Setup {
            for more in [refusal.detail(), refusal.hint()].into_iter().flatten() {
                reason.push_str("; ");
                reason.push_str(beginning(more));
            }
        }
        let row = refusal
            .r#where()
            .and_then(copy_line)
            .and_then(|line| line.checked_sub(1));
        Self(Box::new(Failure {
            attempted,
            reason,
            kind,
            sqlstate: Some(sqlstate),
            row,
        }))
    }
}

fn beginning(message: &str) -> &str {
    message
        .get(..message.floor_char_boundary(MESSAGE_BYTES_MAX))
        .unwrap_or_default()
}

fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
}

fn kind_without_sqlstate(error: &sqlx::Error) -> StoreErrorKind {
    use sqlx::Error::{Configuration, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    if matches!(
        error,
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | PoolClosed | WorkerCrashed
    ) {
        StoreErrorKind::Unavailable
    } else if matches!(error, Configuration(_)) {
        StoreErrorKind::Setup
    } else {
        StoreErrorKind::Other
    }
}

/// The one table of SQLSTATEs.
pub(super) fn kind_of_sqlstate(sqlstate: &str) -> StoreErrorKind {
    match sqlstate {
        // Our statement_timeout, idle_in_transaction_session_timeout, transaction_timeout.
        "57014" | "25P03" | "25P04" => StoreErrorKind::Timeout,
        "55P03" => StoreErrorKind::LockTimeout,
        // A standby, or a primary that was made one: what a failover looks like from here.
        "25006" => StoreErrorKind::Unavailable,
        // 23505 outside `on conflict` is a race (two making one chunk, say), never one row's fault.
        "23505" | "55006" => StoreErrorKind::Conflict,
        // A limit that one statement ran into, such as TimescaleDB's on decompression for late rows: there is room for others.
        "53400" => StoreErrorKind::Other,
        // The outcome is unknown; digests make the repetition exact.
        "40003" => StoreErrorKind::Unavailable,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "58" => StoreErrorKind::Unavailable,
            "40" => StoreErrorKind::Conflict,
            "22" | "23" | "54" => StoreErrorKind::Data,
            "0A" | "28" | "3D" | "3F" | "42" => StoreErrorKind::Setup,
            _ => StoreErrorKind::Other,
        },
    }
}

/// Reads `COPY application_logs, line 12, column fields: …` out of an error's context; lines count from 1.
fn copy_line(context: &str) -> Option<usize> {
    context
        .lines()
        .filter(|line| line.starts_with("COPY "))
        .find_map(|line| {
            let (_, rest) = line.split_once(", line ")?;
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .map_or(Some(rest), |end| rest.get(..end))?;
            digits.parse().ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_kind() {
        use StoreErrorKind::{Conflict, Data, LockTimeout, Other, Setup, Timeout, Unavailable};
        for (sqlstate, kind) in [
            ("08000", Unavailable),
            ("08006", Unavailable),
            ("0A000", Setup),
            ("21000", Other),
            ("22021", Data),
            ("22P02", Data),
            ("22P03", Data),
            ("22P05", Data),
            ("23502", Data),
            ("23505", Conflict),
            ("23514", Data),
            ("25006", Unavailable),
            ("25P02", Other),
            ("25P03", Timeout),
            ("25P04", Timeout),
            ("28000", Setup),
            ("28P01", Setup),
            ("3D000", Setup),
            ("3F000", Setup),
            ("40001", Conflict),
            ("40003", Unavailable),
            ("40P01", Conflict),
            ("42501", Setup),
            ("42P01", Setup),
            ("53100", Unavailable),
            ("53200", Unavailable),
            ("53300", Unavailable),
            ("53400", Other),
            ("54000", Data),
            ("54001", Data),
            ("55006", Conflict),
            ("55P03", LockTimeout),
            ("57014", Timeout),
            ("57P01", Unavailable),
            ("57P02", Unavailable),
            ("57P03", Unavailable),
            ("57P05", Unavailable),
            ("58030", Unavailable),
            ("P0001", Other),
            ("TS101", Other),
            ("XX000", Other),
            ("", Other),
        ] {
            assert_eq!(kind_of_sqlstate(sqlstate), kind, "{sqlstate}");
        }
    }

    #[test]
    fn a_copy_error_names_its_row() {
        assert_eq!(copy_line("COPY application_logs, line 12, column fields"), Some(12));
        assert_eq!(
            copy_line("JSON data, line 1: [[[\nCOPY application_logs, line 7"),
            Some(7)
        );
        assert_eq!(copy_line("SQL statement \"select 1\""), None);
    }
}

//! Section `[database]`: PostgreSQL with TimescaleDB, and the limits of a commit.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

/// What PostgreSQL waits for before it calls a commit done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SynchronousCommit {
    /// Flushed here, and on synchronous standbys if there are any.
    On,
    /// Applied on synchronous standbys too.
    RemoteApply,
    /// Flushed here, written on standbys.
    RemoteWrite,
    /// Flushed here only.
    Local,
    /// Not flushed: acknowledged events can be lost in a crash. Written out so that nobody takes it by mistake.
    OffAndAcceptLoss,
}

/// Section `[database]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`; `DATABASE_URL` is honoured.
    /// After loading it is what is to be used: the files below have been read into it.
    pub url: SecretString,
    /// A file that holds the URL, in place of `url`; read at start.
    pub url_file: Option<PathBuf>,
    /// A file that holds the password; read at start, goes over the one in the URL.
    pub password_file: Option<PathBuf>,
    /// Connections that commit batches; as many as PostgreSQL has cores to give.
    pub committers: usize,
    /// Connections for everything else (delivery, housekeeping, status).
    pub pool_connections_max: u32,
    /// Time to open a connection.
    #[serde(with = "super::unit::duration")]
    pub connect_timeout: Duration,
    /// Whether `serve` migrates at start.
    pub migrate_on_start: bool,
    /// Set by us on every connection.
    pub synchronous_commit: SynchronousCommit,
    /// Events of one batch at most; one larger request goes alone.
    pub batch_rows_max: usize,
    /// Encoded bytes of one batch at most; one larger request goes alone.
    #[serde(with = "super::unit::bytes")]
    pub batch_bytes_max: usize,
    /// How long the late lane waits for a lock; the others wait half as long.
    #[serde(with = "super::unit::duration")]
    pub lock_timeout: Duration,
    /// How long an ingest transaction may take; a request that goes alone a second more for every 5,000 rows.
    #[serde(with = "super::unit::duration")]
    pub transaction_timeout: Duration,
    /// Requests with an event older than this go to the late lane.
    #[serde(with = "super::unit::duration")]
    pub late_after: Duration,
    /// How long digests of requests are kept, to know a resend.
    #[serde(with = "super::unit::duration")]
    pub digest_retention: Duration,
    /// Time that one chunk spans; used when the hypertable is made.
    #[serde(with = "super::unit::duration")]
    pub chunk_interval: Duration,
    /// How much of an undecodable body or event a dead letter keeps.
    #[serde(with = "super::unit::bytes")]
    pub dead_letter_bytes_max: usize,
    /// More dead letters than this raise an alarm; none is dropped.
    pub dead_letters_rows_max: usize,
    /// Dead letters that failed last longer ago than this are deleted.
    #[serde(with = "super::unit::duration")]
    pub dead_letter_retention: Duration,
    /// How long rows of `log_writer.audit` are kept; that of the last migration counts.
    #[serde(with = "super::unit::duration")]
    pub audit_retention: Duration,
}

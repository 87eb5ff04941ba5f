//! Brings events back from the archive: through the normal commit path, with their ids and all else they had.
//!
//! A file is compared with its manifest before the first of its events is committed. Stored events are duplicates, so it may
//! be done again, or go on where it was killed. What is brought back is held: retention would drop it within a minute.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{ArchiveError, Day, FileEntry, file::Reader, line};
use crate::{
    config::Config,
    elasticsearch::Targets,
    event::{Digest, Timestamp, derive_id},
    timescale::{
        ActionId, CommitMode, Committer, EncodedRows, Receipt, Source, Span, StoreErrorKind, WriteRequest, hold_events,
    },
};

/// Attempts at one transaction that others got in the way of, or whose end is unknown.
const ATTEMPTS: u32 = 5;
/// Pause before the second of these.
const PAUSE: Duration = Duration::from_millis(500);

/// Which events of a file.
#[derive(Debug, Clone, Copy)]
pub struct RestoreScope {
    /// Within this time.
    pub span: Span,
    /// How long they are held.
    pub keep: Duration,
}

/// What became of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Events read.
    pub events: u64,
    /// Of these: stored now.
    pub committed: u64,
    /// Stored already.
    pub duplicates: u64,
    /// Dead letters now: PostgreSQL refused them.
    pub refused: u64,
}

impl Restored {
    fn add(&mut self, receipt: &Receipt) {
        self.events += u64::from(receipt.received);
        self.committed += u64::from(receipt.committed);
        self.duplicates += u64::from(receipt.duplicates);
        self.refused += u64::from(receipt.dead_lettered);
    }
}

/// Commits events of archives.
#[derive(Debug)]
pub struct Restorer<'a> {
    config: &'a Config,
    pool: &'a sqlx::PgPool,
    targets: Option<Targets>,
    action: ActionId,
    name: String,
    committer: Option<Committer>,
}

impl<'a> Restorer<'a> {
    /// Counts to `action` what it stores; `targets` is `None` when events are stored in SQL only. `name` names its row in the
    /// books.
    #[must_use]
    pub fn new(
        config: &'a Config,
        pool: &'a sqlx::PgPool,
        targets: Option<Targets>,
        action: ActionId,
        name: String,
    ) -> Self {
        Self {
            config,
            pool,
            targets,
            action,
            name,
            committer: None,
        }
    }

    /// Brings back the events of a tenant's file, and tells now and then what was done since the last time.
    ///
    /// # Errors
    /// What was committed before stays.
    pub async fn restore(
        &mut self,
        day: &Day,
        entry: &FileEntry,
        scope: RestoreScope,
        mut tell: impl FnMut(Restored),
    ) -> Result<(), ArchiveError> {
        day.check(entry)?;
        self.hold(day, scope).await?;
        let tenant: Arc<str> = Arc::from(entry.tenant.as_str());
        let mut reader = Reader::open(day.folder(), entry)?;
        let mut text = Vec::new();
        let mut group = self.group(&tenant, entry);
        while reader.next(&mut text)? {
            let read = line::read(&text, &tenant).map_err(|what| reader.damaged(what))?;
            let time = read.event.timestamp;
            if time < scope.span.from || time >= scope.span.to {
                continue;
            }
            let target = self.targets.as_ref().map(|targets| targets.target(&tenant, time));
            let row = group.rows.len();
            group
                .rows
                .push_with(&read.event, read.ingested_at, target.as_ref(), read.pattern);
            let position = u32::try_from(row).unwrap_or(u32::MAX);
            group
                .rows
                .set_ids(row, read.id, derive_id(Some(time), &group.digest, position));
            let database = &self.config.database;
            if group.rows.len() >= database.batch_rows_max || group.rows.bytes() >= database.batch_bytes_max {
                let full = std::mem::replace(&mut group, self.group(&tenant, entry));
                tell(self.commit(full).await?);
            }
        }
        if !group.rows.is_empty() {
            tell(self.commit(group).await?);
        }
        // They are held for as long from now on.
        self.hold(day, scope).await
    }

    async fn hold(&self, day: &Day, scope: RestoreScope) -> Result<(), ArchiveError> {
        let reason = format!("restored by action {} of log_writer.audit", self.action);
        let mut attempt = 1;
        loop {
            match hold_events(self.pool, day.span(), scope.keep, &reason).await {
                // A chunk is being counted before it is dropped, and holds wait for that.
                Err(error) if attempt < ATTEMPTS && error.kind() == StoreErrorKind::Timeout => attempt += 1,
                done => return Ok(done?),
            }
        }
    }

    fn group(&self, tenant: &Arc<str>, entry: &FileEntry) -> WriteRequest {
        WriteRequest {
            // For the ids of events whose own id another event has by now; nothing is noted.
            digest: Digest(*blake3::hash(entry.blake3.as_bytes()).as_bytes()),
            received: 0,
            rows: EncodedRows::new(),
            dead_letters: Vec::new(),
            body: Bytes::new(),
            source: Arc::new(Source {
                tenant: Arc::clone(tenant),
                address: None,
                content_type: None,
                content_encoding: None,
                path: "archive restore".to_owned(),
            }),
        }
    }

    async fn commit(&mut self, mut request: WriteRequest) -> Result<Restored, ArchiveError> {
        request.received = u32::try_from(request.rows.len()).unwrap_or(u32::MAX);
        let database = &self.config.database;
        // More than a batch of the service has: rows may go into compressed chunks, or be there already.
        let mode = CommitMode {
            lock_timeout: database.lock_timeout,
            transaction_timeout: database.transaction_timeout * 4,
            bisect: true,
        };
        let mut attempt = 1;
        loop {
            let done = match self.committer.take() {
                Some(committer) => Ok(committer),
                None => Committer::connect(database, &self.name).await,
            };
            let done = match done {
                Ok(mut committer) => {
                    let done = committer.restore(self.action, &mut request, &mode).await;
                    self.committer = Some(committer);
                    done
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(receipt) => {
                    let mut restored = Restored::default();
                    restored.add(&receipt);
                    return Ok(restored);
                }
                // Stored rows are duplicates: the same may be tried again whatever became of it.
                Err(error)
                    if attempt < ATTEMPTS && !matches!(error.kind(), StoreErrorKind::Setup | StoreErrorKind::Other) =>
                {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl RestoreScope {
    /// Whether any event of a file can be in it.
    #[must_use]
    pub fn meets(&self, entry: &FileEntry) -> bool {
        Timestamp::from(entry.first) < self.span.to && Timestamp::from(entry.last) >= self.span.from
    }
}

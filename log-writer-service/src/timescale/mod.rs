//! PostgreSQL with TimescaleDB: the only module that knows SQL.
//!
//! [`Committer`] commits batches of requests, all or none; [`Outbox`] hands out what is not yet settled in
//! Elasticsearch, reads it back and settles it. Around them: migrations, books, status, housekeeping. Every failure is a
//! [`StoreError`] with a [`StoreErrorKind`]; what to do about it is the caller's. No call waits for ever: a server that does
//! not answer is [`StoreErrorKind::Timeout`], or [`StoreErrorKind::Unavailable`] where a connection was still to be made.

mod annotations;
mod archive;
mod audit;
mod bare_tenant;
mod batch;
mod bisect;
mod books;
mod census;
mod chunks;
mod claim;
mod clock;
mod committer;
mod copy;
mod copy_out;
mod copy_text;
mod dead_letters;
mod digests;
mod error;
mod history;
mod housekeep;
mod late_bulks;
mod late_events;
mod limits;
mod migrations;
mod monitor;
mod outbox;
mod outbox_plan;
mod patterns;
mod pool;
mod profile;
mod questions;
mod read_back;
mod rehearsal;
mod restore;
mod settle;
mod staging;
mod status;
mod warnings;
mod write;

#[cfg(any(test, feature = "targets"))]
pub(crate) use self::copy_out::{copy_stream, read_stream};
pub use self::{
    annotations::{annotate, forget_annotated, requeue_annotated},
    archive::{ArchiveTurn, ArchivedEvent, ArchivedSpan, Span, TenantState, hold_events, tenant_existed},
    audit::{ActionId, ActionOutcome, Actor, AuditFilter, AuditRow, end, end_with, progress, purge_audit, record},
    bare_tenant::bare_tenant,
    books::Books,
    census::{Again, Census, CountedBucket, Standing},
    claim::{CLAIM_ROWS_MAX, ClaimOrder, ClaimRequest},
    clock::Clock,
    committer::Committer,
    copy::EncodedRows,
    dead_letters::{
        DeadLetter, Letter, LetterCount, LetterFilter, LetterTotals, LetterUpkeep, RawLetter, Recommitted, Redrivable,
        RefusedDocument, Requeued, Stage, StoredLetter, claim_looks, count_letters, count_purgeable, note_looks,
        purge_letters, upkeep_letters,
    },
    error::{StoreError, StoreErrorKind},
    history::{expire, refresh_stats},
    housekeep::{Housekeeping, end_hanging_sessions, housekeep},
    late_bulks::{LateBulk, claim_late_bulk, note_late_bulk, read_late_bulk},
    migrations::{MigrationReport, migrate, pending_migrations},
    monitor::{Monitor, Snapshot},
    outbox::{Backlog, Outbox, OutboxId, OutboxRow, WorkKind},
    patterns::{NewPattern, note_patterns},
    pool::connect_pool,
    profile::{set_storage_profile, storage_profile},
    questions::{Question, Questions, Rows},
    settle::{IndexRefusal, Rest, Settlement},
    status::{Edition, StoreStatus},
    write::{CommitMode, Met, Receipt, Source, WriteRequest},
};

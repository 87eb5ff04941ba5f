//! Archives what retention is about to drop, and drops it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{ArchiveError, Day, FileEntry, day::Merge};
use crate::{
    config::{Config, Database, Retention},
    failpoint::failpoint,
    timescale::{ArchiveTurn, ArchivedEvent, ArchivedSpan, Span, StoreErrorKind, TenantState},
};

/// Tenants whose files are written at once; more take another look at the day's events.
const TENANTS_AT_ONCE: usize = 16;
/// Groups of events that wait for the writer.
const GROUPS_WAITING: usize = 2;

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Events written.
    pub events: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Time spent on these.
    pub took: Duration,
    /// Chunks dropped.
    pub chunks: u64,
    /// Chunks left to the next round: events were added or changed, or somebody reads them.
    pub left: u64,
}

/// Archives and drops.
#[derive(Debug)]
pub struct Keeper {
    database: Database,
    archive: PathBuf,
    zstd_level: i32,
    keep: Duration,
}

impl Keeper {
    /// `None` if nothing is to be archived.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let Retention {
            enabled,
            events,
            archive_path,
            archive_zstd_level,
            ..
        } = &config.retention;
        Some(Self {
            database: config.database.clone(),
            archive: archive_path.clone().filter(|_| *enabled)?,
            zstd_level: *archive_zstd_level,
            keep: *events,
        })
    }

    /// Archives all that is due and drops it; `None` if another replica is about it.
    ///
    /// # Errors
    /// What was done before stays done.
    ///
    /// # Cancel safety
    /// As a crash: what is half written is never looked at.
    pub async fn round(&self) -> Result<Option<Round>, ArchiveError> {
        let Some(mut turn) = ArchiveTurn::begin(&self.database).await? else {
            return Ok(None);
        };
        let mut round = Round::default();
        let done = self.work(&mut turn, &mut round).await;
        turn.end().await;
        done.map(|()| Some(round))
    }

    async fn work(&self, turn: &mut ArchiveTurn, round: &mut Round) -> Result<(), ArchiveError> {
        // A folder that is gone is told even where there is nothing to do.
        let archive = self.archive.clone();
        blocking(move || find(&archive)).await?;
        let chunks = turn.expired_chunks(self.keep).await?;
        // All that is due of a day goes into its files at once, however short chunks are.
        let mut days: BTreeMap<NaiveDate, (Day, Vec<Span>)> = BTreeMap::new();
        for chunk in &chunks {
            let mut from = chunk.from;
            while from < chunk.to {
                let day = Day::of(&self.archive, from);
                let to = day.span().to.min(chunk.to);
                let (_, spans) = days.entry(day.date()).or_insert_with(|| (day, Vec::new()));
                spans.push(Span { from, to });
                from = to;
            }
        }
        let mut chunks = chunks.into_iter().peekable();
        let mut archived: Vec<ArchivedSpan> = Vec::new();
        for (day, spans) in days.into_values() {
            archived.extend(self.archive_day(turn, &day, &spans, round).await?);
            while let Some(chunk) = chunks.next_if(|chunk| chunk.to <= day.span().to) {
                let (from, to) = (DateTime::<Utc>::from(chunk.from), DateTime::<Utc>::from(chunk.to));
                let of_chunk: Vec<ArchivedSpan> = archived
                    .extract_if(.., |span| from <= span.from && span.to <= to)
                    .collect();
                failpoint!("archive::before_drop");
                match turn.drop_chunk(self.keep, chunk, &of_chunk).await {
                    Ok(true) => {
                        failpoint!("archive::after_drop");
                        round.chunks += 1;
                    }
                    Ok(false) => round.left += 1,
                    Err(error) if matches!(error.kind(), StoreErrorKind::LockTimeout | StoreErrorKind::Conflict) => {
                        round.left += 1;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Sees to it that the archive has what the database has of a day now; the files are read back.
    async fn archive_day(
        &self,
        turn: &mut ArchiveTurn,
        day: &Day,
        spans: &[Span],
        round: &mut Round,
    ) -> Result<Vec<ArchivedSpan>, ArchiveError> {
        let known = day.clone();
        let mut manifest = blocking(move || known.open_manifest()).await?;
        let (mut now, mut due) = (Vec::with_capacity(spans.len()), Vec::new());
        for span in spans {
            let states = turn.state(*span).await?;
            let archived = archived_span(*span, &states);
            if archived.events > 0 && !manifest.spans.contains(&archived) {
                due.push((*span, states));
            }
            now.push(archived);
        }
        if !due.is_empty() {
            let started = std::time::Instant::now();
            let made = day.clone();
            blocking(move || made.make_folder()).await?;
            let mut tenants: Vec<String> = due
                .iter()
                .flat_map(|(_, states)| states)
                .map(|state| state.tenant.clone())
                .collect();
            tenants.sort_unstable();
            tenants.dedup();
            for group in tenants.chunks(TENANTS_AT_ONCE) {
                let entries = self.write(turn, day, &due, group, &manifest.files).await?;
                manifest
                    .files
                    .retain(|entry| entries.iter().all(|new| new.tenant != entry.tenant));
                round.events += entries.iter().map(|entry| entry.events).sum::<u64>();
                round.bytes += entries.iter().map(|entry| entry.bytes).sum::<u64>();
                manifest.files.extend(entries);
            }
            manifest
                .files
                .sort_unstable_by(|one, other| one.tenant.cmp(&other.tenant));
            let archived: Vec<ArchivedSpan> = due.iter().map(|(span, states)| archived_span(*span, states)).collect();
            let is_replaced = |span: &ArchivedSpan| archived.iter().any(|new| new.from < span.to && span.from < new.to);
            manifest.spans.retain(|span| !is_replaced(span));
            manifest.spans.extend(archived);
            manifest.spans.sort_unstable_by_key(|span| span.from);
            manifest.written_at = Utc::now();
            failpoint!("archive::before_manifest");
            let folder = day.folder().to_owned();
            manifest = blocking(move || {
                manifest.write(&folder)?;
                manifest.sweep(&folder)?;
                Ok(manifest)
            })
            .await?;
            round.took += started.elapsed();
        }
        let (day, files) = (day.clone(), manifest.files);
        blocking(move || files.iter().try_for_each(|entry| day.check(entry))).await?;
        Ok(now)
    }

    /// Writes the files of some tenants of a day.
    async fn write(
        &self,
        turn: &mut ArchiveTurn,
        day: &Day,
        due: &[(Span, Vec<TenantState>)],
        tenants: &[String],
        old: &[FileEntry],
    ) -> Result<Vec<FileEntry>, ArchiveError> {
        let (sender, mut receiver) = mpsc::channel::<Vec<ArchivedEvent>>(GROUPS_WAITING);
        let mut merge = Merge::new(day, self.zstd_level, old.to_vec());
        let writer = blocking(move || {
            let mut added = 0_i64;
            while let Some(events) = receiver.blocking_recv() {
                for event in &events {
                    merge.add(event)?;
                    added += 1;
                }
            }
            Ok((merge, added))
        });
        let read = async {
            for (span, _) in due {
                turn.read(*span, tenants, &sender).await?;
            }
            drop(sender);
            Ok::<(), ArchiveError>(())
        };
        let (written, read) = tokio::join!(writer, read);
        let (merge, added) = written?;
        read?;
        let expected: i64 = due
            .iter()
            .flat_map(|(_, states)| states)
            .filter(|state| tenants.contains(&state.tenant))
            .map(|state| state.events)
            .sum();
        if added != expected {
            return Err(ArchiveError::Changed(day.date().to_string()));
        }
        blocking(move || merge.finish()).await
    }
}

/// What a time holds, of all tenants together.
fn archived_span(span: Span, states: &[TenantState]) -> ArchivedSpan {
    ArchivedSpan {
        from: span.from.into(),
        to: span.to.into(),
        events: states.iter().map(|state| state.events).sum(),
        fingerprint: states.iter().map(|state| state.fingerprint).sum::<i128>().to_string(),
    }
}

/// A folder that is gone is told even where there is nothing to archive.
fn find(archive: &Path) -> Result<(), ArchiveError> {
    let failed = || ArchiveError::io("find the archive", archive);
    let metadata = std::fs::metadata(archive).map_err(failed())?;
    if metadata.is_dir() {
        Ok(())
    } else {
        Err(failed()(std::io::ErrorKind::NotADirectory.into()))
    }
}

/// Work with files, on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ArchiveError::Broken(error.to_string())))
}

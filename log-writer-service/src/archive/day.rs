//! A day of the archive: found in the folder, checked, and written by merging what it had with what the database has.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use super::{
    ArchiveError, FileEntry, Manifest,
    file::{self, Reader, Writer},
    line,
    line::Key,
    manifest::sync_folder,
};
use crate::{
    event::Timestamp,
    timescale::{ArchivedEvent, Span},
};

/// A day, archived or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    date: NaiveDate,
    folder: PathBuf,
}

/// The days of an archive that have a manifest or should have one, the oldest first.
///
/// # Errors
/// If the folder cannot be read.
pub fn days(archive: &Path) -> Result<Vec<Day>, ArchiveError> {
    let failed = || ArchiveError::io("read the archive", archive);
    let mut days = Vec::new();
    for entry in fs::read_dir(archive).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        if let Some(date) = name.to_str().and_then(|name| name.parse().ok()) {
            days.push(Day::new(archive, date));
        }
    }
    days.sort_unstable_by_key(|day| day.date);
    Ok(days)
}

impl Day {
    /// A day of an archive.
    #[must_use]
    pub fn new(archive: &Path, date: NaiveDate) -> Self {
        Self {
            date,
            folder: archive.join(date.to_string()),
        }
    }

    /// The day that a time falls into.
    pub(super) fn of(archive: &Path, time: Timestamp) -> Self {
        Self::new(archive, DateTime::<Utc>::from(time).date_naive())
    }

    /// Which day.
    #[must_use]
    pub fn date(&self) -> NaiveDate {
        self.date
    }

    /// Its time.
    #[must_use]
    pub fn span(&self) -> Span {
        let start = |date: NaiveDate| Timestamp::from(date.and_time(NaiveTime::MIN).and_utc());
        Span {
            from: start(self.date),
            to: self.date.succ_opt().map_or(Timestamp::MAX_STORED, start),
        }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has; `None` if nothing of it was archived to the end.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if the manifest is none.
    pub fn manifest(&self) -> Result<Option<Manifest>, ArchiveError> {
        Manifest::read(&self.folder, self.date)
    }

    /// Compares a file with its manifest: length and checksum.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if they differ.
    pub fn check(&self, entry: &FileEntry) -> Result<(), ArchiveError> {
        file::check(&self.folder, entry)
    }

    /// The same, and reads every event of it; how many lie within a time.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if they differ, or if a line is no event of that tenant and day, or out of order.
    pub fn check_events(&self, entry: &FileEntry, within: Option<Span>) -> Result<u64, ArchiveError> {
        let mut reader = Reader::open(&self.folder, entry)?;
        let (span, tenant) = (self.span(), entry.tenant.as_str().into());
        let (mut text, mut before, mut events): (Vec<u8>, Option<Key>, u64) = (Vec::new(), None, 0);
        while reader.next(&mut text)? {
            let read = line::read(&text, &tenant).map_err(|what| reader.damaged(what))?;
            let key = (read.event.timestamp, read.id);
            if key.0 < span.from || key.0 >= span.to || before.is_some_and(|before| before >= key) {
                return Err(reader.damaged(format!("event {} of {} is out of order", read.id, key.0.to_rfc3339())));
            }
            before = Some(key);
            if within.is_none_or(|within| within.from <= key.0 && key.0 < within.to) {
                events += 1;
            }
        }
        Ok(events)
    }

    /// What it has, to be added to. What was left by runs that broke off is deleted: it may be what filled the disk.
    pub(super) fn open_manifest(&self) -> Result<Manifest, ArchiveError> {
        let manifest = self.manifest()?.unwrap_or_else(|| Manifest::new(self.date));
        if self.folder.is_dir() {
            manifest.sweep(&self.folder)?;
        }
        Ok(manifest)
    }

    /// Its folder, made if the archive itself is there: where a disk is not mounted nothing must be written.
    pub(super) fn make_folder(&self) -> Result<(), ArchiveError> {
        match fs::create_dir(&self.folder) {
            Ok(()) => self.folder.parent().map_or(Ok(()), sync_folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(ArchiveError::io("create", &self.folder)(error)),
        }
    }
}

/// Files of some tenants of a day, written at once.
pub(super) struct Merge {
    folder: PathBuf,
    zstd_level: i32,
    old: Vec<FileEntry>,
    open: BTreeMap<String, MergedFile>,
    line: Vec<u8>,
}

/// A new file, and the one that it takes the place of.
struct MergedFile {
    writer: Writer,
    old: Option<Old>,
}

/// What of an old file is still to come.
struct Old {
    reader: Reader,
    line: Vec<u8>,
    key: Key,
}

impl Merge {
    /// Begins; `old` is what the day has.
    pub(super) fn new(day: &Day, zstd_level: i32, old: Vec<FileEntry>) -> Self {
        Self {
            folder: day.folder.clone(),
            zstd_level,
            old,
            open: BTreeMap::new(),
            line: Vec::new(),
        }
    }

    /// Adds an event; those of a tenant come in order. It takes the place of the same event in the old file.
    pub(super) fn add(&mut self, archived: &ArchivedEvent) -> Result<(), ArchiveError> {
        let event = &archived.event;
        let tenant: &str = &event.tenant;
        if !self.open.contains_key(tenant) {
            let merged = MergedFile::create(&self.folder, tenant, self.zstd_level, &self.old)?;
            self.open.insert(tenant.to_owned(), merged);
        }
        let Some(file) = self.open.get_mut(tenant) else {
            return Ok(());
        };
        self.line.clear();
        line::write(archived, &mut self.line).map_err(|error| ArchiveError::Broken(error.to_string()))?;
        let key = (event.timestamp, event.id);
        file.copy_before(Some(key))?;
        file.writer.add(key, &self.line)
    }

    /// Ends all files; what the manifest says of them. The folder is flushed.
    pub(super) fn finish(self) -> Result<Vec<FileEntry>, ArchiveError> {
        let mut entries = Vec::with_capacity(self.open.len());
        for (_, mut file) in self.open {
            file.copy_before(None)?;
            entries.push(file.writer.finish(&self.folder)?);
        }
        sync_folder(&self.folder)?;
        Ok(entries)
    }
}

impl MergedFile {
    fn create(folder: &Path, tenant: &str, zstd_level: i32, old: &[FileEntry]) -> Result<Self, ArchiveError> {
        let mut merged = Self {
            writer: Writer::create(folder, tenant, zstd_level)?,
            old: None,
        };
        if let Some(entry) = old.iter().find(|entry| entry.tenant == tenant) {
            merged.take_old(Reader::open(folder, entry)?, Vec::new())?;
        }
        Ok(merged)
    }

    /// The next line of the old file, if there is one.
    fn take_old(&mut self, mut reader: Reader, mut line: Vec<u8>) -> Result<(), ArchiveError> {
        self.old = if reader.next(&mut line)? {
            let key = reader.key(&line)?;
            Some(Old { reader, line, key })
        } else {
            None
        };
        Ok(())
    }

    /// Copies what the old file has before an event, or all that is left; passes over the same event.
    fn copy_before(&mut self, before: Option<Key>) -> Result<(), ArchiveError> {
        while let Some(old) = self.old.take_if(|old| before.is_none_or(|before| old.key <= before)) {
            if before != Some(old.key) {
                self.writer.add(old.key, &old.line)?;
            }
            self.take_old(old.reader, old.line)?;
        }
        Ok(())
    }
}

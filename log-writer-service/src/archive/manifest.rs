//! What a day of the archive has: read, written as the last of its files, and compared with them.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    ArchiveError,
    names::{ENDING, MANIFEST, PART, is_plain},
};
use crate::timescale::ArchivedSpan;

/// Version of this form; another one is refused.
const FORMAT: u32 = 1;

/// A day of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the form.
    pub format: u32,
    /// What wrote it.
    pub product: String,
    /// The day (UTC).
    pub day: NaiveDate,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// A file for each tenant.
    pub files: Vec<FileEntry>,
    /// What the database held of the day when it was archived.
    pub spans: Vec<ArchivedSpan>,
}

/// One file of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Whose events.
    pub tenant: String,
    /// Its name, beside the manifest.
    pub file: String,
    /// Lines.
    pub events: u64,
    /// Length, compressed.
    pub bytes: u64,
    /// Of the compressed file.
    pub blake3: String,
    /// Time of the first event.
    pub first: DateTime<Utc>,
    /// Time of the last event.
    pub last: DateTime<Utc>,
}

impl Manifest {
    /// Of a day that has nothing yet.
    pub(super) fn new(day: NaiveDate) -> Self {
        Self {
            format: FORMAT,
            product: concat!("log-writer-service ", env!("CARGO_PKG_VERSION")).to_owned(),
            day,
            written_at: Utc::now(),
            files: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Reads a day's; `None` if there is none.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if it is not one of that day in a form that is known.
    pub fn read(folder: &Path, day: NaiveDate) -> Result<Option<Self>, ArchiveError> {
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ArchiveError::io("read", &path)(error)),
        };
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| ArchiveError::damaged(&path, error.to_string()))?;
        if manifest.format != FORMAT {
            let what = format!("its form is {}, this version reads {FORMAT}", manifest.format);
            return Err(ArchiveError::damaged(&path, what));
        }
        if manifest.day != day {
            return Err(ArchiveError::damaged(&path, format!("it is of {}", manifest.day)));
        }
        if let Some(entry) = manifest.files.iter().find(|entry| !is_plain(&entry.file)) {
            let what = format!("{:?} is no name of a file beside it", entry.file);
            return Err(ArchiveError::damaged(&path, what));
        }
        Ok(Some(manifest))
    }

    /// Writes it durably in place of the one before.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ArchiveError> {
        let path = folder.join(MANIFEST);
        let part = part_path(folder, MANIFEST);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        let written = text.and_then(|text| {
            let mut file = File::create_new(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        });
        written.map_err(ArchiveError::io("write", &path))?;
        sync_folder(folder)
    }

    /// Deletes what was left in its folder by runs that broke off, or was replaced.
    pub(super) fn sweep(&self, folder: &Path) -> Result<(), ArchiveError> {
        let failed = || ArchiveError::io("clean up", folder);
        for entry in fs::read_dir(folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_ours = name.ends_with(PART) || name.ends_with(ENDING);
            if is_ours && !self.files.iter().any(|entry| entry.file == name) {
                fs::remove_file(folder.join(name)).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// Events of all files.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.files.iter().map(|entry| entry.events).sum()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.bytes).sum()
    }
}

/// A name for a file while it is written, never used before.
pub(super) fn part_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{}{PART}", Uuid::new_v4().simple()))
}

/// Makes what was renamed in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(ArchiveError::io("flush", folder))
}

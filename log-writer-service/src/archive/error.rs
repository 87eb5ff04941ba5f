//! What can go wrong with an archive.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::timescale::StoreError;

/// A failed attempt on the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system.
    #[error("could not {attempted} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{path} is damaged: {what}; bring it back from a copy, or move its day's folder out of the archive", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Events were added or changed meanwhile.
    #[error("events of {0} were added or changed while they were archived; they are archived again")]
    Changed(String),
    /// The part that writes ended without an error.
    #[error("the writer of the archive broke off: {0}")]
    Broken(String),
}

impl ArchiveError {
    /// Makes a function for `map_err` that says what was attempted on which file.
    pub(super) fn io(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            attempted,
            path,
            source,
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

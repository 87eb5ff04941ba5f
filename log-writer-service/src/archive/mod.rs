//! The archive: events as files, written before retention drops them, and brought back from there.
//!
//! `PATH/DAY/TENANT.CHECKSUM.ndjson.zst`, a line an event, in order of time and id; what a day has is what its
//! `manifest.json` says, which is written last. No file is ever changed: a day that is archived again (late events, events
//! that were brought back, an analysis that was added) gets new files that hold what the old ones held, too.
//!
//! | step | a crash after it, a full disk, a folder that is gone |
//! |---|---|
//! | 1 the state of a time: number and fingerprint of its events | nothing |
//! | 2 files, each flushed and renamed | files that no manifest names; deleted by the next run |
//! | 3 manifest, the same way | archived; checked again and dropped by the next run |
//! | 4 files read back and compared with the manifest | the same |
//! | 5 chunk dropped, if it still has the state of step 1 | dropped and archived |
//!
//! Nothing is dropped before step 5, so whatever happens costs disk and no event. The way back: [`Restorer`].

mod day;
mod error;
mod file;
mod keeper;
mod line;
mod manifest;
mod names;
mod restore;

pub use self::{
    day::{Day, days},
    error::ArchiveError,
    keeper::{Keeper, Round},
    manifest::{FileEntry, Manifest},
    restore::{RestoreScope, Restored, Restorer},
};

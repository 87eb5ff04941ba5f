//! One file of events: written under another name, flushed, then named by its checksum; read with that checksum watched.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};

use super::{
    ArchiveError, FileEntry, line,
    line::Key,
    manifest::part_path,
    names::{ENDING, of_tenant},
};
use crate::failpoint::failpoint;

/// No line is longer: PostgreSQL takes values of a gigabyte at most, an event far less.
const LINE_BYTES_MAX: u64 = 1 << 30;
/// What is read and written at one go.
const BUFFER_BYTES: usize = 128 * 1024;

/// Counts and digests what passes.
struct Digested<T> {
    inner: T,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<T> Digested<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    }
}

impl<T: Write> Write for Digested<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.note(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Digested<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.note(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A file that is being written.
pub(super) struct Writer {
    tenant: String,
    part: Part,
    encoder: zstd::stream::write::Encoder<'static, BufWriter<Digested<File>>>,
    events: u64,
    first: Option<Key>,
    last: Option<Key>,
}

/// A file under its first name: deleted unless it was renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Gone after the rename; else the next run deletes it.
        fs::remove_file(&self.0).ok();
    }
}

impl Writer {
    /// Begins a file of a tenant.
    pub(super) fn create(folder: &Path, tenant: &str, zstd_level: i32) -> Result<Self, ArchiveError> {
        let part = Part(part_path(folder, &of_tenant(tenant)));
        let encoder = File::create_new(&part.0).and_then(|file| {
            let file = BufWriter::with_capacity(BUFFER_BYTES, Digested::new(file));
            let mut encoder = zstd::stream::write::Encoder::new(file, zstd_level)?;
            // Whoever unpacks it by another program finds damage, too.
            encoder.include_checksum(true)?;
            Ok(encoder)
        });
        Ok(Self {
            tenant: tenant.to_owned(),
            encoder: encoder.map_err(ArchiveError::io("create", &part.0))?,
            part,
            events: 0,
            first: None,
            last: None,
        })
    }

    /// Adds a line, line feed included.
    pub(super) fn add(&mut self, key: Key, line: &[u8]) -> Result<(), ArchiveError> {
        self.encoder
            .write_all(line)
            .map_err(ArchiveError::io("write", &self.part.0))?;
        self.events += 1;
        self.first.get_or_insert(key);
        self.last = Some(key);
        Ok(())
    }

    /// Flushes the file and gives it its name; what the manifest says of it. The folder is still to be flushed.
    pub(super) fn finish(self, folder: &Path) -> Result<FileEntry, ArchiveError> {
        let digested = self
            .encoder
            .finish()
            .and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error))
            .and_then(|digested| digested.inner.sync_all().map(|()| digested))
            .map_err(ArchiveError::io("write", &self.part.0))?;
        let blake3 = digested.hasher.finalize().to_hex().to_string();
        let file = format!(
            "{}.{}{ENDING}",
            of_tenant(&self.tenant),
            blake3.get(..16).unwrap_or_default()
        );
        failpoint!("archive::before_rename");
        fs::rename(&self.part.0, folder.join(&file)).map_err(ArchiveError::io("rename", &self.part.0))?;
        let time = |key: Option<Key>| key.map_or(DateTime::<Utc>::UNIX_EPOCH, |(time, _)| time.into());
        Ok(FileEntry {
            tenant: self.tenant,
            file,
            events: self.events,
            bytes: digested.bytes,
            blake3,
            first: time(self.first),
            last: time(self.last),
        })
    }
}

/// A file that is read; what its manifest says is compared at its end.
pub(super) struct Reader {
    path: PathBuf,
    entry: FileEntry,
    lines: BufReader<zstd::stream::read::Decoder<'static, BufReader<Digested<File>>>>,
    events: u64,
}

impl Reader {
    /// Opens the file of an entry.
    pub(super) fn open(folder: &Path, entry: &FileEntry) -> Result<Self, ArchiveError> {
        let path = folder.join(&entry.file);
        let lines = File::open(&path).and_then(|file| {
            let file = BufReader::with_capacity(BUFFER_BYTES, Digested::new(file));
            let decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            Ok(BufReader::with_capacity(BUFFER_BYTES, decoder))
        });
        Ok(Self {
            lines: lines.map_err(ArchiveError::io("open", &path))?,
            path,
            entry: entry.clone(),
            events: 0,
        })
    }

    /// Reads the next line, line feed included, in place of what the buffer has; false at the end, once the whole file is
    /// what its manifest says.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, ArchiveError> {
        line.clear();
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', line);
        if let Err(error) = read {
            // What is no error of the system's is what zstd says of bytes that it did not write.
            return Err(if error.raw_os_error().is_some() {
                ArchiveError::io("read", &self.path)(error)
            } else {
                self.damaged(error.to_string())
            });
        }
        if line.is_empty() {
            self.compare()?;
            return Ok(false);
        }
        if line.last() != Some(&b'\n') {
            return Err(self.damaged("its last line does not end".to_owned()));
        }
        self.events += 1;
        Ok(true)
    }

    /// Where a line of it stands.
    pub(super) fn key(&self, line: &[u8]) -> Result<Key, ArchiveError> {
        line::key(line).map_err(|what| self.damaged(format!("line {}: {what}", self.events)))
    }

    /// An error that names this file.
    pub(super) fn damaged(&self, what: String) -> ArchiveError {
        ArchiveError::damaged(&self.path, what)
    }

    fn compare(&mut self) -> Result<(), ArchiveError> {
        let file = self.lines.get_mut().get_mut();
        // The decoder ends with its last frame: nothing may follow.
        io::copy(file, &mut io::sink()).map_err(ArchiveError::io("read", &self.path))?;
        let (bytes, blake3) = (
            file.get_ref().bytes,
            file.get_ref().hasher.finalize().to_hex().to_string(),
        );
        compare(&self.path, &self.entry, bytes, &blake3)?;
        if self.events != self.entry.events {
            let what = format!("it has {} events, its manifest says {}", self.events, self.entry.events);
            return Err(self.damaged(what));
        }
        Ok(())
    }
}

/// Reads the file of an entry and compares its length and checksum, not what it holds.
pub(super) fn check(folder: &Path, entry: &FileEntry) -> Result<(), ArchiveError> {
    let path = folder.join(&entry.file);
    let mut file = Digested::new(File::open(&path).map_err(ArchiveError::io("open", &path))?);
    let mut buffer = vec![0; BUFFER_BYTES];
    while file.read(&mut buffer).map_err(ArchiveError::io("read", &path))? > 0 {}
    compare(&path, entry, file.bytes, file.hasher.finalize().to_hex().as_str())
}

fn compare(path: &Path, entry: &FileEntry, bytes: u64, blake3: &str) -> Result<(), ArchiveError> {
    if bytes != entry.bytes {
        let what = format!("it has {bytes} bytes, its manifest says {}", entry.bytes);
        return Err(ArchiveError::damaged(path, what));
    }
    if blake3 != entry.blake3 {
        let what = format!("its checksum is {blake3}, its manifest says {}", entry.blake3);
        return Err(ArchiveError::damaged(path, what));
    }
    Ok(())
}

//! The sink `file`: newline-delimited JSON, appended and synced.
//!
//! - A batch is appended with one write and is delivered once `fsync` has returned: power may fail after that.
//! - What was appended but not synced is cut off again before the next batch, so that the file holds what was
//!   delivered, and the retry is not a double.
//! - A crash can leave a torn last line. It was never acknowledged and is cut off on start.
//! - Its checkpoint is the file's length and identity. Opened with one, what lies beyond it is cut off, since it will be
//!   delivered again: neither a lost nor a doubled line. A file that is shorter, or another one, is reported and not
//!   touched until somebody has moved it away.
//! - The file is locked (advisory): two writers would tear each other's lines.
//! - When the path leads to another file than the one that is open, as after `logrotate`, the new one is opened.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Format, OpenError, Outcome, Sink};
use crate::record::Record;

/// The longest tail without a line feed that is taken for a torn line of ours; a longer one means that the file is
/// something else, and nothing is touched.
const MAX_TORN: u64 = 16 * 1024 * 1024;

/// Appends one line an event to a file.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    format: Format,
    open: Option<Open>,
    lines: Vec<u8>,
}

/// Where the sink stands: which file, and how long it is. Stored as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Checkpoint {
    device: u64,
    inode: u64,
    length: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Length up to which everything is synced.
    synced: u64,
    /// Something failed after the last sync: cut the file back to `synced` before appending.
    dirty: bool,
}

impl FileSink {
    /// A sink that appends to `path`. The file is made if it is not there; its folder has to be.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self { path: path.into(), format, open: None, lines: Vec::new() }
    }

    fn at_path(&self, doing: &str, error: &io::Error) -> String {
        format!("{}: {doing}: {error}", self.path.display())
    }

    /// Compares the file with what it was when its last lines were stored, and gives the length to go on from.
    fn continue_from(&self, checkpoint: &[u8], found: &Metadata) -> Result<u64, OpenError> {
        let path = self.path.display();
        let Ok(stored) = serde_json::from_slice::<Checkpoint>(checkpoint) else {
            return Err(OpenError::Down(format!("{path}: its stored checkpoint cannot be read")));
        };
        let cure = "move it away, and a new one is begun";
        if (found.dev(), found.ino()) != (stored.device, stored.inode) {
            return Err(OpenError::Down(format!("{path}: it is not the file that was written to; {cure}")));
        }
        if found.len() < stored.length {
            let (len, was) = (found.len(), stored.length);
            return Err(OpenError::Down(format!("{path}: it has {len} bytes and had {was}; {cure}")));
        }
        Ok(stored.length)
    }

    fn append(&mut self) -> Result<(), String> {
        if self.open.as_ref().is_some_and(|open| !open.is_still_at(&self.path)) {
            tracing::warn!(path = %self.path.display(), "the file was moved away; a new one is opened");
            self.open = None;
        }
        if self.open.is_none() {
            self.open(None).map_err(|error| error.to_string())?;
        }
        let Some(open) = &mut self.open else {
            return Err(format!("{}: not open", self.path.display()));
        };
        match open.append(&self.lines) {
            Ok(()) => Ok(()),
            Err((doing, error)) => Err(self.at_path(doing, &error)),
        }
    }
}

impl Open {
    fn is_still_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        }
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), (&'static str, io::Error)> {
        if self.dirty {
            let length = self.file.metadata().map_err(|e| ("reading its length", e))?.len();
            // Never longer than it is: that would fill it with zeros.
            self.file.set_len(length.min(self.synced)).map_err(|e| ("cutting off what failed", e))?;
            self.file.sync_all().map_err(|e| ("syncing", e))?;
        }
        self.dirty = true;
        self.file.write_all(lines).map_err(|e| ("appending", e))?;
        self.file.sync_data().map_err(|e| ("syncing", e))?;
        self.synced = self.file.metadata().map_err(|e| ("reading its length", e))?.len();
        self.dirty = false;
        Ok(())
    }
}

impl Sink for FileSink {
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        if self.open.is_some() {
            return Ok(());
        }
        let unusable = |doing: &str, error: io::Error| OpenError::Unusable(self.at_path(doing, &error));
        let options = || OpenOptions::new().read(true).append(true).create(true).clone();
        let is_new = !self.path.exists();
        let mut file = options().open(&self.path).map_err(|e| unusable("opening", e))?;
        if !file.metadata().map_err(|e| unusable("reading its type", e))?.is_file() {
            return Err(OpenError::Unusable(format!("{}: not a regular file", self.path.display())));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = self.path.display();
                return Err(OpenError::Unusable(format!("{path}: another process or sink writes to it")));
            }
            Err(TryLockError::Error(error)) => return Err(unusable("locking", error)),
        }
        let found = file.metadata().map_err(|e| unusable("reading its length", e))?;
        let synced = match checkpoint {
            Some(checkpoint) if !is_new => self.continue_from(checkpoint, &found)?,
            _ => {
                let torn = torn_tail(&mut file).map_err(|e| unusable("reading its end", e))?;
                if torn >= MAX_TORN {
                    let path = self.path.display();
                    let text = format!("{path}: its last {MAX_TORN} bytes hold no line end; not ours?");
                    return Err(OpenError::Unusable(text));
                }
                found.len().saturating_sub(torn)
            }
        };
        let beyond = found.len().saturating_sub(synced);
        if beyond > 0 {
            tracing::warn!(path = %self.path.display(), bytes = beyond, "what was not acknowledged was cut off");
            file.set_len(synced).map_err(|e| unusable("cutting off what was not acknowledged", e))?;
        }
        file.sync_all().map_err(|e| unusable("syncing", e))?;
        sync_folder(&self.path).map_err(|e| unusable("syncing its folder", e))?;
        self.open = Some(Open { file, synced, dirty: false });
        Ok(())
    }

    fn checkpoint(&self) -> Option<Vec<u8>> {
        let open = self.open.as_ref()?;
        let found = open.file.metadata().ok()?;
        let checkpoint = Checkpoint { device: found.dev(), inode: found.ino(), length: open.synced };
        serde_json::to_vec(&checkpoint).ok()
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.lines.clear();
        for record in batch {
            self.format.write_line(record, &mut self.lines);
        }
        match self.append() {
            Ok(()) => Outcome { checkpoint: self.checkpoint(), ..Outcome::delivered(batch.len()) },
            Err(error) => Outcome::retry(batch.len(), &error),
        }
    }

    fn close(&mut self) {
        self.open = None;
    }
}

/// How many bytes follow the last line feed.
fn torn_tail(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut torn = 0_u64;
    let mut block = [0_u8; 8192];
    while end > 0 && torn < MAX_TORN {
        let start = end.saturating_sub(8192);
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let Some(part) = block.get_mut(..len) else { break };
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        match part.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => {
                let after = len.saturating_sub(at).saturating_sub(1);
                return Ok(torn.saturating_add(u64::try_from(after).unwrap_or(u64::MAX)));
            }
            None => torn = torn.saturating_add(u64::try_from(len).unwrap_or(u64::MAX)),
        }
        end = start;
    }
    Ok(torn)
}

/// A new file is durable only once the folder that names it is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

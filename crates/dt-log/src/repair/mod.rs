//! Repairs a log that does not open: finds the problem, proposes steps, and carries them out.
//!
//! Nothing is removed or overwritten. Files that are in the way are renamed to names that end with `.set-aside-N`. Lost
//! segments are replaced by segments without events, which mark the gap, so that sequence numbers are never reused. Then a
//! new segment begins with the known state of the sinks. Each step is durable before the next, and an interrupted repair
//! can be repeated: a file that contains something readable is replaced in one step, or found again under its new name.

mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::plan::NewSegment;
use super::dead;
use super::error::LogError;
use super::sqlite::with_ending;
use super::{StoreId, path_of_dead_letters, segment};
use crate::disk::{Disk, DiskFile, OpenMode, SystemDisk};

/// The suffix of the name of a file that is not complete yet.
const UNFINISHED: &str = "unfinished";

/// A step of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Renames a file.
    Rename {
        /// The path of the file before the step.
        path: PathBuf,
        /// The path of the file after the step.
        to: PathBuf,
        /// Why the file is renamed, in words for the operator.
        why: String,
    },
    /// Replaces a renamed segment by a copy with a new header.
    Restore {
        /// The number of the segment.
        segment: u64,
    },
    /// Replaces lost segments by segments without events.
    StandIn {
        /// The number of the first lost segment.
        first: u64,
        /// The number of the last lost segment.
        last: u64,
        /// The sequence numbers of the first and the last lost event; `None` if no event is lost. Without a last number, the
        /// number of lost events is unknown.
        lost: Option<(i64, Option<i64>)>,
    },
    /// Continues without the oldest segments, which are missing.
    BeginLater {
        /// The number of the first missing segment.
        first: u64,
        /// The number of the last missing segment.
        last: u64,
    },
    /// Moves the cursor of a sink past lost events.
    MoveCursor {
        /// The name of the sink.
        sink: Arc<str>,
        /// The sequence number of the first event that the sink loses.
        first: i64,
        /// The sequence number of the last event that the sink loses.
        last: i64,
    },
    /// Creates a new segment.
    Begin {
        /// The number of the new segment.
        segment: u64,
        /// The sequence number that the next event gets.
        next_seq: i64,
        /// The segment from which the state of the sinks is read; `None` if that of the newest segment is readable.
        state_of: Option<u64>,
    },
    /// Creates a new file for dead letters.
    NewDeadLetters {
        /// The path of the new database.
        path: PathBuf,
        /// The highest id that was ever assigned to a dead letter, as far as known. New dead letters get higher ids.
        above: i64,
        /// The path of the damaged file from which dead letters are copied; `None` if none can be copied.
        saved_from: Option<PathBuf>,
    },
    /// Uses an older copy of the database of dead letters.
    OlderDeadLetters {
        /// The path of the older copy.
        path: PathBuf,
        /// The highest id that the older copy has assigned.
        found: i64,
        /// The highest id that was ever assigned to a dead letter. The dead letters after `found`, up to this id, are lost.
        above: i64,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rename { path, to, why } => {
                write!(f, "rename {} to {}: {why}", path.display(), to.display())
            }
            Self::Restore { segment } => {
                write!(
                    f,
                    "copy segment {segment} back to its name, with a new header: its events are readable"
                )
            }
            Self::StandIn { first, last, lost } => {
                write!(f, "continue without segments {first} to {last}; ")?;
                match lost {
                    None => f.write_str("no event is lost"),
                    Some((from, Some(to))) => write!(f, "events {from} to {to} are lost"),
                    Some((from, None)) => write!(f, "all events in them from {from} on are lost"),
                }
            }
            Self::BeginLater { first, last } => {
                write!(f, "continue without the oldest segments, {first} to {last}")
            }
            Self::MoveCursor { sink, first, last } => {
                write!(
                    f,
                    "sink {sink}: continue after the events {first} to {last}; those that it does not have are lost"
                )
            }
            Self::Begin { segment, next_seq, state_of: None } => {
                write!(f, "create segment {segment}; the next event gets number {next_seq}")
            }
            Self::Begin { segment, next_seq, state_of: Some(of) } => write!(
                f,
                "create segment {segment} with the state of the sinks from segment {of} and later ones; the next event gets number \
                 {next_seq}"
            ),
            Self::NewDeadLetters { path, above, saved_from: None } => {
                write!(f, "create a new {}; its first dead letter gets an id above {above}", path.display())
            }
            Self::NewDeadLetters { path, above, saved_from: Some(from) } => write!(
                f,
                "create a new {}, with the dead letters that are readable in {}; the next one gets an id above {above}",
                path.display(),
                from.display()
            ),
            Self::OlderDeadLetters { path, found, above } => write!(
                f,
                "use this older copy of {}; the dead letters {} to {above} are lost, unless they were removed before",
                path.display(),
                found.saturating_add(1)
            ),
        }
    }
}

/// The result of copying a damaged database of dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// The number of dead letters that were copied.
    pub dead_letters: u64,
    /// The number of ids whose rows could not be read. Some or all of these ids may have no dead letter.
    pub unreadable: u64,
}

/// A proposed repair. The folder stays locked as long as the proposal exists.
#[derive(Debug)]
pub struct Proposal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    store: StoreId,
    /// The lock on the folder, which is held until the proposal is dropped.
    lock: Box<dyn DiskFile>,
    steps: Vec<Step>,
    segments: Vec<NewSegment>,
    /// The number of the newest segment that is kept; `None` if none is. Its writes by a killed process may be only in the page
    /// cache, so the repair syncs the file.
    newest: Option<u64>,
    segment_bytes: u64,
}

impl Proposal {
    /// Inspects the log in a folder that no process uses. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the folder is in use, cannot be read, or contains nothing that the log can continue with.
    pub fn new(folder: &Path) -> Result<Self, LogError> {
        plan::propose(SystemDisk::shared(), folder)
    }

    /// Returns the proposed steps in order; empty if no repair is needed.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Carries out the repair. Returns the result of copying a damaged database of dead letters.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a step fails. The steps before it are done, and the repair can be repeated.
    pub fn carry_out(self) -> Result<Saved, LogError> {
        let newest = self.newest.filter(|_| !self.segments.is_empty());
        if let Some(newest) = newest {
            let path = segment::path(&self.folder, newest);
            let opened = self.disk.open(&path, OpenMode::Write);
            opened
                .and_then(|file| file.sync_data())
                .map_err(|error| LogError::io(path, "syncing", &error))?;
        }
        let write_ahead = with_ending(&path_of_dead_letters(&self.folder), "-wal");
        let renames = self.steps.iter().filter_map(|step| match step {
            Step::Rename { path, to, .. } => Some((path, to)),
            _ => None,
        });
        for (path, to) in renames.clone() {
            let is_restored = self.segments.iter().any(|segment| segment.copy_of.as_ref() == Some(to));
            if is_restored || *path == write_ahead {
                // It stays where the next repair looks for it, until it is replaced or its database is renamed.
                self.create(to, true, |file| self.copy(path, file))?;
            } else {
                self.rename(path, to)?;
            }
        }
        if let Some((path, copy)) = renames.clone().find(|(path, _)| **path == write_ahead) {
            self.replace(path, copy)?;
        }
        for segment in &self.segments {
            let write = |file: &dyn DiskFile| {
                file.set_length(self.segment_bytes)?;
                if let Some(copied) = &segment.copy_of {
                    self.copy(copied, file)?;
                }
                file.write_all_at(&segment.to_bytes(), 0)
            };
            let path = segment::path(&self.folder, segment.header.owner.segment);
            self.create(&path, segment.copy_of.is_some(), write)?;
        }
        let mut saved = Saved::default();
        for step in &self.steps {
            match step {
                Step::NewDeadLetters { path, above, saved_from } => {
                    let unfinished = plan::free_name(&*self.disk, path, UNFINISHED)?;
                    dead::repair::create(&unfinished, self.store.0, *above)?;
                    if let Some(from) = saved_from {
                        saved = dead::repair::salvage(from, &unfinished, *above)?;
                    }
                    self.rename(&unfinished, path)?;
                }
                Step::OlderDeadLetters { path, above, .. } => dead::repair::raise(path, *above)?,
                _ => {}
            }
        }
        if let Some(last) = self.segments.last() {
            let text = format!("{:020}\n", last.header.owner.segment);
            let marked = self.lock.write_all_at(text.as_bytes(), 0).and_then(|()| self.lock.sync_data());
            marked
                .map_err(|error| LogError::io(super::shared::lock_path(&self.folder), "writing", &error))?;
        }
        Ok(saved)
    }

    /// Renames a file to an unused name, durably.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        let failed = |error: std::io::Error| LogError::io(from, "renaming", &error);
        if self.disk.about(to).map_err(failed)?.is_some() {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        self.replace(from, to)
    }

    /// Renames a file to a name that is unused, or whose content has been copied.
    fn replace(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        let renamed = self.disk.rename(from, to).and_then(|()| self.disk.sync_folder(&self.folder));
        renamed.map_err(|error| LogError::io(from, "renaming", &error))
    }

    /// Creates a file under a temporary name, and renames it. A file of the final name is replaced only if its content was
    /// copied.
    fn create(
        &self,
        path: &Path,
        may_replace: bool,
        write: impl FnOnce(&dyn DiskFile) -> std::io::Result<()>,
    ) -> Result<(), LogError> {
        let unfinished = plan::free_name(&*self.disk, path, UNFINISHED)?;
        let file = self.disk.open(&unfinished, OpenMode::CreatePrivate);
        file.and_then(|file| write(&*file).and_then(|()| file.sync_data()))
            .map_err(|error| LogError::io(&*unfinished, "writing", &error))?;
        if may_replace { self.replace(&unfinished, path) } else { self.rename(&unfinished, path) }
    }

    fn copy(&self, from: &Path, to: &dyn DiskFile) -> std::io::Result<()> {
        let (from, mut piece, mut at) = (self.disk.open(from, OpenMode::Read)?, vec![0; 1 << 20], 0_u64);
        loop {
            let read = from.read_at(&mut piece, at)?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            to.write_all_at(bytes, at)?;
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
    }
}

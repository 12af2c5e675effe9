//! The dead letters: deliveries that a sink rejected, or that could not be accepted or read, in the SQLite database `dead.db`. A
//! dead letter is durable before its caller gets an answer.
//!
//! `dead.db` is the only copy of its content. Three tables, `dead`, `expired` and `refused`, have the same columns and
//! share one sequence of ids; the view `letters` is their union. Rows of `dead` (rejected by a sink, unreadable, damaged)
//! are never removed automatically. The other two tables hold copies of requests that DT still keeps or that were never
//! verified; above a size limit the oldest are removed. `sqlite3 DATA/spool/dead.db 'SELECT * FROM letters'` reads them,
//! also while the server runs. A row holds the received body byte for byte, both signature headers, the names of the other
//! headers, and everything needed to restore a rejected record.
//!
//! # Crashes
//!
//! The database is in WAL mode with `synchronous=FULL`: a commit is durable when it returns. On opening, whatever a killed
//! process left in the write-ahead log is written to the database and synced before anything is added, so a dead letter
//! that counts as stored is on the disk. The file contains the id of its store and the highest id that it ever assigned.
//! The log records both, so a missing file, a file of another store, a newer version and an older copy are each a named
//! error with a remedy.
//!
//! # Errors
//!
//! A failed commit fails its own callers only; the next commit reopens the file. Until then the writer tries a write every
//! second, and [`DeadLetters::last_error`] returns the reason. The writer notices before each commit if the open file was
//! removed or replaced.

mod change;
mod error;
mod open;
mod read;
pub(super) mod repair;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use change::Dropped;
pub use error::DeadError;
pub use open::Expect;
pub(super) use open::{highest_id_of_a_store, open_existing};
pub use read::{Count, Filter, ReadOnly};
pub use row::StoredDeadLetter;

use self::change::{Change, Changed};
use self::writer::{Job, WriterShared};
use crate::disk::DiskFile;
use dt_sink::clock::Clock;
use dt_sink::record::DeadLetter;

/// The options for opening the dead letters.
#[derive(Debug, Clone, Copy)]
pub struct DeadOptions {
    /// The size limit of all copies of expired requests, in bytes.
    pub max_expired: u64,
    /// The size limit of all copies of refused requests, in bytes.
    pub max_refused: u64,
    /// The file that the caller expects.
    pub expect: Expect,
}

impl DeadOptions {
    /// Returns options with a limit of 64 MiB for the copies of expired requests, and of 64 MiB for those of refused requests.
    #[must_use]
    pub const fn new(expect: Expect) -> Self {
        Self { max_expired: 64 << 20, max_refused: 64 << 20, expect }
    }
}

/// The open database of dead letters of a store.
#[derive(Debug)]
pub struct DeadLetters {
    shared: Arc<WriterShared>,
    reader: ReadOnly,
    thread: Option<JoinHandle<()>>,
    /// The lock on the folder in mode `direct`; `None` in mode `spool`, where the log holds the lock.
    lock: Option<Box<dyn DiskFile>>,
}

impl DeadLetters {
    /// Opens the file, or creates it if `options.expect` allows it. The folder must exist. An existing file opens on a full
    /// disk too; then [`last_error`](Self::last_error) says so.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file is not the expected one, or cannot be read or created.
    pub fn open(
        path: impl Into<PathBuf>,
        options: DeadOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DeadError> {
        let path = path.into();
        open::prepare(&path, options.expect)?;
        let reader = ReadOnly::open(&path)?;
        let shared = Arc::new(WriterShared::new(path.clone(), options, clock));
        shared.highest_id.store(reader.highest_id()?, Ordering::Release);
        shared.state.lock().counts = reader.counts()?;
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("dead".to_owned()).spawn(move || shared.serve())
        };
        let thread = Some(thread.map_err(|error| DeadError::io(&path, "starting a thread", &error))?);
        // The first reader may have opened the file as immutable.
        let dead_letters = Self { shared, reader: ReadOnly::beside(path), thread, lock: None };
        match dead_letters.change_blocking(Change::Probe) {
            Err(error) if !error.is_passing() => Err(error),
            _ => Ok(dead_letters),
        }
    }

    /// Keeps the lock on the folder as long as the database of dead letters is open.
    pub(super) fn with_lock(mut self, lock: Box<dyn DiskFile>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Stores a dead letter durably. Returns its id, or `None` if it was stored before.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the dead letter is not durable; the delivery must then not be acknowledged.
    pub async fn add(&self, dead_letter: DeadLetter) -> Result<Option<i64>, DeadError> {
        self.change(Change::Add(vec![dead_letter])).await.map(|changed| changed.ids().pop().flatten())
    }

    /// Stores dead letters durably, either all or none. Returns their ids, `None` for each that was stored before; if a sink
    /// rejects the same record again, its attempts are added up. Blocks: not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the dead letters are not durable; the cursor must then not advance past them.
    pub fn add_blocking(&self, dead_letters: Vec<DeadLetter>) -> Result<Vec<Option<i64>>, DeadError> {
        self.change_blocking(Change::Add(dead_letters)).map(Changed::ids)
    }

    /// Removes dead letters by id. Returns the number of removed ones. Blocks: not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the dead letters could not be removed.
    pub fn remove_blocking(&self, ids: Vec<i64>) -> Result<u64, DeadError> {
        self.change_blocking(Change::Remove(ids)).map(|changed| changed.rows())
    }

    /// Records that the replay of a dead letter failed with `error`. Returns whether a dead letter with this id exists. Blocks:
    /// not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the change cannot be stored.
    pub fn still_dead_blocking(&self, id: i64, error: String) -> Result<bool, DeadError> {
        self.change_blocking(Change::StillDead { id, error }).map(|changed| changed.rows() > 0)
    }

    /// Returns up to `limit` dead letters with an id above `after`; see [`ReadOnly::list`]. Blocks while it reads the file:
    /// not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the dead letters cannot be read.
    pub fn list(
        &self,
        filter: &Filter,
        after: i64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<StoredDeadLetter>, DeadError> {
        self.reader.list(filter, after, limit, with_bodies)
    }

    /// Checks the content of the database. Returns the findings; empty if there are none. Reads the whole file: not for async
    /// code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file is unreadable.
    pub fn check(&self) -> Result<Vec<String>, DeadError> {
        self.reader.check()
    }

    /// Returns the number and the size of the dead letters of each reason.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        self.shared.state.lock().counts.clone()
    }

    /// Returns the approximate size of all dead letters, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.state.lock().counts.iter().map(|count| count.bytes).sum()
    }

    /// Returns the highest id that this store has ever assigned to a dead letter, including removed ones; 0 if it has assigned
    /// none.
    #[must_use]
    pub fn highest_id(&self) -> i64 {
        self.shared.highest_id.load(Ordering::Acquire)
    }

    /// Returns the highest sequence number of the records of the dead letters with an id above `after`; 0 if none of them has
    /// one.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file cannot be read.
    pub(super) fn highest_seq(&self, after: i64) -> Result<i64, DeadError> {
        // A connection that stays open would keep SQLite from removing the write-ahead log on close.
        ReadOnly::beside(self.path().to_owned()).highest_seq(after)
    }

    /// Returns the numbers of copies that were removed since the start to stay within the size limits.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.shared.state.lock().dropped
    }

    /// Returns why the last write failed; `None` if it succeeded, or there was none.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.state.lock().last_error.clone()
    }

    /// Returns the path of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    async fn change(&self, change: Change) -> Result<Changed, DeadError> {
        let (reply, answer) = oneshot::channel();
        let reply = Box::new(move |changed| {
            let _gone = reply.send(changed);
        });
        self.shared.submit(Job { change, reply });
        answer.await.map_err(|_| DeadError::Closed)?
    }

    fn change_blocking(&self, change: Change) -> Result<Changed, DeadError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let reply = Box::new(move |changed| {
            let _gone = reply.send(changed);
        });
        self.shared.submit(Job { change, reply });
        answer.recv().map_err(|_| DeadError::Closed)?
    }
}

impl Drop for DeadLetters {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Changed {
    fn ids(self) -> Vec<Option<i64>> {
        match self {
            Self::Added(ids) => ids,
            Self::Rows(_) => Vec::new(),
        }
    }

    const fn rows(&self) -> u64 {
        match self {
            Self::Added(_) => 0,
            Self::Rows(rows) => *rows,
        }
    }
}

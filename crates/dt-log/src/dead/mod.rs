//! Dead letters: deliveries that were set aside, in the SQLite database `dead.db`, each durable before its caller knows.
//!
//! `dead.db` is not an index: nothing else holds what it holds. Three tables, `dead`, `expired` and `refused`, have the same
//! columns and share one sequence of ids; the view `letters` has them all. `dead` (rejected by a sink, unreadable, damaged) is
//! never shortened. The other two hold copies that DT still has, or that nobody verified: beyond a number of bytes the oldest
//! go. `sqlite3 DATA/spool/dead.db 'SELECT * FROM letters'` reads them, beside a running server too. A row has the received
//! body byte for byte, both signature headers, the names of the other headers, and all that makes a rejected record again.
//!
//! # Crashes
//!
//! The database is in WAL mode with `synchronous=FULL`: a commit is durable when it returns. What a killed process left in the
//! write-ahead log is written to the database and synced before anything is added, so that a letter that "is there already" is
//! on the disk. The file carries the id of its store and the highest id that it ever gave. The log knows both, so a file that
//! is missing, another store's, of a newer version or an older copy is an error with a name and a remedy.
//!
//! # Errors
//!
//! A failed commit fails its callers, and no one else: the next commit opens the file anew. Meanwhile the writer tries a write
//! each second, and [`DeadLetters::trouble`] says what is wrong. A file that was removed or replaced while it is open is
//! noticed before the next commit.

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
pub use row::StoredLetter;

use self::change::{Change, Changed};
use self::writer::{Job, Shared};
use crate::disk::DiskFile;
use dt_sink::clock::Clock;
use dt_sink::record::DeadLetter;

/// What the dead letters are made for.
#[derive(Debug, Clone, Copy)]
pub struct DeadOptions {
    /// How many bytes of copies of expired requests are kept.
    pub max_expired: u64,
    /// How many bytes of copies of refused requests are kept.
    pub max_refused: u64,
    /// What is known of the file.
    pub expect: Expect,
}

impl DeadOptions {
    /// 64 MiB of copies each.
    #[must_use]
    pub const fn new(expect: Expect) -> Self {
        Self { max_expired: 64 << 20, max_refused: 64 << 20, expect }
    }
}

/// The dead letters of a store.
#[derive(Debug)]
pub struct DeadLetters {
    shared: Arc<Shared>,
    reader: ReadOnly,
    thread: Option<JoinHandle<()>>,
    /// The folder's lock, where no log has it.
    lock: Option<Box<dyn DiskFile>>,
}

impl DeadLetters {
    /// Opens the file, or makes it where that is expected. The folder exists. Where the disk is full, an existing file is opened
    /// all the same; then [`trouble`](Self::trouble) says so.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when the file is not what is expected, or cannot be read or made.
    pub fn open(
        path: impl Into<PathBuf>,
        options: DeadOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DeadError> {
        let path = path.into();
        open::prepare(&path, options.expect)?;
        let reader = ReadOnly::open(&path)?;
        let shared = Arc::new(Shared::new(path.clone(), options, clock));
        shared.highest_id.store(reader.highest_id()?, Ordering::Release);
        shared.state.lock().counts = reader.counts()?;
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("dead".to_owned()).spawn(move || shared.serve())
        };
        let thread = Some(thread.map_err(|error| DeadError::io(&path, "starting a thread", &error))?);
        // The reader above may have been told that nothing changes.
        let letters = Self { shared, reader: ReadOnly::beside(path), thread, lock: None };
        match letters.change_blocking(Change::Probe) {
            Err(error) if !error.is_passing() => Err(error),
            _ => Ok(letters),
        }
    }

    /// Keeps the folder's lock for as long as the letters are open.
    pub(super) fn with_lock(mut self, lock: Box<dyn DiskFile>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Stores a letter; durable when it returns. Returns its id, or `None` where it is there already.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when it is not durable; the delivery must not be acknowledged then.
    pub async fn add(&self, letter: DeadLetter) -> Result<Option<i64>, DeadError> {
        self.change(Change::Add(vec![letter])).await.map(|changed| changed.ids().pop().flatten())
    }

    /// Stores letters, all or none; durable when it returns. Returns their ids, `None` for one that is there already: of a
    /// record that a sink rejects again, the attempts are added up. Not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when they are not durable; the cursor must not pass them then.
    pub fn add_blocking(&self, letters: Vec<DeadLetter>) -> Result<Vec<Option<i64>>, DeadError> {
        self.change_blocking(Change::Add(letters)).map(Changed::ids)
    }

    /// Removes letters. Returns how many there were. Not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when they are still there.
    pub fn remove_blocking(&self, ids: Vec<i64>) -> Result<u64, DeadError> {
        self.change_blocking(Change::Remove(ids)).map(|changed| changed.rows())
    }

    /// Notes that a replay of a letter failed. Returns whether there is such a letter. Not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when that cannot be stored.
    pub fn still_dead_blocking(&self, id: i64, error: String) -> Result<bool, DeadError> {
        self.change_blocking(Change::StillDead { id, error }).map(|changed| changed.rows() > 0)
    }

    /// Up to `limit` letters with an id over `after`; see [`ReadOnly::list`]. Reads the file: not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when they cannot be read.
    pub fn list(
        &self,
        filter: &Filter,
        after: i64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<StoredLetter>, DeadError> {
        self.reader.list(filter, after, limit, with_bodies)
    }

    /// What is wrong with the content; empty when nothing is. Reads the whole file: not for async code.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when it cannot be read at all.
    pub fn check(&self) -> Result<Vec<String>, DeadError> {
        self.reader.check()
    }

    /// How many letters there are, for each reason.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        self.shared.state.lock().counts.clone()
    }

    /// How many bytes the letters take, about.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.state.lock().counts.iter().map(|count| count.bytes).sum()
    }

    /// The highest id that a letter ever got; 0 for none.
    #[must_use]
    pub fn highest_id(&self) -> i64 {
        self.shared.highest_id.load(Ordering::Acquire)
    }

    /// The highest sequence number of a record among the letters with an id over `after`; 0 for none.
    ///
    /// # Errors
    ///
    /// [`DeadError`] when it cannot be read.
    pub(super) fn highest_seq(&self, after: i64) -> Result<i64, DeadError> {
        // A connection that stays open would have the write-ahead log stay when the file is closed.
        ReadOnly::beside(self.path().to_owned()).highest_seq(after)
    }

    /// How many copies had to go since the start.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.shared.state.lock().dropped
    }

    /// Why the last write failed; `None` once one has succeeded again.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.state.lock().trouble.clone()
    }

    /// Where the letters are.
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

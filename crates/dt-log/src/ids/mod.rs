//! The dedup index: which events were accepted within the window. It can be thrown away: the log rebuilds it.
//!
//! A caller holds the keys of the newest events in memory until [`Ids::store`] has made them durable, many at a time. So a
//! look-up asks, **in this order**: the caller's own keys, then [`Ids::may_contain`], and only where that says `true` the
//! file, with [`Ids::is_stored`]. In the other order a key that is stored in between would be missed.
//!
//! # Format
//!
//! `ids.db` is a SQLite database; the module `table` has its tables. Keys are kept by period: six hours, or a twelfth of
//! [`max_ids`](IdsOptions::max_ids), whichever ends first. A period goes as a whole, once all its keys are older than the
//! window, or as the oldest of too many. Each period has a Bloom filter in memory at 15 bits a key: of 12 full periods, 0.9 %
//! of unknown keys are looked for in the file. The filter of the period that is being filled grows with it; that of a closed
//! period is stored.
//!
//! # Crashes
//!
//! The database has a rollback journal, not a write-ahead log: pages are appended, so hardly anything has to be saved from
//! being overwritten, a start needs no free space, and nothing waits for a checkpoint. With `synchronous=EXTRA`:
//!
//! | interrupted | next start |
//! |---|---|
//! | in `store` | the call is undone, [`stored_up_to`](Ids::stored_up_to) says so: the log stores these ids again |
//! | after `store` | all of it is there, after a power loss too |
//! | while the file is made, or renamed | a new file is made; the log is told that nothing is stored |
//!
//! A file that is damaged, another store's, of another version, or no database is renamed to `ids.db.damaged-SECONDS`, and
//! a new one is made. Pages and filters have a checksum; a page that fails it is [`IdsError::Damaged`], a filter is built
//! again from its pages.

mod error;
mod filter;
mod key;
mod lookup;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use error::IdsError;
pub use key::Key;

use self::filter::Filter;
use self::lookup::Lookup;

/// What a dedup index is made for.
#[derive(Debug, Clone)]
pub struct IdsOptions {
    /// The id of the store that it belongs to.
    pub store_id: [u8; 16],
    /// How long an id is kept at least, in milliseconds, unless there are too many.
    pub window: i64,
    /// How many ids are kept at most.
    pub max_ids: u64,
}

/// An index that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub ids: Ids,
    /// Why a new file was made, if one was: then the ids of the retained log have to be stored again.
    pub rebuilt: Option<Rebuilt>,
}

/// Why a new file was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Stable name: `missing`, `damaged`, `other_store`, `other_version` or `not_ours`.
    pub code: &'static str,
    /// What was found, in words.
    pub text: String,
    /// What the old file is called now.
    pub renamed_to: Option<PathBuf>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdsStats {
    /// How often [`Ids::may_contain`] was asked.
    pub lookups: u64,
    /// How often it said that the file has to be asked.
    pub filter_hits: u64,
    /// How often the file was asked.
    pub file_reads: u64,
}

/// The dedup index.
#[derive(Debug)]
pub struct Ids {
    shared: Arc<Shared>,
    lookups: Option<mpsc::Sender<Lookup>>,
    thread: Option<JoinHandle<()>>,
}

/// What the callers and the look-up thread have in common.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: IdsOptions,
    /// Oldest first. Changed only by who holds `writer`.
    periods: RwLock<Vec<Period>>,
    /// The connection that writes.
    writer: Mutex<Slot>,
    /// The connection of look-ups.
    reader: Mutex<Slot>,
    closing: AtomicBool,
    stored_up_to: AtomicI64,
    count: AtomicU64,
    lookups: AtomicU64,
    filter_hits: AtomicU64,
    file_reads: AtomicU64,
}

/// A connection, open while it is of use.
#[derive(Debug)]
struct Slot {
    /// `None` until it is needed, and after an error.
    connection: Option<Connection>,
    /// How many pages it keeps, in KiB.
    cache_kib: i64,
}

/// A period as it is known in memory.
#[derive(Debug, Clone)]
struct Period {
    id: i64,
    /// `None` until it is loaded: then any key may be in it.
    filter: Option<Arc<Filter>>,
}

impl Ids {
    /// Opens the index, and makes a new one where there is none that can be used. Filters load in the background. `now`, in
    /// Unix milliseconds, becomes part of the name of a file that is renamed.
    ///
    /// # Errors
    ///
    /// [`IdsError`] when the disk does not allow to read, rename or make the file.
    pub fn open(path: impl Into<PathBuf>, options: IdsOptions, now: i64) -> Result<Opened, IdsError> {
        let shared = Arc::new(Shared {
            path: path.into(),
            options,
            periods: RwLock::default(),
            writer: Mutex::new(Slot { connection: None, cache_kib: store::WRITER_CACHE_KIB }),
            reader: Mutex::new(Slot { connection: None, cache_kib: lookup::READER_CACHE_KIB }),
            closing: AtomicBool::new(false),
            stored_up_to: AtomicI64::new(0),
            count: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
            filter_hits: AtomicU64::new(0),
            file_reads: AtomicU64::new(0),
        });
        let rebuilt = shared.open(now)?;
        let (lookups, receiver) = mpsc::channel();
        let thread = {
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new().name("ids".to_owned());
            spawned.spawn(move || shared.serve(&receiver))
        };
        let thread = thread.map_err(|error| IdsError::failed(&shared.path, "starting a thread", &error))?;
        Ok(Opened { ids: Self { shared, lookups: Some(lookups), thread: Some(thread) }, rebuilt })
    }

    /// Stores the keys of all events up to a sequence number; durable when it returns. Best with some 65,536 keys. After an
    /// error nothing is stored, and the call may be repeated. `now` in Unix milliseconds: the newest event's time.
    ///
    /// # Errors
    ///
    /// [`IdsError::Damaged`] when the index has to be [`reset`](Self::reset); others pass.
    pub fn store(&self, keys: &[Key], up_to_seq: i64, now: i64) -> Result<(), IdsError> {
        self.shared.store(keys, up_to_seq, now)
    }

    /// Whether a key may be stored. `false` is certain, and costs no look at the file.
    #[must_use]
    pub fn may_contain(&self, key: Key) -> bool {
        let may = {
            let periods = self.shared.periods.read();
            periods.iter().rev().any(|period| period.may_contain(key))
        };
        self.shared.lookups.fetch_add(1, Ordering::Relaxed);
        if may {
            self.shared.filter_hits.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Asks the file whether a key is stored.
    ///
    /// # Errors
    ///
    /// [`IdsError::Damaged`] when the index has to be [`reset`](Self::reset); others pass.
    pub fn contains(&self, key: Key) -> Result<bool, IdsError> {
        self.shared.contains(key)
    }

    /// The same on the index's own thread. Right after the start, this waits until the filters are loaded.
    ///
    /// # Errors
    ///
    /// As [`contains`](Self::contains).
    pub async fn is_stored(&self, key: Key) -> Result<bool, IdsError> {
        let (reply, answer) = oneshot::channel();
        let lookups = self.lookups.as_ref().ok_or(IdsError::Closed)?;
        lookups.send(Lookup { key, reply }).map_err(|_| IdsError::Closed)?;
        answer.await.map_err(|_| IdsError::Closed)?
    }

    /// Renames the file to `ids.db.damaged-SECONDS` and makes a new one. Returns the name.
    ///
    /// # Errors
    ///
    /// [`IdsError`] when the disk does not allow it.
    pub fn reset(&self, now: i64) -> Result<Option<PathBuf>, IdsError> {
        self.shared.reset(now)
    }

    /// Forgets all ids.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    pub fn forget_all(&self) -> Result<(), IdsError> {
        self.shared.forget_all()
    }

    /// The ids of all events up to this sequence number are stored, whatever happens to the machine.
    #[must_use]
    pub fn stored_up_to(&self) -> i64 {
        self.shared.stored_up_to.load(Ordering::Acquire)
    }

    /// How many ids are stored.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// The length of the file in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        std::fs::metadata(&self.shared.path).map_or(0, |found| found.len())
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> IdsStats {
        IdsStats {
            lookups: self.shared.lookups.load(Ordering::Relaxed),
            filter_hits: self.shared.filter_hits.load(Ordering::Relaxed),
            file_reads: self.shared.file_reads.load(Ordering::Relaxed),
        }
    }

    /// Whether all filters are loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.shared.periods.read().iter().all(|period| period.filter.is_some())
    }

    /// Where the index is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // The thread ends with its queue.
        self.lookups = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Period {
    fn may_contain(&self, key: Key) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(key))
    }
}

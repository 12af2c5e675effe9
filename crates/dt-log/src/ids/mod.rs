//! The dedup index: the events that were accepted within the window. It can be deleted: the log rebuilds it.
//!
//! A caller keeps the keys of the newest events in memory until [`Ids::store`] has made them durable, many at a time. So a
//! look-up checks, **in this order**: the caller's own keys, then [`Ids::may_contain`], and only if that returns `true` the
//! file, with [`Ids::is_stored`]. In the other order a key that is stored in between would be missed.
//!
//! # Format
//!
//! `ids.db` is a SQLite database; the module `table` defines its tables. Keys are grouped by period: a twelfth of
//! the window, but at least six hours, or a twelfth of [`max_ids`](IdsOptions::max_ids), whichever ends first. A period is removed as a whole once all its keys are
//! older than the window, or as the oldest if there are too many ids. Each period has a Bloom filter in memory with 15 bits
//! a key: with 12 full periods, 0.9 % of unknown keys are looked up in the file. The filter of the current period grows
//! with it; the filter of a closed period is stored.
//!
//! # Crashes
//!
//! The database has a rollback journal, not a write-ahead log: pages are only appended, so the journal stays small, a start
//! needs no free space, and there is no checkpoint to wait for. With `synchronous=EXTRA`:
//!
//! | interrupted | next start |
//! |---|---|
//! | in `store` | the call is undone, as [`stored_up_to`](Ids::stored_up_to) shows: the log stores these ids again |
//! | after `store` | everything is stored, also after a power loss |
//! | while the file is replaced | the old one is replaced again, or a new file is created; `stored_up_to` is 0 |
//!
//! A file that is damaged, of another store, of another version, or no database is renamed to `ids.db.damaged-SECONDS`, and
//! a new one is created. The newest three of these files are kept, and every file that cannot be recognised as an index of
//! this store. Pages and filters have a checksum; a damaged page is [`IdsError::Damaged`], a damaged filter is
//! rebuilt from its pages. Any call notes damage ([`Ids::damage`]), and that the file was moved; the log then resets the
//! index, and stores the ids of the retained events segment by segment, while it accepts events.
//!
//! A new file is made under another name, `ids.db.unfinished`, and renamed; if that is interrupted, the next start does it
//! again.

mod check;
mod error;
mod filter;
mod key;
mod lookup;
mod replaced;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::oneshot;

pub(super) use check::{check, complete_since};
pub use error::IdsError;
pub use key::Key;
pub(super) use store::RECEIPT_SPREAD;

use self::filter::BloomFilter;
use self::lookup::Lookup;

/// The value of [`IndexShared::complete_since`] if it is unknown. Any time is later.
const UNKNOWN: i64 = i64::MIN;

/// The options of a dedup index.
#[derive(Debug, Clone)]
pub struct IdsOptions {
    /// The id of the store that the index belongs to.
    pub store_id: [u8; 16],
    /// The shortest time for which an id is kept, in milliseconds, unless there are more than `max_ids`.
    pub window: i64,
    /// The largest number of ids in the index. Beyond it, the oldest are removed before the end of the window.
    pub max_ids: u64,
}

/// A dedup index that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub ids: Ids,
    /// Why a new file was created; `None` if the old one is used. The ids of the retained log must then be stored again.
    pub rebuilt: Option<Rebuilt>,
}

/// Why a new file was created. `Display` writes the reason and its consequence, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// A stable code: `missing`, `damaged`, `other_store`, `other_version`, `newer_than_log` or `not_ours`.
    pub code: &'static str,
    /// Why a new file was created, in words for the operator.
    pub text: String,
    /// The new path of the old file; `None` if there was none.
    pub renamed_to: Option<PathBuf>,
}

impl fmt::Display for Rebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ids.db: {}", self.text)?;
        if let Some(renamed_to) = &self.renamed_to {
            write!(f, " (now {})", renamed_to.display())?;
        }
        f.write_str(
            "; it is rebuilt from the retained events, and copies of earlier events are accepted as new",
        )
    }
}

/// The counters of a dedup index since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdsStats {
    /// The number of calls of [`Ids::may_contain`].
    pub lookups: u64,
    /// The number of calls of [`Ids::may_contain`] that returned `true`.
    pub filter_hits: u64,
    /// The number of look-ups that read the file, since the filter could not decide them.
    pub file_reads: u64,
}

/// The dedup index: the ids of accepted events, by which later copies are recognised.
#[derive(Debug)]
pub struct Ids {
    shared: Arc<IndexShared>,
    lookups: Option<mpsc::Sender<Lookup>>,
    thread: Option<JoinHandle<()>>,
}

/// The state that callers share with the look-up thread.
#[derive(Debug)]
struct IndexShared {
    path: PathBuf,
    options: IdsOptions,
    /// The periods, oldest first. Changing them requires the lock on `writer`.
    periods: RwLock<Vec<Period>>,
    /// The connection through which ids are stored and removed.
    writer: Mutex<LazyConnection>,
    /// The connection through which ids are looked up.
    reader: Mutex<LazyConnection>,
    closing: AtomicBool,
    /// The first damage that was found; `None` once the file is replaced.
    damage: Mutex<Option<IdsError>>,
    stored_up_to: AtomicI64,
    /// The time of receipt since which no id is missing, in Unix milliseconds; [`UNKNOWN`] if it is unknown.
    complete_since: AtomicI64,
    count: AtomicU64,
    lookups: AtomicU64,
    filter_hits: AtomicU64,
    file_reads: AtomicU64,
}

/// A connection that is opened when it is needed.
#[derive(Debug)]
struct LazyConnection {
    /// The connection; `None` until the first use, and after an error.
    connection: Option<Connection>,
    /// The size of SQLite's page cache for this connection, in KiB.
    cache_kib: i64,
}

/// A period of the index, as kept in memory.
#[derive(Debug, Clone)]
struct Period {
    id: i64,
    /// The filter of the period; `None` until it is loaded. Without a filter, any key may be in the period.
    filter: Option<Arc<BloomFilter>>,
}

impl Ids {
    /// Opens the index, or creates a new one if the file cannot be used. Filters are loaded in the background. `last_seq` is
    /// the last sequence number of the log. `now`, in Unix milliseconds, becomes part of the name of a renamed file.
    ///
    /// # Errors
    ///
    /// [`IdsError`] if the file cannot be read, renamed or created.
    pub fn open(
        path: impl Into<PathBuf>,
        options: IdsOptions,
        last_seq: i64,
        now: i64,
    ) -> Result<Opened, IdsError> {
        let shared = Arc::new(IndexShared::new(path.into(), options));
        let rebuilt = shared.open(last_seq, now)?;
        let (lookups, receiver) = mpsc::channel();
        let thread = {
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new().name("ids".to_owned());
            spawned.spawn(move || shared.serve(&receiver))
        };
        let thread = thread.map_err(|error| IdsError::failed(&shared.path, "starting a thread", &error))?;
        Ok(Opened { ids: Self { shared, lookups: Some(lookups), thread: Some(thread) }, rebuilt })
    }

    /// Stores the keys of all events up to a sequence number durably. A call with about 65,536 keys is most efficient. After an
    /// error nothing is stored, and the call may be repeated. `now` is the time of the newest event, in Unix milliseconds.
    ///
    /// # Errors
    ///
    /// [`IdsError::Damaged`] if the index must be [`reset`](Self::reset); a retry can succeed after any other error.
    pub fn store(&self, keys: &[Key], up_to_seq: i64, now: i64) -> Result<(), IdsError> {
        self.shared.store(keys, up_to_seq, now)
    }

    /// Returns whether a key may be stored. If the result is `false`, the key is certainly not stored. Does not read the file.
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

    /// Returns whether a key is stored, by reading the file.
    ///
    /// # Errors
    ///
    /// [`IdsError::Damaged`] if the index must be [`reset`](Self::reset); a retry can succeed after any other error.
    pub fn contains(&self, key: Key) -> Result<bool, IdsError> {
        self.shared.contains(key)
    }

    /// Returns whether a key is stored, by reading the file on the index's own thread. After a start, the call waits until the
    /// filters are loaded.
    ///
    /// # Errors
    ///
    /// As for [`contains`](Self::contains); also [`IdsError::Closed`].
    pub async fn is_stored(&self, key: Key) -> Result<bool, IdsError> {
        let (reply, answer) = oneshot::channel();
        let lookups = self.lookups.as_ref().ok_or(IdsError::Closed)?;
        lookups.send(Lookup { key, reply }).map_err(|_| IdsError::Closed)?;
        answer.await.map_err(|_| IdsError::Closed)?
    }

    /// Renames the file to `ids.db.damaged-SECONDS`, and creates a new one. `now` is in Unix milliseconds.
    ///
    /// # Errors
    ///
    /// [`IdsError`] if the file cannot be renamed or created.
    pub fn reset(&self, now: i64) -> Result<Rebuilt, IdsError> {
        self.shared.reset(now)
    }

    /// Returns the damage that a call found, which requires a [`reset`](Self::reset); `None` if there is none.
    #[must_use]
    pub fn damage(&self) -> Option<IdsError> {
        self.shared.damage.lock().clone()
    }

    /// Returns the sequence number up to which the ids of all events are stored durably.
    #[must_use]
    pub fn stored_up_to(&self) -> i64 {
        self.shared.stored_up_to.load(Ordering::Acquire)
    }

    /// Returns the time since which no id is missing, in Unix milliseconds: the index has the id of every event that was received
    /// at or after it, up to the sequence number [`stored_up_to`](Self::stored_up_to). `None` if it is unknown, as for a new file
    /// until [`set_complete_since`](Self::set_complete_since).
    #[must_use]
    pub fn complete_since(&self) -> Option<i64> {
        Some(self.shared.complete_since.load(Ordering::Acquire)).filter(|since| *since != UNKNOWN)
    }

    /// Sets the time since which no id is missing, in Unix milliseconds, unless it is later already. Call it before ids are stored
    /// in a new file, with the time since which the log has all events; and if ids were lost, with the time since which none
    /// is. The next call of [`store`](Self::store) makes it durable.
    pub fn set_complete_since(&self, since: i64) {
        self.shared.complete_since.fetch_max(since, Ordering::AcqRel);
    }

    /// Returns the number of ids in the index.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Returns the length of the file in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        std::fs::metadata(&self.shared.path).map_or(0, |found| found.len())
    }

    /// Returns the counters since the start.
    #[must_use]
    pub fn stats(&self) -> IdsStats {
        IdsStats {
            lookups: self.shared.lookups.load(Ordering::Relaxed),
            filter_hits: self.shared.filter_hits.load(Ordering::Relaxed),
            file_reads: self.shared.file_reads.load(Ordering::Relaxed),
        }
    }

    /// Returns whether all filters are loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.shared.periods.read().iter().all(|period| period.filter.is_some())
    }

    /// Returns the path of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // Closing the queue ends the thread.
        self.lookups = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl IndexShared {
    fn new(path: PathBuf, options: IdsOptions) -> Self {
        Self {
            path,
            options,
            periods: RwLock::default(),
            writer: Mutex::new(LazyConnection { connection: None, cache_kib: store::WRITER_CACHE_KIB }),
            reader: Mutex::new(LazyConnection { connection: None, cache_kib: lookup::READER_CACHE_KIB }),
            closing: AtomicBool::new(false),
            damage: Mutex::default(),
            stored_up_to: AtomicI64::new(0),
            complete_since: AtomicI64::new(UNKNOWN),
            count: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
            filter_hits: AtomicU64::new(0),
            file_reads: AtomicU64::new(0),
        }
    }
}

impl Period {
    fn may_contain(&self, key: Key) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(key))
    }
}

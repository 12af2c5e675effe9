//! The log: stores every accepted event on disk before it is answered 200, and keeps it until every sink has received it.
//!
//! # Format (version 2)
//!
//! One process uses the folder, and locks `spool.lock` while the log is open. Version 1 was a SQLite database and was never
//! released.
//!
//! | file | content |
//! |---|---|
//! | `segment-NUMBER.log` | a segment: a header, then groups of frames (`segment.rs`, `group.rs`, `frame.rs`). The numbers have no gaps |
//! | `spare-NUMBER.tmp` | a future segment: zeros, or a segment that is no longer needed |
//! | `spool.lock` | the lock file; it contains the number of the newest segment |
//! | `dead.db` | the dead letters ([`dead`]) |
//! | `ids.db` | the index of event ids ([`ids`]), which can be rebuilt |
//!
//! Segments have 16 MiB. They are filled with zeros and synced before use, so a later sync writes only data. Each begins
//! with a snapshot of the state beside the events: the sinks with their cursors and checkpoints, and the oldest segment
//! that is needed. So a start reads only the newest segment and its frames.
//!
//! Sequence numbers of events grow by one. The header of a segment contains the number of its first event, and makes that
//! number and all later ones in older segments void.
//!
//! They start with 1. `i64::MIN` and `i64::MAX` stand for positions before and after all events, and arithmetic on positions
//! saturates there. The code that assigns numbers checks for overflow ([`LogError::Exhausted`]).
//!
//! # How an event is stored
//!
//! [`Log::append`] looks for a copy among the events that are not in the index yet, then in the filters of the index, and
//! only on a match in the index file. Then the event waits for the writer's thread (`writer/mod.rs`), which writes
//! everything that waits as one group with one write and one sync, publishes it to the workers (`tail.rs`), and answers. A
//! cursor is written with the next group, or alone after 50 ms. A group is written only after the one before it was synced.
//! After 50 ms without a group an empty one follows, which proves that the last one was durable. The maintenance thread
//! (`maintenance.rs`) does everything else: the index, spares, old segments.
//!
//! # Limits
//!
//! - `max_size`: the size of segments, spares and dead letters, without the index (about 30 bytes an id).
//! - `min_free`: the free space on the disk that a new segment must leave.
//! - There are two spares. If no further one can be created, events are refused, and the last spare is reserved for cursors
//!   and changes.
//! - To make room, only events are removed that every sink has: they may be removed before the end of `retain`. One sink can be
//!   excepted ([`LogOptions::gives_way`]): events that only it lacks are removed as well, and it continues after them.
//!
//! # What happens on a crash
//!
//! | the process dies, or power fails | state after the restart |
//! |---|---|
//! | before a group is written | nothing of it; no caller was answered |
//! | before its sync has returned | all of it or nothing; no caller was answered. A part of it is reported as "possibly acknowledged", and stays where it is |
//! | after its sync | the group |
//! | while a segment is created | the old one or the new one. The new one gets its name only after its header, its snapshot and the recovered group are synced, because it makes the place of that group void |
//! | while segments are removed | those below the oldest one that is needed are leftovers, and are removed by the next start |
//!
//! The end of the log need not be synced at a start: a killed process leaves it in the page cache. So the last group is
//! copied to a new segment and synced before anything is delivered or answered as `duplicate`. A process appends only to
//! segments that it created itself.
//!
//! # Damage
//!
//! An unreadable group before a readable one is damage: when a worker reaches it, its events become dead letters of the
//! reason `damaged`, with whatever is left of them; later events are delivered. A folder with missing files, or files of
//! another store, does not open ([`LogError`]). After a failed write or sync the group is written to a new segment; if that
//! fails too, events are refused, and the write is tried again every second. [`repair`] makes such a folder open again: it
//! renames files that are in the way, and writes segments in place of lost ones. It removes nothing.

mod append;
pub mod dead;
pub mod disk;
mod error;
mod frame;
mod group;
pub mod ids;
mod maintenance;
mod open;
mod reader;
mod recall;
mod remedy;
pub mod repair;
mod segment;
mod shared;
mod source;
pub mod sqlite;
mod state;
#[doc(hidden)]
pub mod sync;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::LogError;
pub use frame::{SinkNumber, SinkSet};
pub use open::is_without_log;
pub use reader::{ConnectorUse, EventEntry, Reader, SinkStatus, Status};
pub use shared::FILE_NAMES;
pub use source::{Source, StoredEvent};
pub use state::SinkState;
pub use tail::Tail;

use self::shared::{Change, CursorUpdate, Shared};
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, oneshot};

/// The length of a segment's file in bytes.
const SEGMENT_BYTES: u64 = 16 << 20;
/// The approximate size of an event in a group in bytes, without its body.
const EVENT_BYTES: usize = 512;
/// The ticket of the recovered events: they are durable once `durable_ticket` has reached it.
const RECOVERED_TICKET: u64 = 1;

/// The id of a store. It distinguishes the files of this store from those of another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    /// Returns a new, unique id. It is not secret.
    fn random() -> Self {
        let random = || RandomState::new().hash_one(std::process::id()).to_le_bytes();
        let mut store = [0; 16];
        for (place, byte) in store.iter_mut().zip(random().into_iter().chain(random())) {
            *place = byte;
        }
        Self(store)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The event is stored, with this sequence number.
    New(i64),
    /// An event with the same id was stored before.
    Duplicate,
}

/// The first event that a new sink receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The next event that is accepted.
    Now,
    /// The oldest event that is still retained.
    Retained,
}

/// The limits that can be changed while the log is open.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The size limit of segments, spares and dead letters together, in bytes.
    pub max_size: u64,
    /// The free space on the disk that a new segment must leave, in bytes.
    pub min_free: u64,
    /// How long events are kept after they were received, even if every sink has them, while there is room for them; with
    /// [`Duration::MAX`] also without room. Undelivered events are always kept.
    pub retain: Duration,
}

/// The options of a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The limits that can be changed later.
    pub bounds: Bounds,
    /// The shortest time for which an accepted event is recognised as a duplicate.
    pub dedup_window: Duration,
    /// The largest number of accepted events that are recognised as duplicates.
    pub dedup_max: u64,
    /// The size limit of all copies of expired requests, in bytes.
    pub max_expired: u64,
    /// The size limit of all copies of refused requests, in bytes.
    pub max_refused: u64,
    /// The largest number of events that wait for the writer.
    pub max_queue: usize,
    /// The largest approximate size of the events that wait for the writer, in bytes.
    pub max_queue_bytes: usize,
    /// The length of a segment's file in bytes.
    pub segment_bytes: u64,
    /// Receives the number of events and the duration of each group that becomes durable.
    pub observer: Arc<dyn Observer>,
    /// The name of the sink that must not stop the log: without room, events are removed that only this sink has not received.
    /// `None` if there is no such sink.
    pub gives_way: Option<Arc<str>>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            bounds: Bounds { max_size: 4 << 30, min_free: 256 << 20, retain: Duration::ZERO },
            dedup_window: Duration::from_secs(72 * 3600),
            dedup_max: 20_000_000,
            max_expired: 64 << 20,
            max_refused: 64 << 20,
            max_queue: 8192,
            max_queue_bytes: 64 << 20,
            segment_bytes: SEGMENT_BYTES,
            observer: Arc::new(()),
            gives_way: None,
        }
    }
}

impl LogOptions {
    /// Returns the options for a command that changes a log while no server uses the log: nothing is removed, and no limit
    /// applies.
    #[must_use]
    pub fn for_repair() -> Self {
        Self {
            bounds: Bounds { max_size: u64::MAX, min_free: 0, retain: Duration::MAX },
            dedup_window: Duration::MAX,
            dedup_max: u64::MAX,
            ..Self::default()
        }
    }
}

/// Receives measurements of the log.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Reports that a group of `events` events became durable. `took` is the time for it.
    fn committed(&self, took: Duration, events: u32);
}

impl Observer for () {
    fn committed(&self, _took: Duration, _events: u32) {}
}

/// The progress of a sink, which [`Log::advance`] stores.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The number of the sink in the log.
    pub sink: SinkNumber,
    /// All records up to this sequence number are delivered, are dead letters, or are not for the sink.
    pub cursor: i64,
    /// The checkpoint of the sink; `None` keeps the stored one.
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the cursor moves back to begin a replay that an operator requested. The request is then completed.
    pub ends_replay: bool,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    max_queue: usize,
    max_queue_bytes: usize,
    /// The handles of the writer's thread and the maintenance thread; empty once the log is closed.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The findings of the start, for the operator.
    findings: Vec<String>,
}

impl Log {
    /// Registers a sink durably, unless it is registered, and returns its state. With [`StartAt::Retained`], the sink also gets
    /// the retained events of these connectors. Blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the change cannot be stored.
    pub fn register(
        &self,
        name: &Arc<str>,
        start: StartAt,
        connectors: Vec<Arc<str>>,
    ) -> Result<SinkState, LogError> {
        if let Some(sink) = self.sink(name) {
            return Ok(sink);
        }
        let change = Change::Register { name: Arc::clone(name), start, connectors };
        self.shared.change(change)?.ok_or(LogError::Exhausted { what: "sink numbers" })
    }

    /// Stores the progress of a sink durably: with `wait` before this returns, otherwise about 50 ms later. Blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the progress is not stored; the progress that was stored before remains valid.
    pub fn advance(&self, progress: Progress, wait: bool) -> Result<(), LogError> {
        let Progress { sink, cursor, checkpoint, ends_replay } = progress;
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.is_closed {
                return Err(LogError::Closed);
            }
            match queue.cursors.iter_mut().find(|update| update.sink == sink) {
                Some(update) => {
                    update.cursor = cursor;
                    update.checkpoint = checkpoint.or_else(|| update.checkpoint.take());
                    update.ends_replay |= ends_replay;
                    update.replies.extend(wait.then_some(reply));
                }
                None => {
                    let replies = wait.then_some(reply).into_iter().collect();
                    queue.cursors.push(CursorUpdate { sink, cursor, checkpoint, ends_replay, replies });
                }
            }
            // The writer only reads the time when it is woken.
            let is_first = queue.cursors_since.is_none();
            queue.cursors_since.get_or_insert_with(Instant::now);
            if !wait && !is_first {
                return Ok(());
            }
        }
        self.shared.has_work.notify_one();
        if wait { answer.blocking_recv().map_err(|_| LogError::Closed)? } else { Ok(()) }
    }

    /// Forgets a sink, so that its cursor no longer retains events. Returns whether the sink was known. Blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the change cannot be stored.
    pub fn forget(&self, name: &str) -> Result<bool, LogError> {
        let was_known = self.sink(name).is_some();
        if was_known {
            self.shared.change(Change::Forget { name: Arc::from(name) })?;
        }
        Ok(was_known)
    }

    /// Requests a replay of the retained events after a sequence number to a sink. Its worker begins the replay after it has
    /// delivered the events that existed when the worker started. Returns the number of sequence numbers that the replay covers.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the sink is unknown, or the request cannot be stored.
    pub fn replay(&self, name: &str, after: i64) -> Result<u64, LogError> {
        let unknown = || LogError::UnknownSink { name: name.to_owned() };
        self.sink(name).ok_or_else(unknown)?;
        let sink =
            self.shared.change(Change::Replay { name: Arc::from(name), after })?.ok_or_else(unknown)?;
        let to = sink.replay_after.unwrap_or(sink.cursor);
        Ok(u64::try_from(sink.cursor.saturating_sub(to)).unwrap_or(0))
    }

    /// Waits until every event that is queued now is durable or refused. Blocks.
    pub fn flush(&self) {
        let ticket = self.shared.queue.lock().next_ticket;
        // A change without effect is answered with the next group.
        while self.shared.change(Change::Forget { name: Arc::from("") }).is_ok() {
            let queue = self.shared.queue.lock();
            if queue.appends.first().is_none_or(|append| append.ticket > ticket) {
                break;
            }
        }
    }

    /// Returns the durable state of the sink with this name; `None` if no such sink is registered.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<SinkState> {
        self.shared.state.lock().named(name).cloned()
    }

    /// Returns the durable states of all sinks.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkState> {
        self.shared.state.lock().sinks.values().cloned().collect()
    }

    /// Returns a source from which the worker of a sink reads events, starting at the sink's cursor.
    #[must_use]
    pub fn source(&self, sink: SinkState) -> Source {
        Source::new(Arc::clone(&self.shared), sink)
    }

    /// Returns the end of the log, where workers wait for events.
    #[must_use]
    pub fn tail(&self) -> &Arc<Tail> {
        &self.shared.tail
    }

    /// Returns the database of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> &Arc<dead::DeadLetters> {
        &self.shared.dead
    }

    /// Returns the dedup index.
    #[must_use]
    pub fn ids(&self) -> &ids::Ids {
        &self.shared.ids
    }

    /// Returns the folder of the log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Returns the last sequence number before the first event that the log still has.
    #[must_use]
    pub fn before_oldest(&self) -> i64 {
        self.shared.before(0)
    }

    /// Returns why no segment can be added; `None` if one can. If none can, events are refused once the newest segment is full.
    #[must_use]
    pub fn shortage(&self) -> Option<LogError> {
        self.shared.files.lock().no_spare.clone()
    }

    /// Returns the free bytes on the disk of the log; 0 if they cannot be determined.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.shared.disk.free_bytes(&self.shared.folder).unwrap_or(0)
    }

    /// Returns when a connector accepted its last event, in Unix milliseconds; `None` if it has accepted none.
    #[must_use]
    pub fn last_accepted(&self, connector: &str) -> Option<i64> {
        self.shared.state.lock().connectors.get(connector).copied()
    }

    /// Returns the names of all connectors that have accepted an event, also of those that are no longer configured; the one that
    /// accepted the latest is first.
    #[must_use]
    pub fn connectors(&self) -> Vec<Arc<str>> {
        let state = self.shared.state.lock();
        let mut connectors: Vec<_> =
            state.connectors.iter().map(|(name, at)| (*at, Arc::clone(name))).collect();
        drop(state);
        connectors.sort_by(|one, other| other.cmp(one));
        connectors.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns the approximate number of events that are recognised as duplicates.
    #[must_use]
    pub fn known_events(&self) -> u64 {
        let recent = u64::try_from(self.shared.queue.lock().recent.len()).unwrap_or(u64::MAX);
        self.shared.ids.count().saturating_add(recent)
    }

    /// Returns what was found damaged, missing or replaced when the log was opened: a sentence each, for the operator.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Replaces the limits of the log's size and of the age of its events.
    pub fn set_bounds(&self, bounds: Bounds) {
        *self.shared.bounds.lock() = bounds;
        self.shared.maintain();
    }

    /// Makes all queued changes durable, and unlocks the folder. Later changes are rejected. Blocks.
    pub fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.shared.queue.lock().is_closed = true;
        self.shared.has_work.notify_all();
        for (place, thread) in threads.into_iter().enumerate() {
            if place > 0 {
                // The maintenance thread ends after the writer, which may still need a spare; then it stores the last ids.
                self.shared.files.lock().is_stopping = true;
                self.shared.files_changed.notify_all();
            }
            // A thread that panicked has ended as well.
            let _panicked = thread.join();
        }
        // Open readers may continue; the folder is free.
        *self.shared.lock.lock() = None;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns the path of the database of dead letters.
#[must_use]
pub fn path_of_dead_letters(folder: &Path) -> PathBuf {
    folder.join("dead.db")
}

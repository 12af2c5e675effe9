//! The log: every accepted event on disk before its 200, until every sink has it.
//!
//! # Format (version 2)
//!
//! A folder of one process, which locks `spool.lock` while it is open. Version 1 was a SQLite database, never released.
//!
//! | file | what |
//! |---|---|
//! | `segment-NUMBER.log` | a segment: a header, then groups of frames (`segment.rs`, `group.rs`, `frame.rs`). The numbers have no gaps |
//! | `spare-NUMBER.tmp` | a segment to be: zeros, or a segment that nobody needs any more |
//! | `spool.lock` | the lock; its content is the number of the newest segment |
//! | `dead.db` | the dead letters ([`dead`]) |
//! | `ids.db` | the index of known events ([`ids`]), which can be thrown away |
//!
//! Segments are 16 MiB and are filled with zeros and synced before they are used, so a sync later writes data only. Each
//! begins with a snapshot of what is known beside the events: the sinks with their cursors and checkpoints, and the oldest
//! segment that is needed. So the newest segment and its frames are all that a start has to read.
//!
//! An event has a sequence number; they grow by one. A segment's header has the number of its first event, and makes void
//! whatever older segments have from that number on.
//!
//! # How an event is stored
//!
//! [`Log::append`] looks for a copy: among the events that the index does not have yet, then in the filters of the index,
//! and only where one of those matches in its file. Then the event waits for the writer's thread (`writer.rs`), which makes
//! everything that waits durable as one group, with one write and one sync, shows it to the workers (`tail.rs`), and answers.
//! A cursor goes along with the next group, or is written alone after 50 ms. A group is written only after the one before it
//! was synced; after 50 ms of quiet an empty one follows, which shows that the last one was durable. Everything else
//! (the index, spares, old segments) is done by the maintenance thread (`maintenance.rs`).
//!
//! # Limits
//!
//! - `max_size`: segments, spares and dead letters; the index apart (about 30 bytes an id).
//! - `min_free`: what has to be left on the disk whenever a segment is made.
//! - There are two spares. Where no further one can be made, events are refused, and the last one is for cursors and changes.
//! - Nothing is dropped to make room.
//!
//! # What happens on a crash
//!
//! | the process dies, or power fails | what is there after the restart |
//! |---|---|
//! | before a group is written | nothing of it; nobody was answered |
//! | before its sync has returned | all of it or nothing; nobody was answered. A part of it is reported as "possibly acknowledged", and stays where it is |
//! | after its sync | the group |
//! | while a segment is begun | the old one or the new one, which has its name only once its header, its snapshot and what was recovered are synced: it makes void where that was read from |
//! | while segments are removed | those below the oldest one that is needed are leftovers, and go on the next start |
//!
//! What a start finds at the end need not have been synced: a killed process leaves it in the page cache. So the last group is
//! written again, to a new segment, and synced, before anything is delivered or answered `duplicate`. A process appends only
//! to segments that it began itself.
//!
//! # Damage
//!
//! A group that cannot be read, before one that can, is damage: its events become dead letters of the reason `damaged`, with
//! whatever is left of them, when a worker comes by; everything behind it goes on. Files that are missing, or of another
//! store, do not open ([`LogError`]). After a failed write or sync the group goes to a new segment; as long as that fails
//! too, events are refused, and it is tried again every second. [`repair`] makes a folder open again that does not: it moves
//! files out of the way, and writes segments that stand in for those that are lost. It removes nothing.

pub mod dead;
pub mod disk;
mod error;
mod frame;
mod group;
pub mod ids;
mod maintenance;
mod open;
mod reader;
mod remedy;
pub mod repair;
mod segment;
mod shared;
mod source;
mod sqlite;
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
pub use reader::{ConnectorUse, Reader, Seen, SinkStatus, Status};
pub use source::{Source, Stored};
pub use state::SinkState;
pub use tail::Tail;

use self::ids::Key;
use self::shared::{Append, Change, CursorUpdate, Shared};
use crate::sync::atomic::Ordering;
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, oneshot};
use dt_sink::record::Record;

/// The length of a segment's file.
const SEGMENT_BYTES: u64 = 16 << 20;
/// What an event takes in a group beside its body, about.
const EVENT_BYTES: usize = 512;
/// The ticket of the events that were recovered and are not durable yet.
const RECOVERED_TICKET: u64 = 1;

/// Tells the files of one store from those of another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    /// One that no other store has. Not a secret, only different each time.
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

/// How an event came to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Now, with this sequence number.
    New(i64),
    /// It was there already.
    Duplicate,
}

/// Where a sink starts that the log does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the next event.
    Now,
    /// With the oldest that is still there.
    Retained,
}

/// The bounds that can be others while the log is open.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// How many bytes it may take.
    pub max_size: u64,
    /// How many bytes have to be left on the disk.
    pub min_free: u64,
    /// How long events stay after every sink has them.
    pub retain: Duration,
}

/// What a log is opened with.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The bounds that can be others later.
    pub bounds: Bounds,
    /// How long an accepted event stays known as a duplicate, at least.
    pub dedup_window: Duration,
    /// How many of them are known at most.
    pub dedup_max: u64,
    /// How many bytes of expired requests are kept.
    pub max_expired: u64,
    /// How many bytes of refused requests are kept.
    pub max_refused: u64,
    /// How many events may wait for the writer.
    pub max_queue: usize,
    /// How many bytes of events may wait for the writer.
    pub max_queue_bytes: usize,
    /// The length of a segment's file.
    pub segment_bytes: u64,
    /// Counts groups and their times.
    pub observer: Arc<dyn Observer>,
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
        }
    }
}

impl LogOptions {
    /// For those who change a log while its server is down: nothing is removed, and no limit keeps events out.
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

/// Who is told what the log does.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A group of so many events was made durable, which took so long.
    fn committed(&self, took: Duration, events: u32);
}

impl Observer for () {
    fn committed(&self, _took: Duration, _events: u32) {}
}

/// How far a sink is, to be stored.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The sink.
    pub sink: SinkNumber,
    /// Everything up to this sequence number is done.
    pub cursor: i64,
    /// Where the sink stands, in its own terms; `None` leaves what is stored.
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the cursor goes back where an operator wanted it, which is then done.
    pub ends_replay: bool,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    max_queue: usize,
    max_queue_bytes: usize,
    /// The writer's thread and the maintenance thread, until the log is closed.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What was found on opening, for an operator.
    findings: Vec<String>,
}

impl Log {
    /// Stores an event durably for these sinks. With `dedup`, an event that its connector has sent before is not stored
    /// again.
    ///
    /// # Errors
    ///
    /// [`LogError`] when it is not stored.
    pub async fn append(
        &self,
        record: Arc<Record>,
        sinks: SinkSet,
        dedup: bool,
    ) -> Result<Appended, LogError> {
        let key = dedup.then(|| Key::new(&record.connector, &record.event_id));
        let (reply, answer) = oneshot::channel();
        let mut append = Append { event: Some((record, sinks)), key, ticket: 0, reply };
        loop {
            let epoch = self.shared.ids_epoch.load(Ordering::Acquire);
            if let Some(key) = key
                && self.shared.ids.may_contain(key)
                && known(self.shared.ids.is_stored(key).await)
            {
                return Ok(Appended::Duplicate);
            }
            match self.enqueue(append, epoch)? {
                Enqueued::Waiting => break,
                Enqueued::Durable => return Ok(Appended::Duplicate),
                // Ids went to the index in between.
                Enqueued::Again(back) => append = back,
            }
        }
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// The same, for callers that may block.
    ///
    /// # Errors
    ///
    /// [`LogError`] when it is not stored.
    pub fn append_blocking(
        &self,
        record: Arc<Record>,
        sinks: SinkSet,
        dedup: bool,
    ) -> Result<Appended, LogError> {
        let key = dedup.then(|| Key::new(&record.connector, &record.event_id));
        let (reply, answer) = oneshot::channel();
        let mut append = Append { event: Some((record, sinks)), key, ticket: 0, reply };
        loop {
            let epoch = self.shared.ids_epoch.load(Ordering::Acquire);
            if let Some(key) = key
                && self.shared.ids.may_contain(key)
                && known(self.shared.ids.contains(key))
            {
                return Ok(Appended::Duplicate);
            }
            match self.enqueue(append, epoch)? {
                Enqueued::Waiting => break,
                Enqueued::Durable => return Ok(Appended::Duplicate),
                Enqueued::Again(back) => append = back,
            }
        }
        answer.blocking_recv().map_err(|_| LogError::Closed)?
    }

    fn enqueue(&self, mut append: Append, epoch: u64) -> Result<Enqueued, LogError> {
        let bytes = append.bytes();
        let is_first = {
            let mut queue = self.shared.queue.lock();
            if let Some(key) = append.key {
                if let Some(ticket) = queue.recent.get(&key) {
                    if *ticket <= queue.durable_ticket {
                        return Ok(Enqueued::Durable);
                    }
                    append.event = None;
                } else if self.shared.ids_epoch.load(Ordering::Acquire) != epoch {
                    return Ok(Enqueued::Again(append));
                }
            }
            if queue.is_closed {
                return Err(queue.refusal.clone().unwrap_or(LogError::Closed));
            }
            if let Some(refusal) = &queue.refusal {
                return Err(refusal.clone());
            }
            let total = queue.bytes.saturating_add(bytes);
            // One body that is larger than all still has its turn.
            let is_too_much = queue.bytes > 0 && total > self.max_queue_bytes;
            if is_too_much || queue.appends.len() >= self.max_queue {
                return Err(LogError::Overloaded);
            }
            queue.next_ticket = queue.next_ticket.saturating_add(1);
            append.ticket = queue.next_ticket;
            if let (Some(key), Some(_)) = (append.key, &append.event) {
                queue.recent.insert(key, append.ticket);
            }
            queue.bytes = total;
            queue.appends.push(append);
            queue.appends.len() == 1
        };
        if is_first {
            self.shared.has_work.notify_one();
        }
        Ok(Enqueued::Waiting)
    }

    /// Makes a sink known durably, unless it is, and returns where it stands. Where it starts with what is retained, it is
    /// given that of these connectors. It blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] when that cannot be stored.
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
        self.shared.change(change)?.ok_or(LogError::Closed)
    }

    /// Stores how far a sink is. With `wait`, it is durable when this returns; otherwise soon. It blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] when it is not stored. What was stored before counts.
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
            // The writer looks at the time only when it is woken.
            let is_first = queue.cursors_since.is_none();
            queue.cursors_since.get_or_insert_with(Instant::now);
            if !wait && !is_first {
                return Ok(());
            }
        }
        self.shared.has_work.notify_one();
        if wait { answer.blocking_recv().map_err(|_| LogError::Closed)? } else { Ok(()) }
    }

    /// Forgets a sink: its cursor holds no more events. Returns whether it was known. It blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] when that cannot be stored.
    pub fn forget(&self, name: &str) -> Result<bool, LogError> {
        let was_known = self.sink(name).is_some();
        if was_known {
            self.shared.change(Change::Forget { name: Arc::from(name) })?;
        }
        Ok(was_known)
    }

    /// Has a sink be given again what comes after a sequence number, as far as that is still there. Its worker does it,
    /// once it has caught up with what was there when it started. Returns how many numbers that are. It blocks.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the sink is not known, or it cannot be stored.
    pub fn replay(&self, name: &str, after: i64) -> Result<u64, LogError> {
        let unknown = || LogError::UnknownSink { name: name.to_owned() };
        self.sink(name).ok_or_else(unknown)?;
        let sink =
            self.shared.change(Change::Replay { name: Arc::from(name), after })?.ok_or_else(unknown)?;
        let to = sink.replay_after.unwrap_or(sink.cursor);
        Ok(u64::try_from(sink.cursor.saturating_sub(to)).unwrap_or(0))
    }

    /// Waits until what waits now is durable, or refused. It blocks.
    pub fn settle(&self) {
        let ticket = self.shared.queue.lock().next_ticket;
        // A change that changes nothing goes along with each group.
        while self.shared.change(Change::Forget { name: Arc::from("") }).is_ok() {
            let queue = self.shared.queue.lock();
            if queue.appends.first().is_none_or(|append| append.ticket > ticket) {
                break;
            }
        }
    }

    /// The sink of a name, as it is durable.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<SinkState> {
        self.shared.state.lock().named(name).cloned()
    }

    /// All sinks, as they are durable.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkState> {
        self.shared.state.lock().sinks.values().cloned().collect()
    }

    /// What a sink's worker reads, from its cursor on.
    #[must_use]
    pub fn source(&self, sink: SinkState) -> Source {
        Source::new(Arc::clone(&self.shared), sink)
    }

    /// The end of the log.
    #[must_use]
    pub fn tail(&self) -> &Arc<Tail> {
        &self.shared.tail
    }

    /// The dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> &Arc<dead::DeadLetters> {
        &self.shared.dead
    }

    /// The index of known events.
    #[must_use]
    pub fn ids(&self) -> &ids::Ids {
        &self.shared.ids
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Why no segment can be added, if none can: once the newest is full, events are refused.
    #[must_use]
    pub fn shortage(&self) -> Option<LogError> {
        self.shared.files.lock().no_spare.clone()
    }

    /// How many bytes are free on its disk; 0 where that cannot be asked.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.shared.disk.free_bytes(&self.shared.folder).unwrap_or(0)
    }

    /// When a connector accepted its last event, in Unix milliseconds.
    #[must_use]
    pub fn last_accepted(&self, connector: &str) -> Option<i64> {
        self.shared.state.lock().connectors.get(connector).copied()
    }

    /// How many bytes it takes, the index apart.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes()
    }

    /// How many events are known as duplicates, about.
    #[must_use]
    pub fn known_events(&self) -> u64 {
        let recent = u64::try_from(self.shared.queue.lock().recent.len()).unwrap_or(u64::MAX);
        self.shared.ids.count().saturating_add(recent)
    }

    /// What was found on opening that an operator should know.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Sets other bounds.
    pub fn set_bounds(&self, bounds: Bounds) {
        *self.shared.bounds.lock() = bounds;
        self.shared.maintain();
    }

    /// Makes durable what waits, and lets go of the folder. It blocks. Everything that comes later is refused.
    pub fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.shared.queue.lock().is_closed = true;
        self.shared.has_work.notify_all();
        for (place, thread) in threads.into_iter().enumerate() {
            if place > 0 {
                // The writer may still need a spare; what it has stored goes to the index.
                self.shared.files.lock().is_stopping = true;
                self.shared.files_changed.notify_all();
            }
            // A thread that panicked has ended as well.
            let _panicked = thread.join();
        }
        // Whoever still reads may go on; the folder is free.
        *self.shared.lock.lock() = None;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether the index has an event. Where it cannot tell, the event is taken as new rather than lost.
fn known(answer: Result<bool, ids::IdsError>) -> bool {
    answer.unwrap_or_else(|error| {
        tracing::warn!(code = error.code(), %error, "a copy may be accepted as new");
        false
    })
}

/// What became of an event that was to wait.
enum Enqueued {
    Waiting,
    /// It is a copy of one that is durable.
    Durable,
    Again(Append),
}

/// Where the files of a log are.
#[must_use]
pub fn path_of_dead_letters(folder: &Path) -> PathBuf {
    folder.join("dead.db")
}

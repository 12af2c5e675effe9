//! The spool: every accepted event on disk before its 200, until every sink has it.
//!
//! # Format (version 1)
//!
//! A folder of one process (`spool.lock` is locked while it is open) with one SQLite database, `spool.db`, which any
//! `sqlite3` tool opens, and, while it is open or after a crash, a journal in front of it, `spool.journal` (`journal/mod.rs`). `PRAGMA user_version` is the format's version, `PRAGMA application_id` is `0x44547370` ("DTsp").
//!
//! | table | a row is | its key |
//! |---|---|---|
//! | `records` | an accepted event: routing columns, the two signature headers, the names of the others, the exact body, a CRC-32 | `seq`, growing, never used twice |
//! | `seen` | an event that was accepted within the window of duplicates | connector and event id |
//! | `sinks` | a sink: `cursor`, the last `seq` it is done with, its own checkpoint, and whose records it skips since when | its name |
//! | `dead` | a dead letter; with `replay_at`, one that its sink is given again | `id`, growing, never used twice |
//! | `counts` | how many rows there are (dead letters by reason, and bytes), so that nobody has to count them; and which frame of the journal comes next | a name |
//!
//! # Two ways in
//!
//! | what | way |
//! |---|---|
//! | a record; a sink's cursor with its checkpoint | a frame of the journal, with all that come together: one write and one sync, by one of the requests (`appends.rs`, `noting.rs`) |
//! | a dead letter, an operator's change, a sink that is made known, a record too large for a frame | a transaction of the database, by the writer's thread; what is in the journal goes along (`writer.rs`) |
//!
//! What is in the journal is in memory as well (`unsettled.rs`). The writer's thread brings it to the database when the
//! journal is half full, and after half a second without commands (`upkeep.rs`). By then most records have been passed by
//! every sink and only their events, known as duplicates, are written. Workers that have caught up read from memory
//! (`Spool::next`). A reader in this process has everything settled before it reads; one outside calls [`settle`] or asks.
//!
//! # Limits
//!
//! - `max_size`: pages in use and the write-ahead log, dead letters included, `seen` apart (about 100 bytes a row).
//! - `min_free`: what has to be left on the disk, so that cursors can move and dead letters be written when it is full.
//! - `max_expired`, `max_refused`: copies of expired and of refused requests, which were not accepted: the oldest go.
//! - A full spool takes no events until there is room. Nothing is dropped to make room.
//!
//! # What happens on a crash
//!
//! A frame of the journal is synced before anything in it is answered; the database is in WAL mode with
//! `synchronous=FULL`, and its commits sync the log. So, for either:
//!
//! | the process dies | what is there after the restart |
//! |---|---|
//! | before the write | nothing of the batch; nobody was answered |
//! | after the write, before its sync | the batch, or nothing of it; nobody was answered |
//! | after the sync | the batch |
//! | while the journal is brought to the database | it is in the journal, until the transaction that has all of it is synced |
//!
//! What a restart recovers need not have been synced, so [`Spool::open`] checkpoints the log and brings the journal to the
//! database, both of which sync, before anything is accepted: a duplicate is only ever measured against what is durable.
//!
//! # Replays
//!
//! A letter that a sink rejected goes to that sink alone: `replay_at` is set, the sink's worker delivers it beside the
//! records, and the letter leaves in the transaction that stores the delivery. All other letters come in like requests:
//! the record is stored and the letter leaves in one transaction. A replay of records moves a sink's cursor back; a
//! worker that is just about to move it on finds that its own is not the stored one any more, and starts from there.
//!
//! # Damage
//!
//! Disks and people damage files. A record whose bytes are not those that were written (`crc`), or whose page SQLite
//! cannot read, is set aside as a dead letter of the reason `damaged`, with whatever is left of it, and the records behind
//! it go on. Where a whole stretch cannot be read, or the damage is in what the writer needs, the spool says so with the
//! path and the cure, and skips nothing. A frame of the journal that is damaged while later ones are whole is told as
//! damage as well; the others are taken over, and the file is kept under another name. Once a page is found damaged, records are no longer pruned until a restart, so
//! that what is there can be saved: [`rebuild`] copies what can be read into a new database, and keeps the old one.
//!
//! After a failed sync nobody knows what is on the disk, so the writer stops for good ([`SpoolError::Poisoned`]) until
//! a restart looks again. A full disk only rolls back.

mod appends;
mod change;
mod command;
mod error;
mod journal;
mod letter;
mod noting;
mod open;
mod reader;
mod rebuild;
mod recent;
mod row;
mod schema;
mod status;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod unsettled;
mod upkeep;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use appends::Appends;
pub use change::{Change, Changed};
use command::{Command, Room};
pub use error::SpoolError;
pub use letter::{Filter, Letter};
pub use reader::{Reader, Stored};
pub use rebuild::{Rebuilt, rebuild};
pub use status::{ConnectorUse, Finding, SinkStatus, Status};
pub use tail::Tail;
use writer::Writer;

use crate::clock::Clock;
use crate::record::{DeadLetter, Record};
use crate::telemetry::Telemetry;

/// How a record came to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Now, with this number.
    New(i64),
    /// It was there already.
    Duplicate,
}

/// The bounds of a spool.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// How many bytes it may take.
    pub max_size: u64,
    /// How many bytes have to be left on the disk.
    pub min_free: u64,
    /// How long an accepted event stays known as a duplicate.
    pub dedup_window: Duration,
    /// How many of them are known at most.
    pub dedup_max: u64,
    /// How long records stay after every sink has them.
    pub retain: Duration,
    /// How many bytes of expired requests are kept.
    pub max_expired: u64,
    /// How many bytes of refused requests are kept.
    pub max_refused: u64,
    /// How many bytes the journal takes, which makes commits cheap; 0 for a spool that is changed by hand. See
    /// `journal/mod.rs`.
    pub journal_bytes: u64,
    /// How many commands may wait for the writer.
    pub max_queue: usize,
    /// How many bytes of bodies may wait for the writer.
    pub max_queue_bytes: usize,
    /// Who is told how long commits take, and what was dropped.
    pub telemetry: Option<Arc<Telemetry>>,
}

/// The bounds of a spool that can be others while it is open.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// How many bytes it may take.
    pub max_size: u64,
    /// How many bytes have to be left on the disk.
    pub min_free: u64,
    /// How long an accepted event stays known as a duplicate.
    pub dedup_window: Duration,
    /// How many of them are known at most.
    pub dedup_max: u64,
    /// How long records stay after every sink has them.
    pub retain: Duration,
}

impl SpoolOptions {
    /// The bounds among them.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        let &Self { max_size, min_free, dedup_window, dedup_max, retain, .. } = self;
        Bounds { max_size, min_free, dedup_window, dedup_max, retain }
    }

    pub(super) const fn set(&mut self, bounds: &Bounds) {
        let &Bounds { max_size, min_free, dedup_window, dedup_max, retain } = bounds;
        (self.max_size, self.min_free, self.retain) = (max_size, min_free, retain);
        (self.dedup_window, self.dedup_max) = (dedup_window, dedup_max);
    }

    /// For those who repair a spool while its service is down: nothing is pruned, and no limit keeps letters out.
    #[must_use]
    pub fn for_repair() -> Self {
        Self {
            max_size: u64::MAX,
            min_free: 0,
            dedup_window: Duration::MAX,
            dedup_max: u64::MAX,
            retain: Duration::MAX,
            journal_bytes: 0,
            ..Self::default()
        }
    }
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            max_size: 4 << 30,
            min_free: 256 << 20,
            dedup_window: Duration::from_secs(72 * 3600),
            dedup_max: 20_000_000,
            retain: Duration::ZERO,
            max_expired: 64 << 20,
            max_refused: 64 << 20,
            journal_bytes: 4 << 20,
            max_queue: 8192,
            max_queue_bytes: 64 << 20,
            telemetry: None,
        }
    }
}

/// What a sink has done: how far it is, and what it will never take.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// The cursor that this continues; when the stored one is another, it was moved back, and stays. `None`: whatever
    /// is stored.
    pub from: Option<i64>,
    /// Everything up to this number is done.
    pub cursor: i64,
    /// Where the sink stands, in its own terms; `None` leaves what is stored.
    pub checkpoint: Option<Vec<u8>>,
    /// The records it rejected. They move to the dead letters.
    pub rejected: Vec<Rejected>,
    /// Dead letters of its own that it took after all: their ids. They are gone.
    pub redelivered: Vec<i64>,
    /// Those that it rejected again: id and its reason. They stay.
    pub rejected_again: Vec<(i64, String)>,
    /// Records that nobody can be given, since they were damaged on the disk: number, and what is left of them. They are
    /// set aside, once for all sinks.
    pub damaged: Vec<(i64, DeadLetter)>,
}

/// A record that a sink rejected.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// Its number.
    pub seq: i64,
    /// What the sink was given of it, should what is stored have become unreadable.
    pub record: Arc<Record>,
    /// The sink's reason.
    pub error: String,
    /// How often the sink was given it.
    pub attempts: u32,
}

/// Where a sink stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The last number that it is done with.
    pub cursor: i64,
    /// What it said last about where it stands.
    pub checkpoint: Option<Vec<u8>>,
    /// The connectors whose records it is not given, each from the number after this one.
    pub skips: BTreeMap<Arc<str>, i64>,
}

/// Where a sink starts that the spool does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the next event.
    Now,
    /// With the oldest that is still there.
    Retained,
}

/// The way to the writer, until the spool is closed.
type Commands = Arc<Mutex<Option<mpsc::SyncSender<Command>>>>;

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    commands: Commands,
    appends: Arc<Appends>,
    /// How many bytes of bodies wait for the writer. On a disk that hangs, requests give up and leave theirs here.
    queued_bytes: Arc<AtomicUsize>,
    max_queue_bytes: usize,
    writer: Mutex<Option<JoinHandle<()>>>,
    tail: Arc<Tail>,
    /// The folder is ours until the spool is closed, whoever still holds this then.
    lock: Mutex<Option<open::Lock>>,
}

impl Spool {
    /// Opens the spool in `folder`, and makes it if it is not there. What a crash left in the log is recovered and
    /// synced.
    ///
    /// # Errors
    ///
    /// [`SpoolError`], with the path and the cure. Nothing is deleted to get going.
    pub fn open(folder: &Path, options: SpoolOptions, clock: Arc<dyn Clock>) -> Result<Self, SpoolError> {
        let lock = open::lock_soon(folder)?;
        let database = open::database(folder)?;
        let max_queue = options.max_queue;
        let (commands, queue) = mpsc::sync_channel(max_queue);
        let (queued_bytes, max_queue_bytes) = (Arc::new(AtomicUsize::new(0)), options.max_queue_bytes);
        let aside = open::aside(&database.path, upkeep::CUT_WAIT)?;
        let writer = Writer::open(folder, database, options, clock)?;
        let tail = Arc::clone(&writer.tail);
        let commands: Commands = Arc::new(Mutex::new(Some(commands)));
        let appends = Arc::new(Appends::new(writer, Arc::clone(&commands), max_queue));
        let written = Arc::clone(&appends);
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer::run(&written, &queue, aside))
            .map_err(|error| SpoolError::io(folder, "starting a thread", &error))?;
        Ok(Self {
            folder: folder.to_owned(),
            commands,
            appends,
            queued_bytes,
            max_queue_bytes,
            writer: Mutex::new(Some(thread)),
            tail,
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Stores a record durably. With `dedup`, an event that the connector has sent before is not stored again.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when it is not stored.
    pub async fn append(&self, record: Arc<Record>, dedup: bool) -> Result<Appended, SpoolError> {
        let room = self.room(record.body.len())?;
        self.appends.append(record, dedup, room).await
    }

    /// Stores a dead letter durably. Gives whether it is new.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when it is not stored.
    pub async fn bury(&self, letter: DeadLetter) -> Result<bool, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let room = self.room(letter.body.len())?;
        self.command(Command::Bury { letter: Box::new(letter), room, reply })?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Stores a sink's progress durably; waits for it. Gives where the sink's cursor is then, which is not where this
    /// moves it if it was moved back in the meantime.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when it is not stored; the sink's old progress counts.
    pub fn advance(&self, sink: Arc<str>, progress: Progress) -> Result<i64, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.command_waiting(Command::Advance { sink, progress: Box::new(progress), reply })?;
        answer.blocking_recv().map_err(|_| SpoolError::Closed)?
    }

    /// Makes a sink known, and gives where it stands. It is not given the records of the connectors in `skipped`, but for
    /// those that came while it was: a changed configuration loses nothing that was accepted under the old one.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when that cannot be stored.
    pub fn register(
        &self,
        sink: Arc<str>,
        start: StartAt,
        skipped: BTreeSet<Arc<str>>,
    ) -> Result<Registered, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.command_waiting(Command::Register { sink, start, skipped, reply })?;
        answer.blocking_recv().map_err(|_| SpoolError::Closed)?
    }

    /// Makes changes that an operator asks for, in one transaction; waits for it. Gives what became of each.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when nothing was changed.
    pub fn change(&self, changes: Vec<Change>) -> Result<Vec<Changed>, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.command_waiting(Command::Change { changes, reply })?;
        answer.blocking_recv().map_err(|_| SpoolError::Closed)?
    }

    /// Brings everything that was acknowledged to the database, for those who read it from outside; waits for it.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when that cannot be done now. What was acknowledged is in the journal all the same.
    pub fn settle(&self) -> Result<(), SpoolError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.command_waiting(Command::Settle { reply })?;
        answer.recv().map_err(|_| SpoolError::Closed)?
    }

    /// Sets other bounds, for everything that is not in the queue yet; waits for a place in it.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Closed`] once it is closed.
    pub fn set_bounds(&self, bounds: Bounds) -> Result<(), SpoolError> {
        self.command_waiting(Command::Bound { bounds })
    }

    /// A connection of its own that reads.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when the database cannot be opened.
    pub fn reader(&self) -> Result<Reader, SpoolError> {
        Reader::beside(&self.folder, Arc::clone(&self.commands), Arc::clone(&self.tail))
    }

    /// Up to `limit` records after a number, for a worker: from memory where it has caught up, with `reader` otherwise.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when they cannot be read.
    pub fn next(&self, reader: &Reader, after: i64, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        let mut after = after;
        loop {
            let first = match self.tail.fresh(after, limit) {
                Ok(fresh) => return Ok(fresh),
                Err(first) => first,
            };
            let stored = reader.stored_after(after, limit)?;
            match first {
                // Nothing was between them when the database was asked, since all before the first one was in it.
                Some(first) if stored.is_empty() => after = after.max(first.saturating_sub(1)),
                _ => return Ok(stored),
            }
        }
    }

    /// How far the spool is, for those who wait for more.
    #[must_use]
    pub const fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// Takes no more commands; those that are queued are done.
    pub fn close(&self) {
        *self.commands.lock() = None;
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // A writer that panicked has answered nobody; its panic was printed by its thread.
            let _panicked = writer.join();
        }
        // The thread has done so, if it ever ran.
        self.appends.close();
        *self.lock.lock() = None;
    }

    fn room(&self, bytes: usize) -> Result<Room, SpoolError> {
        Room::take(&self.queued_bytes, bytes, self.max_queue_bytes).ok_or(SpoolError::Overloaded)
    }

    fn command(&self, command: Command) -> Result<(), SpoolError> {
        match self.commands.lock().as_ref().map(|commands| commands.try_send(command)) {
            Some(Ok(())) => Ok(()),
            Some(Err(mpsc::TrySendError::Full(_))) => Err(SpoolError::Overloaded),
            Some(Err(mpsc::TrySendError::Disconnected(_))) | None => Err(SpoolError::Closed),
        }
    }

    /// For workers, which may wait for a place in the queue.
    fn command_waiting(&self, command: Command) -> Result<(), SpoolError> {
        let commands = self.commands.lock().clone();
        commands.ok_or(SpoolError::Closed)?.send(command).map_err(|_| SpoolError::Closed)
    }
}

/// Brings what a killed process left in the journal to the database, for those who read it without a server. Nothing is
/// to be done where the spool was closed. Gives what is wrong with the journal, if anything; what can be read of it is in
/// the database then, and the file is kept under another name.
///
/// # Errors
///
/// [`SpoolError::Locked`] when a process has the spool: it is the one to ask then; otherwise what opening it says.
pub fn settle(folder: &Path) -> Result<Option<String>, SpoolError> {
    if !journal::path(folder).exists() || !open::database_path(folder).exists() {
        return Ok(None);
    }
    let _lock = open::lock(folder)?;
    writer::recover(folder, &mut open::database(folder)?)
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

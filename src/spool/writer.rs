//! The one writer: takes whatever has queued up as one transaction, and answers after its commit. That is what makes
//! one sync serve many requests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;

use super::change::{self, Change, Changed};
use super::error::SpoolError;
use super::open::{BUSY_WAIT, Database};
use super::store::{self, Counters};
use super::tail::Tail;
use super::{Appended, Bounds, Progress, Registered, SpoolOptions, StartAt};
use crate::clock::Clock;
use crate::record::{DeadLetter, Reason, Record};
use crate::telemetry::{DeadLetterBuried, DeadLetterDropped};

/// How many commands one transaction takes.
const MAX_BATCH: usize = 512;
/// How many rows one clean-up removes: it must not hold up a commit for long, and must keep up with full batches.
const PRUNE_ROWS: u32 = 1024;
/// How long the writer waits for a command before it cleans up and checkpoints.
const IDLE: Duration = Duration::from_millis(500);
/// The size of the log at which it is written back to the database.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// How long the writer waits for readers before it cuts the log another time.
const CUT_WAIT: Duration = Duration::from_millis(20);

/// Whom an answer goes to.
pub(super) type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

/// The bytes of a body that waits for the writer, as long as it does.
#[derive(Debug)]
pub(super) struct Room {
    queued: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Takes so many of `most` bytes, if they are there. One body that is larger than all still has its turn.
    pub(super) fn take(queued: &Arc<AtomicUsize>, bytes: usize, most: usize) -> Option<Self> {
        let before = queued.fetch_add(bytes, Ordering::Relaxed);
        let room = Self { queued: Arc::clone(queued), bytes };
        (before == 0 || before.saturating_add(bytes) <= most).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the writer can be asked for.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        record: Arc<Record>,
        dedup: bool,
        room: Room,
        reply: Reply<Appended>,
    },
    Bury {
        letter: Box<DeadLetter>,
        room: Room,
        reply: Reply<bool>,
    },
    Advance {
        sink: Arc<str>,
        progress: Box<Progress>,
        reply: Reply<i64>,
    },
    Change {
        changes: Vec<Change>,
        reply: Reply<Vec<Changed>>,
    },
    Register {
        sink: Arc<str>,
        start: StartAt,
        skipped: BTreeSet<Arc<str>>,
        reply: Reply<Registered>,
    },
    /// Other bounds from now on. It writes nothing.
    Bound {
        bounds: Bounds,
    },
}

impl Command {
    /// Whether it stores a record, for which there has to be room.
    fn appends(&self) -> bool {
        match self {
            Self::Append { .. } => true,
            Self::Change { changes, .. } => changes.iter().any(Change::appends),
            Self::Bury { .. } | Self::Advance { .. } | Self::Register { .. } | Self::Bound { .. } => false,
        }
    }

    fn fail(self, error: SpoolError) {
        // Whoever has given up waiting is not an error.
        match self {
            Self::Append { reply, room, .. } => {
                drop(room);
                drop(reply.send(Err(error)));
            }
            Self::Bury { reply, room, .. } => {
                drop(room);
                drop(reply.send(Err(error)));
            }
            Self::Advance { reply, .. } => drop(reply.send(Err(error))),
            Self::Change { reply, .. } => drop(reply.send(Err(error))),
            Self::Register { reply, .. } => drop(reply.send(Err(error))),
            Self::Bound { .. } => {}
        }
    }
}

/// What a command gave, to be told once it is durable.
enum Done {
    Appended(Appended),
    Buried(bool),
    Moved(i64),
    Changed(Vec<Changed>),
    Registered(Registered),
    Bound,
}

pub(super) struct Writer {
    folder: PathBuf,
    database: Database,
    counters: Counters,
    options: SpoolOptions,
    clock: Arc<dyn Clock>,
    tail: Arc<Tail>,
    poisoned: Option<String>,
    /// A page of the database is damaged: nothing is pruned, so that what is there can be saved.
    damaged: bool,
    /// The last events found no room, or the database was held by another program.
    is_stuck: bool,
    tidied: Instant,
    /// The size of the log after it was last tidied.
    log_at_rest: u64,
    /// When the last event was received. Its token was valid then, so this is a time that DT's clock vouches for, and what
    /// is too old is measured against it: a clock that jumps ahead must not wipe out what is known of duplicates.
    vouched: i64,
}

impl Writer {
    pub(super) fn new(
        folder: PathBuf,
        database: Database,
        options: SpoolOptions,
        clock: Arc<dyn Clock>,
        tail: Arc<Tail>,
    ) -> Self {
        let counters = Counters { last_seq: database.last_seq, seen: database.seen };
        Self {
            folder,
            database,
            counters,
            options,
            clock,
            tail,
            poisoned: None,
            damaged: false,
            is_stuck: false,
            tidied: Instant::now(),
            log_at_rest: 0,
            // Before the first event, nothing is too old.
            vouched: i64::MIN,
        }
    }

    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            match commands.recv_timeout(IDLE) {
                Ok(first) => {
                    let batch = std::iter::once(first).chain(commands.try_iter()).take(MAX_BATCH).collect();
                    self.commit(batch);
                    let is_due = self.is_stuck && self.tidied.elapsed() >= IDLE;
                    if is_due || self.log_bytes() > self.log_at_rest.saturating_add(CHECKPOINT_BYTES) {
                        self.tidy();
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.tidy(),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tidy();
    }

    fn commit(&mut self, mut batch: Vec<Command>) {
        for command in &batch {
            if let Command::Bound { bounds } = command {
                self.options.set(bounds);
            }
        }
        batch.retain(|command| !matches!(command, Command::Bound { .. }));
        let mut full = if self.poisoned.is_some() { None } else { self.no_room() };
        if let Some(error) = &full {
            self.stick(error);
            if self.log_bytes() > self.log_at_rest {
                // The log counts as used until it is written back.
                self.tidy();
                full = self.no_room();
            }
        }
        if let Some(text) = &self.poisoned {
            let error = SpoolError::Poisoned { path: self.folder.clone(), text: text.clone() };
            batch.into_iter().for_each(|command| command.fail(error.clone()));
            return;
        }
        if let Some(full) = full {
            self.stick(&full);
            batch = fail_appends(batch, &full);
        }
        if batch.is_empty() {
            return;
        }
        match self.transaction(&batch) {
            Ok(done) => {
                self.tail.moved_to(self.counters.last_seq);
                if batch.iter().any(Command::appends) {
                    self.unstick();
                }
                // Before anyone is answered, so that no worker goes on from a cursor that was moved back.
                if batch.iter().any(concerns_workers) {
                    self.tail.wake();
                }
                for (command, done) in batch.into_iter().zip(done) {
                    answer(command, done);
                }
            }
            Err(error) if is_no_space(&error) => {
                let full = SpoolError::Full { path: self.folder.clone(), text: error.to_string() };
                self.stick(&full);
                let count = batch.len();
                let rest = fail_appends(batch, &full);
                if rest.len() < count {
                    // Cursors and dead letters may still find room.
                    self.commit(rest);
                } else {
                    rest.into_iter().for_each(|command| command.fail(full.clone()));
                }
            }
            Err(error) if is_damage(&error) && !self.damaged => {
                // Most likely in what was to be pruned.
                self.stop_pruning(&error);
                self.commit(batch);
            }
            Err(error) if is_held(&error) => {
                // Somebody writes to it with a tool. Nothing was written here, and it will pass.
                let path = self.database.path.clone();
                let held = SpoolError::Database { path, doing: "writing", text: error.to_string() };
                self.stick(&held);
                batch.into_iter().for_each(|command| command.fail(held.clone()));
            }
            Err(error) => {
                let poisoned = self.poison(&error);
                batch.into_iter().for_each(|command| command.fail(poisoned.clone()));
            }
        }
    }

    /// Does all commands in one transaction. The results hold once this returns.
    fn transaction(&mut self, batch: &[Command]) -> rusqlite::Result<Vec<Done>> {
        let now = self.clock.unix_millis();
        let started = Instant::now();
        let (mut expired, mut refused, mut damaged) = (0_u64, 0_u64, Vec::new());
        let appended = batch.iter().rev().find_map(|command| match command {
            Command::Append { record, .. } => Some(record.received_at),
            _ => None,
        });
        let vouched = appended.unwrap_or(self.vouched);
        let mut counters = self.counters;
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.database.connection.transaction_with_behavior(behavior)?;
        let mut done = Vec::with_capacity(batch.len());
        for command in batch {
            done.push(match command {
                Command::Append { record, dedup, .. } => Done::Appended(store::append(
                    &transaction,
                    &mut counters,
                    &self.options,
                    record,
                    *dedup,
                    now,
                )?),
                Command::Bury { letter, .. } => {
                    let (is_new, dropped) = store::bury(&transaction, &self.options, letter, now)?;
                    let of_reason = match letter.reason {
                        Reason::Refused => &mut refused,
                        _ => &mut expired,
                    };
                    *of_reason = of_reason.saturating_add(dropped);
                    Done::Buried(is_new)
                }
                Command::Change { changes, .. } => {
                    let make = |change| change::make(&transaction, &mut counters, &self.options, change, now);
                    Done::Changed(changes.iter().map(make).collect::<rusqlite::Result<_>>()?)
                }
                Command::Advance { sink, progress, .. } => {
                    for (seq, letter) in &progress.damaged {
                        if store::bury_damaged(&transaction, *seq, letter, now)? {
                            damaged.push(letter);
                        }
                    }
                    Done::Moved(store::advance(&transaction, sink, progress, now)?)
                }
                Command::Register { sink, start, skipped, .. } => {
                    Done::Registered(store::register(&transaction, counters, sink, *start, skipped)?)
                }
                Command::Bound { .. } => Done::Bound,
            });
        }
        if !self.damaged && batch.iter().any(|command| matches!(command, Command::Advance { .. })) {
            store::prune_records(&transaction, &self.options, vouched, PRUNE_ROWS)?;
        }
        if counters.last_seq != self.counters.last_seq {
            store::prune_seen(&transaction, &mut counters, &self.options, vouched, PRUNE_ROWS)?;
            store::store_counters(&transaction, counters)?;
        }
        transaction.commit()?;
        (self.counters, self.vouched) = (counters, vouched);
        if let Some(telemetry) = &self.options.telemetry {
            telemetry.spool_commit(started.elapsed(), batch.len());
            for DeadLetter { connector, error, .. } in damaged {
                telemetry.emit(&DeadLetterBuried { reason: Reason::Damaged.code(), connector, error });
            }
            for (reason, dropped) in [("expired", expired), ("refused", refused)] {
                for _ in 0..dropped {
                    telemetry.emit(&DeadLetterDropped { reason });
                }
            }
        }
        Ok(done)
    }

    /// Why no event can be taken now, if there is no room.
    fn no_room(&self) -> Option<SpoolError> {
        let full = |text: String| Some(SpoolError::Full { path: self.folder.clone(), text });
        match store::used_bytes(&self.database.connection, &self.database.path, self.counters.seen) {
            Ok(used) if used >= self.options.max_size => {
                return full(format!("{used} bytes are used, and `max_size` is {}", self.options.max_size));
            }
            Ok(_) => {}
            Err(error) => return full(error.to_string()),
        }
        match rustix::fs::statvfs(&self.folder) {
            Ok(disk) => {
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                let text = || {
                    format!("{free} bytes are free on the disk, and `min_free` is {}", self.options.min_free)
                };
                if free < self.options.min_free { full(text()) } else { None }
            }
            Err(error) => full(std::io::Error::from(error).to_string()),
        }
    }

    fn log_bytes(&self) -> u64 {
        let mut log = self.database.path.as_os_str().to_owned();
        log.push("-wal");
        std::fs::metadata(log).map_or(0, |about| about.len())
    }

    /// Removes what nobody needs any more, and writes the log back.
    fn tidy(&mut self) {
        if self.poisoned.is_some() {
            return;
        }
        let mut pruned = self.prune();
        if let Err(error) = &pruned
            && is_damage(error)
        {
            self.stop_pruning(error);
            pruned = Ok(());
        }
        // On a full disk, writing the log back is what makes room, so it is tried all the same.
        let tidied = match &pruned {
            Err(error) if !is_no_space(error) => pruned,
            _ => self.checkpoint().and(pruned),
        };
        match tidied {
            Ok(()) => {
                // Whoever asks whether it is ready may be the one who would send the next event.
                if self.is_stuck && self.no_room().is_none() {
                    self.unstick();
                }
            }
            // There will be room, or the other program will be done, another time.
            Err(error) if is_no_space(&error) || is_held(&error) => {}
            Err(error) => drop(self.poison(&error)),
        }
        self.tidied = Instant::now();
        // A log that a reader holds back is not tried again with every commit.
        self.log_at_rest = self.log_bytes();
    }

    /// Nobody knows what is on the disk: stops for good, and says so with the cure.
    fn poison(&mut self, error: &rusqlite::Error) -> SpoolError {
        let text = SpoolError::sqlite(&self.database.path, "writing", error).to_string();
        tracing::error!(error = text, "the spool cannot be written to; restart to look again");
        let poisoned = SpoolError::Poisoned { path: self.folder.clone(), text: text.clone() };
        self.tail.set_trouble(Some(poisoned.to_string()));
        self.poisoned = Some(text);
        poisoned
    }

    /// Events find no place for now; `/readyz` says why.
    fn stick(&mut self, error: &SpoolError) {
        self.tail.set_trouble(Some(error.to_string()));
        self.is_stuck = true;
    }

    fn unstick(&mut self) {
        if self.is_stuck {
            self.tail.set_trouble(None);
            self.is_stuck = false;
        }
    }

    /// Keeps all that is there until a restart looks again; events are accepted as long as there is room.
    fn stop_pruning(&mut self, error: &rusqlite::Error) {
        let text = SpoolError::sqlite(&self.database.path, "pruning", error).to_string();
        tracing::error!(error = text, "a page of the spool is damaged; records are no longer pruned");
        self.tail.set_damage(text);
        self.damaged = true;
    }

    fn prune(&mut self) -> rusqlite::Result<()> {
        if self.damaged {
            return Ok(());
        }
        let now = self.vouched;
        let mut counters = self.counters;
        let transaction =
            self.database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let records = store::prune_records(&transaction, &self.options, now, PRUNE_ROWS)?;
        let seen = store::prune_seen(&transaction, &mut counters, &self.options, now, PRUNE_ROWS)?;
        if records == 0 && seen == 0 {
            return transaction.rollback();
        }
        store::store_counters(&transaction, counters)?;
        transaction.commit()?;
        self.counters = counters;
        Ok(())
    }

    /// Writes the log back. A log that has grown is also cut, since its file counts as used; otherwise it is written
    /// over, which is cheaper.
    fn checkpoint(&self) -> rusqlite::Result<()> {
        let connection = &self.database.connection;
        if !self.is_stuck && self.log_bytes() < CHECKPOINT_BYTES {
            return connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
        // A reader is waited for, but not for long: events wait meanwhile.
        connection.busy_timeout(CUT_WAIT)?;
        let cut = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.busy_timeout(BUSY_WAIT)?;
        cut
    }
}

/// Whether it failed for want of space. SQLite has a code of its own for its shared memory, which is a file as well.
fn is_no_space(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Whether a page of the database cannot be read.
fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Whether another program holds the database.
fn is_held(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Tells those who wanted to append that there is no room, and gives back the other commands.
fn fail_appends(batch: Vec<Command>, full: &SpoolError) -> Vec<Command> {
    let (appends, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(Command::appends);
    appends.into_iter().for_each(|command| command.fail(full.clone()));
    rest
}

fn concerns_workers(command: &Command) -> bool {
    matches!(command, Command::Change { changes, .. } if changes.iter().any(Change::concerns_workers))
}

fn answer(command: Command, done: Done) {
    // Whoever has given up waiting is not an error.
    match (command, done) {
        (Command::Append { reply, room, .. }, Done::Appended(appended)) => {
            // Before the answer: whoever hears it finds the room.
            drop(room);
            drop(reply.send(Ok(appended)));
        }
        (Command::Bury { reply, room, .. }, Done::Buried(is_new)) => {
            drop(room);
            drop(reply.send(Ok(is_new)));
        }
        (Command::Advance { reply, .. }, Done::Moved(cursor)) => drop(reply.send(Ok(cursor))),
        (Command::Change { reply, .. }, Done::Changed(changed)) => drop(reply.send(Ok(changed))),
        (Command::Register { reply, .. }, Done::Registered(place)) => drop(reply.send(Ok(place))),
        (command, _) => command.fail(SpoolError::Closed),
    }
}

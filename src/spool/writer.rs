//! The one writer: takes whatever has queued up at once, and answers when it is on the disk. That is what makes one sync
//! serve many requests.
//!
//! What comes with every event, records and cursors, goes to the journal (`noting.rs`); all else is a transaction of the
//! database, which brings along what is in the journal by then. Without a journal, everything is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::appends::Appends;
use super::change::{self, Change, Changed};
use super::command::{Command, Done, answer, concerns_workers, fail_appends};
use super::error::SpoolError;
use super::journal::{self, Journal, entry};
use super::open::{self, Database, database_path};
use super::recent::Recent;
use super::store::{self, Counters};
use super::tail::Tail;
use super::unsettled::{self, Unsettled};
use super::upkeep;
use super::{Appended, SpoolOptions};
use crate::clock::Clock;
use crate::record::{DeadLetter, Reason};
use crate::telemetry::{DeadLetterBuried, DeadLetterDropped};

/// How many commands are taken at once.
const MAX_BATCH: usize = 512;
/// How many rows one clean-up removes: it must not hold up a commit for long, and must keep up with full batches.
pub(super) const PRUNE_ROWS: u32 = 1024;
/// How long the writer waits for a command before it settles, cleans up and checkpoints.
pub(super) const IDLE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    pub(super) folder: PathBuf,
    pub(super) database: Database,
    /// `None` where there is no room for one.
    pub(super) journal: Option<Journal>,
    pub(super) unsettled: Unsettled,
    pub(super) recent: Recent,
    /// A frame of the journal while it is made.
    pub(super) entries: Vec<u8>,
    pub(super) counters: Counters,
    pub(super) options: SpoolOptions,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tail: Arc<Tail>,
    pub(super) poisoned: Option<String>,
    /// A page of the database is damaged: nothing is pruned, so that what is there can be saved.
    pub(super) damaged: bool,
    /// The last events found no room, or the database was held by another program.
    pub(super) is_stuck: bool,
    pub(super) tidied: Instant,
    /// What the database used when it was last changed.
    pub(super) used_bytes: rusqlite::Result<u64>,
    /// How many records went to the database since it was last tidied, or were passed by it.
    pub(super) settled_records: usize,
    /// The thread was asked for upkeep, and has yet to do it.
    pub(super) has_asked: bool,
    /// The size of the log after it was last tidied.
    pub(super) log_at_rest: u64,
    /// When the last event was received. Its token was valid then, so this is a time that DT's clock vouches for, and what
    /// is too old is measured against it: a clock that jumps ahead must not wipe out what is known of duplicates.
    pub(super) vouched: i64,
}

impl Writer {
    /// Brings what a crash left in the journal to the database, and begins a new journal.
    pub(super) fn open(
        folder: &Path,
        mut database: Database,
        options: SpoolOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SpoolError> {
        let damage = recover(folder, &mut database)?;
        open::check_numbers(&database)?;
        let tail = Arc::new(Tail::new(database.last_seq));
        if let Some(damage) = &damage {
            tail.set_damage(damage.clone());
        }
        let counters = Counters { last_seq: database.last_seq, seen: database.seen };
        let mut writer = Self {
            folder: folder.to_owned(),
            database,
            journal: None,
            unsettled: Unsettled::default(),
            recent: Recent::default(),
            entries: Vec::new(),
            counters,
            options,
            clock,
            tail,
            poisoned: None,
            damaged: damage.is_some(),
            is_stuck: false,
            tidied: Instant::now(),
            used_bytes: Ok(0),
            settled_records: 0,
            has_asked: false,
            log_at_rest: 0,
            // Before the first event, nothing is too old.
            vouched: i64::MIN,
        };
        let failed = |error| SpoolError::sqlite(&*writer.database.path, "reading the sinks", &error);
        writer.unsettled.places = unsettled::places(&writer.database.connection).map_err(failed)?;
        writer.begin_journal()?;
        writer.measure();
        Ok(writer)
    }

    /// Without a journal, everything works and costs more: a full disk is no reason not to start.
    fn begin_journal(&mut self) -> Result<(), SpoolError> {
        if self.options.journal_bytes == 0 {
            return Ok(());
        }
        let made = Journal::create(&self.folder, self.options.journal_bytes);
        match made {
            Ok(journal) => {
                store::store_position(&self.database.connection, journal.first()).map_err(|error| {
                    SpoolError::sqlite(&*self.database.path, "beginning a journal", &error)
                })?;
                self.journal = Some(journal);
                Ok(())
            }
            Err(error) => {
                let path = journal::path(&self.folder);
                // What there is of it would only take room.
                let _removed = std::fs::remove_file(&path);
                let path = path.display();
                tracing::warn!(%path, %error, "there is no room for a journal; storing events costs more without one");
                Ok(())
            }
        }
    }

    /// The last thing that is done. A spool that is closed is one file again.
    fn end(&mut self) {
        self.tidy();
        if self.poisoned.is_none() && self.journal.take().is_some_and(|journal| journal.is_empty()) {
            // It is empty, so it may as well stay.
            let _removed = std::fs::remove_file(journal::path(&self.folder));
        }
    }

    fn commit(&mut self, mut batch: Vec<Command>) {
        for command in &batch {
            match command {
                Command::Bound { bounds } => self.options.set(bounds),
                Command::Upkeep => self.has_asked = false,
                _ => {}
            }
        }
        batch.retain(|command| !matches!(command, Command::Bound { .. } | Command::Upkeep));
        if let Some(text) = &self.poisoned {
            let error = SpoolError::Poisoned { path: self.folder.clone(), text: text.clone() };
            batch.into_iter().for_each(|command| command.fail(error.clone()));
            return;
        }
        if batch.iter().any(Command::appends)
            && let Some(full) = self.no_room_after_tidying()
        {
            batch = fail_appends(batch, &full);
        }
        let (light, mut others): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|command| self.is_for_journal(command));
        if !light.is_empty() {
            others.extend(self.note(light));
        }
        if !others.is_empty() {
            self.transact(others);
        }
    }

    /// Does all commands in the database, and brings along what is in the journal.
    pub(super) fn transact(&mut self, batch: Vec<Command>) {
        // The journal may have failed a moment ago, and nobody knows what it holds.
        if let Some(text) = &self.poisoned {
            let error = SpoolError::Poisoned { path: self.folder.clone(), text: text.clone() };
            batch.into_iter().for_each(|command| command.fail(error.clone()));
            return;
        }
        match self.transaction(&batch) {
            Ok(done) => {
                self.settled(self.counters.last_seq);
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
                if rest.len() < count && !rest.is_empty() {
                    // Cursors and dead letters may still find room.
                    self.transact(rest);
                } else {
                    rest.into_iter().for_each(|command| command.fail(full.clone()));
                }
            }
            Err(error) if is_damage(&error) && !self.damaged => {
                // Most likely in what was to be pruned.
                self.stop_pruning(&error);
                self.transact(batch);
            }
            Err(error) => {
                let error = self.failed(&error);
                batch.into_iter().for_each(|command| command.fail(error.clone()));
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
        let next = self.journal.as_ref().filter(|journal| !journal.is_empty());
        let (last_seq, next) =
            (counters.last_seq, next.map(|journal| journal.first_after(counters.last_seq)));
        self.unsettled.store(&transaction, &self.options, &mut counters, last_seq, next)?;
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
                Command::Settle { .. } => Done::Settled,
                Command::Upkeep | Command::Bound { .. } => Done::Bound,
            });
        }
        let has_added = counters.last_seq != self.counters.last_seq || !self.unsettled.records.is_empty();
        let limit = self.unsettled.prune_rows();
        if !self.damaged
            && (has_added || batch.iter().any(|command| matches!(command, Command::Advance { .. })))
        {
            store::prune_records(&transaction, &self.options, vouched, limit)?;
        }
        let mut forgotten = 0;
        if has_added {
            forgotten = store::prune_seen(&transaction, &mut counters, &self.options, vouched, limit)?;
        }
        store::store_counters(&transaction, counters)?;
        let places = unsettled::places(&transaction)?;
        transaction.commit()?;
        (self.counters, self.vouched, self.unsettled.places) = (counters, vouched, places);
        self.remember(batch, &done, forgotten, now);
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

    /// What the transaction changed is known in memory as well.
    fn remember(&mut self, batch: &[Command], done: &[Done], forgotten: usize, now: i64) {
        if forgotten > 0 {
            self.recent.forget(self.unsettled.known_since());
        }
        if self.options.dedup_window.is_zero() {
            return;
        }
        // Only what was stored now: a copy keeps its time, and what was gone never came in.
        for (command, done) in batch.iter().zip(done) {
            match (command, done) {
                (Command::Append { record, dedup: true, .. }, Done::Appended(Appended::New(_))) => {
                    self.recent.note(record, now);
                }
                (Command::Change { changes, .. }, Done::Changed(changed)) => {
                    for (change, changed) in changes.iter().zip(changed) {
                        if let (Change::Accept { record, dedup: true, .. }, Changed::Done) = (change, changed)
                        {
                            self.recent.note(record, now);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Does something with the writer. After a panic on the way nobody knows what it holds: an event may be known and not
/// stored.
pub(super) fn guarded<T>(writer: &mut Writer, work: impl FnOnce(&mut Writer) -> T) -> T {
    struct Guard<'a>(&'a mut Writer);

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.distrust();
            }
        }
    }

    let guard = Guard(writer);
    work(&mut *guard.0)
}

/// The writer's thread: does what is asked for until nobody can ask any more. `aside` is a connection of its own, with
/// which the journal is brought to the database while events are accepted.
pub(super) fn run(appends: &Appends, commands: &mpsc::Receiver<Command>, mut aside: Connection) {
    /// Without this thread nothing is settled, and nobody would be told.
    struct Ends<'a>(&'a Appends);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.with_writer(Writer::distrust);
                self.0.close();
            }
        }
    }

    let _ends = Ends(appends);
    loop {
        let (first, is_idle) = match commands.recv_timeout(IDLE) {
            Ok(first) => (Some(first), false),
            Err(mpsc::RecvTimeoutError::Timeout) => (None, true),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        appends.with_writer(|writer| {
            // What nobody leads any more comes along.
            let batch: Vec<Command> =
                appends.take().into_iter().chain(first).chain(commands.try_iter().take(MAX_BATCH)).collect();
            if !batch.is_empty() {
                writer.commit(batch);
            }
        });
        upkeep::relieve(appends, &mut aside, is_idle);
        appends.with_writer(|writer| if is_idle { writer.tidy() } else { writer.tidy_if_due() });
    }
    // Before the other one, which is to leave one file behind.
    drop(aside);
    appends.with_writer(Writer::end);
    appends.close();
}

/// Brings what a crash left in the journal to the database. Gives what is wrong with the journal, if anything: the rest of
/// it is in the database then, and the file is kept under another name.
pub(super) fn recover(folder: &Path, database: &mut Database) -> Result<Option<String>, SpoolError> {
    let failed =
        |error: rusqlite::Error| SpoolError::sqlite(database_path(folder), "recovering the journal", &error);
    let path = journal::path(folder);
    let Some(position) = store::position(&database.connection).map_err(failed)? else {
        return set_aside_unknown(folder, &path);
    };
    let recovered = journal::recover(&path, position)
        .map_err(|error| SpoolError::io(&path, "reading the journal", &error))?;
    if recovered.is_empty() {
        return Ok(None);
    }
    let places = unsettled::places(&database.connection).map_err(failed)?;
    let mut unsettled = Unsettled { places, ..Unsettled::default() };
    let mut damage = recovered.lost.map(|(first, last)| {
        format!("{}: the frames {first} to {last} of the journal cannot be read", path.display())
    });
    for frame in recovered.frames() {
        match entry::read(frame) {
            Some(entries) => entries.iter().for_each(|entry| unsettled.take(entry)),
            None => damage = Some(format!("{}: a frame of the journal has unknown entries", path.display())),
        }
    }
    if let Some(damage) = &damage {
        let kept = folder.join(format!("spool.journal.damaged-{}", position.id));
        // Durable before the journal itself is written over.
        std::fs::copy(&path, &kept)
            .and_then(|_| File::open(&kept)?.sync_all())
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|error| SpoolError::io(&kept, "keeping a damaged journal", &error))?;
        tracing::error!(error = damage, kept = %kept.display(), "accepted events may be lost");
    }
    let last_seq = unsettled.records.back().map_or(database.last_seq, |pending| pending.seq);
    let mut counters = Counters { last_seq: database.last_seq, seen: database.seen };
    // Whatever was read is not read again, and everything is kept that a sink may not have.
    let options = SpoolOptions { retain: Duration::MAX, ..SpoolOptions::default() };
    let next = journal::Position::first();
    let transaction =
        database.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    unsettled.store(&transaction, &options, &mut counters, last_seq, Some(next)).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    (database.last_seq, database.seen) = (last_seq, counters.seen);
    Ok(damage)
}

/// A database that knows of no journal, such as a rebuilt one whose old one could not say, says nothing of the frames that
/// are there: they are not taken over, and not written over either. Gives what there is to say.
fn set_aside_unknown(folder: &Path, path: &Path) -> Result<Option<String>, SpoolError> {
    let failed = |error: std::io::Error| SpoolError::io(path, "setting an unknown journal aside", &error);
    if !journal::has_frames(path).map_err(failed)? {
        return Ok(None);
    }
    let name = journal::Position::first().id.cast_unsigned();
    let kept = folder.join(format!("spool.journal.damaged-{name}"));
    std::fs::rename(path, &kept).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    let damage =
        format!("{}: a journal that the database does not know; it is kept as it was", kept.display());
    tracing::error!(error = damage, "accepted events may be lost");
    Ok(Some(damage))
}

/// Whether it failed for want of space. SQLite has a code of its own for its shared memory, which is a file as well.
pub(super) fn is_no_space(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Whether a page of the database cannot be read.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Whether another program holds the database.
pub(super) fn is_held(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

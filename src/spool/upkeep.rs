//! What the writer does beside the commits: it brings the journal to the database, removes what nobody needs any more,
//! writes the log back, and knows whether there is room and what is wrong.

use std::io;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::SpoolOptions;
use super::appends::Appends;
use super::error::SpoolError;
use super::journal::{Journal, Position};
use super::open::BUSY_WAIT;
use super::store::{self, Counters};
use super::unsettled::Unsettled;
use super::writer::{IDLE, PRUNE_ROWS, Writer, is_damage, is_held, is_no_space};

/// The size of the log at which it is cut.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// After so many records the log is written back: their events, known as duplicates, are about half a megabyte of it.
const CHECKPOINT_RECORDS: usize = 4096;
/// How long the writer waits for readers before it cuts the log another time.
pub(super) const CUT_WAIT: Duration = Duration::from_millis(20);

/// A part of the journal on its way to the database.
struct Part {
    unsettled: Unsettled,
    up_to: i64,
    next: Option<Position>,
    counters: Counters,
    options: SpoolOptions,
    vouched: i64,
    damaged: bool,
}

/// What became of it.
#[derive(Clone, Copy)]
struct Stored {
    seen: u64,
    /// How many events are no longer known.
    forgotten: usize,
}

impl Part {
    fn store(&self, connection: &mut Connection) -> rusqlite::Result<Stored> {
        let Self { unsettled, up_to, next, options, vouched, .. } = self;
        let mut counters = self.counters;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        unsettled.store(&transaction, options, &mut counters, *up_to, *next)?;
        let mut forgotten = 0;
        if !self.damaged {
            let limit = unsettled.prune_rows();
            store::prune_records(&transaction, options, *vouched, limit)?;
            forgotten = store::prune_seen(&transaction, &mut counters, options, *vouched, limit)?;
        }
        store::store_counters(&transaction, Counters { last_seq: *up_to, ..counters })?;
        transaction.commit()?;
        Ok(Stored { seen: counters.seen, forgotten })
    }
}

/// Brings a part of the journal to the database, or all of it when there is time, and writes the log back when that is
/// due. Events are accepted meanwhile.
pub(super) fn relieve(appends: &Appends, aside: &mut Connection, is_idle: bool) {
    let mut takes_all = is_idle;
    while let Some(part) = appends.with_writer(|writer| writer.next_part(takes_all)).flatten() {
        // What comes meanwhile may wait.
        takes_all = false;
        match part.store(aside) {
            Ok(stored) => drop(appends.with_writer(|writer| writer.took(&part, stored))),
            // Another time; events are told of it when there is no room left.
            Err(error) if is_no_space(&error) || is_held(&error) => break,
            Err(error) => {
                appends.with_writer(|writer| {
                    if is_damage(&error) && !writer.damaged {
                        writer.stop_pruning(&error);
                    } else {
                        drop(writer.failed(&error));
                    }
                });
            }
        }
    }
    let is_due = |writer: &mut Writer| {
        let is_due = writer.settled_records >= CHECKPOINT_RECORDS;
        if is_due {
            writer.settled_records = 0;
        }
        is_due
    };
    if appends.with_writer(is_due) == Some(true)
        && let Err(error) = aside.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        && !is_no_space(&error)
        && !is_held(&error)
    {
        appends.with_writer(|writer| drop(writer.failed(&error)));
    }
}

impl Writer {
    /// Brings the oldest part of the journal to the database, so that there is room for more.
    pub(super) fn settle_oldest(&mut self) -> Result<(), SpoolError> {
        let oldest = self.journal.as_ref().and_then(Journal::oldest_part);
        match self.settle(oldest.unwrap_or(self.counters.last_seq)) {
            Err(error) if is_damage(&error) && !self.damaged => {
                self.stop_pruning(&error);
                self.settle_oldest()
            }
            settled => settled.map_err(|error| self.failed(&error)),
        }
    }

    /// Settles everything that there is, but does not wait long for another program that holds the database: events wait
    /// meanwhile, and the journal has room.
    fn settle_all(&mut self) -> rusqlite::Result<()> {
        self.database.connection.busy_timeout(CUT_WAIT)?;
        let settled = self.settle(self.counters.last_seq);
        self.database.connection.busy_timeout(BUSY_WAIT)?;
        settled
    }

    /// Brings everything up to a number to the database, and removes from it what nobody needs any more.
    fn settle(&mut self, up_to: i64) -> rusqlite::Result<()> {
        let part = self.part(up_to);
        let stored = part.store(&mut self.database.connection)?;
        self.took(&part, stored);
        Ok(())
    }

    /// What is settled next while events are accepted: everything, or else a part when more than half of the journal is in
    /// use.
    fn next_part(&self, takes_all: bool) -> Option<Part> {
        let journal = self.journal.as_ref().filter(|journal| !journal.is_empty())?;
        if self.poisoned.is_some() {
            return None;
        }
        if takes_all {
            return Some(self.part(self.counters.last_seq));
        }
        (journal.used() > journal.size() / 2).then_some(())?;
        Some(self.part(journal.oldest_part()?))
    }

    fn part(&self, up_to: i64) -> Part {
        Part {
            unsettled: self.unsettled.up_to(up_to),
            up_to,
            next: self.journal.as_ref().map(|journal| journal.first_after(up_to)),
            counters: self.counters,
            options: self.options.clone(),
            vouched: self.vouched,
            damaged: self.damaged,
        }
    }

    /// A part is in the database. Whatever was accepted since is not part of it.
    fn took(&mut self, part: &Part, stored: Stored) {
        self.counters.seen = stored.seen;
        for (sink, place) in &part.unsettled.places {
            if place.cursor <= part.up_to
                && let Some(now) = self.unsettled.places.get_mut(sink)
                && (now.cursor, &now.checkpoint) == (place.cursor, &place.checkpoint)
            {
                now.is_stored = true;
            }
        }
        self.settled(part.up_to);
        let since = self.unsettled.known_since();
        if stored.forgotten > 0 {
            self.recent.forget(since);
        } else {
            self.recent.trim(since);
        }
    }

    /// The database has everything up to a number.
    pub(super) fn settled(&mut self, up_to: i64) {
        let before = self.unsettled.records.len();
        self.unsettled.is_stored(up_to);
        let after = self.unsettled.records.len();
        self.settled_records = self.settled_records.saturating_add(before.saturating_sub(after));
        if let Some(journal) = &mut self.journal {
            journal.release(up_to);
        }
        let is_all =
            up_to == self.counters.last_seq && self.unsettled.places.values().all(|place| place.is_stored);
        self.tail.settled(up_to, is_all);
        self.measure();
    }

    /// How much the database uses now.
    pub(super) fn measure(&mut self) {
        self.used_bytes =
            store::used_bytes(&self.database.connection, &self.database.path, self.counters.seen);
    }

    /// What cannot wait until nothing is asked for: room has to be made, or the log has grown.
    pub(super) fn tidy_if_due(&mut self) {
        let has_grown = self.log_bytes() > self.log_at_rest.saturating_add(CHECKPOINT_BYTES);
        if has_grown || (self.is_stuck && self.tidied.elapsed() >= IDLE) {
            self.tidy();
        }
    }

    /// The same as [`no_room`](Self::no_room), once what can be freed is.
    pub(super) fn no_room_after_tidying(&mut self) -> Option<SpoolError> {
        let full = self.no_room()?;
        self.stick(&full);
        if self.log_bytes() > self.log_at_rest
            || self.journal.as_ref().is_some_and(|journal| !journal.is_empty())
        {
            // The log and the journal count as used until they are written back.
            self.tidy();
        }
        let full = self.no_room();
        if let Some(full) = &full {
            self.stick(full);
        }
        full
    }

    /// What a failed transaction means for those who asked for it.
    pub(super) fn failed(&mut self, error: &rusqlite::Error) -> SpoolError {
        if is_no_space(error) {
            let full = SpoolError::Full { path: self.folder.clone(), text: error.to_string() };
            self.stick(&full);
            return full;
        }
        if is_held(error) {
            // Somebody writes to it with a tool. Nothing was written here, and it will pass.
            let path = self.database.path.clone();
            let held = SpoolError::Database { path, doing: "writing", text: error.to_string() };
            self.stick(&held);
            return held;
        }
        self.poison(&SpoolError::sqlite(&*self.database.path, "writing", error))
    }

    /// What it means that a frame of the journal was not written.
    pub(super) fn not_written(&mut self, error: &io::Error) -> SpoolError {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let full = SpoolError::Full { path: self.folder.clone(), text: error.to_string() };
            self.stick(&full);
            return full;
        }
        let path = super::journal::path(&self.folder);
        self.poison(&SpoolError::io(path, "writing the journal", error))
    }

    /// Why no event can be taken now, if there is no room.
    pub(super) fn no_room(&self) -> Option<SpoolError> {
        let full = |text: String| Some(SpoolError::Full { path: self.folder.clone(), text });
        let used = match &self.used_bytes {
            Ok(used) => used.saturating_add(self.journal.as_ref().map_or(0, Journal::used)),
            Err(error) => return full(error.to_string()),
        };
        if used >= self.options.max_size {
            return full(format!("{used} bytes are used, and `max_size` is {}", self.options.max_size));
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
    pub(super) fn tidy(&mut self) {
        if self.poisoned.is_some() {
            return;
        }
        let mut pruned = self.prune_or_settle();
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
            Err(error) => drop(self.failed(&error)),
        }
        self.measure();
        self.settled_records = 0;
        self.tidied = Instant::now();
        // A log that a reader holds back is not tried again with every commit.
        self.log_at_rest = self.log_bytes();
    }

    /// What a panic left is not built upon.
    pub(super) fn distrust(&mut self) {
        let (path, text) = (self.database.path.clone(), "a panic on the way".to_owned());
        self.poison(&SpoolError::Database { path, doing: "writing", text });
    }

    /// Nobody knows what is on the disk: stops for good, and says so with the cure.
    fn poison(&mut self, error: &SpoolError) -> SpoolError {
        let text = error.to_string();
        tracing::error!(error = text, "the spool cannot be written to; restart to look again");
        let poisoned = SpoolError::Poisoned { path: self.folder.clone(), text: text.clone() };
        self.tail.set_trouble(Some(poisoned.to_string()));
        self.poisoned = Some(text);
        poisoned
    }

    /// Events find no place for now; `/readyz` says why.
    pub(super) fn stick(&mut self, error: &SpoolError) {
        self.tail.set_trouble(Some(error.to_string()));
        self.is_stuck = true;
    }

    pub(super) fn unstick(&mut self) {
        if self.is_stuck {
            self.tail.set_trouble(None);
            self.is_stuck = false;
        }
    }

    /// Keeps all that is there until a restart looks again; events are accepted as long as there is room.
    pub(super) fn stop_pruning(&mut self, error: &rusqlite::Error) {
        let text = SpoolError::sqlite(&self.database.path, "pruning", error).to_string();
        tracing::error!(error = text, "a page of the spool is damaged; records are no longer pruned");
        self.tail.set_damage(text);
        self.damaged = true;
    }

    /// Settles what there is to be settled, which prunes as well; otherwise only prunes.
    fn prune_or_settle(&mut self) -> rusqlite::Result<()> {
        if self.journal.as_ref().is_some_and(|journal| !journal.is_empty()) {
            return self.settle_all();
        }
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
        if seen > 0 {
            self.recent.forget(self.unsettled.known_since());
        }
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

//! The look-up thread: loads the filters, then asks the file about keys that passed them.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::sqlite;
use super::key::Key;
use super::{IdsError, Shared, Slot, table};

/// How many pages the connection of look-ups keeps, in KiB: the inner ones of the B-trees.
pub(super) const READER_CACHE_KIB: i64 = 512;

/// A question.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) key: Key,
    pub(super) reply: oneshot::Sender<Result<bool, IdsError>>,
}

impl Shared {
    /// Answers until the queue is closed.
    pub(super) fn serve(&self, lookups: &mpsc::Receiver<Lookup>) {
        // Without filters each question would read all periods, so loading them first is faster for everybody who waits.
        self.load_filters();
        for Lookup { key, reply } in lookups {
            if !reply.is_closed() {
                let _gone = reply.send(self.contains(key));
            }
        }
    }

    /// Loads the filters that are not there yet, newest first. What cannot be loaded stays without: its pages are asked.
    fn load_filters(&self) {
        let missing = self.periods.read().iter().rev().map(|period| period.id).collect::<Vec<_>>();
        for id in missing {
            // Each on its own, so that `store` waits for one at most.
            let mut writer = self.writer.lock();
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            let is_missing =
                self.periods.read().iter().any(|period| period.id == id && period.filter.is_none());
            if !is_missing {
                continue;
            }
            let Ok(filter) = self.with(&mut writer, |connection| self.filter_of(connection, id)) else {
                continue;
            };
            if let Some(period) = self.periods.write().iter_mut().find(|period| period.id == id) {
                period.filter = Some(Arc::new(filter));
            }
        }
    }

    /// Whether a key is stored.
    pub(super) fn contains(&self, key: Key) -> Result<bool, IdsError> {
        let periods = self.periods.read();
        let may: Vec<i64> =
            periods.iter().rev().filter(|period| period.may_contain(key)).map(|period| period.id).collect();
        drop(periods);
        if may.is_empty() {
            return Ok(false);
        }
        self.file_reads.fetch_add(1, Ordering::Relaxed);
        let mut reader = self.reader.lock();
        for period in may {
            let found = self.with(&mut reader, |connection| self.ask(connection, period, key))?;
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ask(&self, connection: &mut Connection, period: i64, key: Key) -> Result<bool, IdsError> {
        let found = table::contains(connection, period, key);
        // It may have been dropped since its filter was asked.
        if found.is_err()
            && table::periods(connection).is_ok_and(|rows| rows.iter().all(|row| row.id != period))
        {
            return Ok(false);
        }
        found.map_err(|error| self.named("looking up an id", error))
    }

    /// Runs something on a connection, which is opened for it if it is not open. An error closes it: the next one begins
    /// afresh, so that none lasts longer than its cause.
    pub(super) fn with<T>(
        &self,
        slot: &mut Slot,
        run: impl FnOnce(&mut Connection) -> Result<T, IdsError>,
    ) -> Result<T, IdsError> {
        let mut open = match slot.connection.take() {
            Some(open) => open,
            None => connect(&self.path, slot.cache_kib)
                .map_err(|error| IdsError::sqlite(&self.path, "opening", &error))?,
        };
        let done = run(&mut open)?;
        slot.connection = Some(open);
        Ok(done)
    }
}

/// Opens the file for writing. Without `EXTRA`, a journal that was deleted could be back after a power loss, and undo the
/// call that was reported stored.
pub(super) fn connect(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = sqlite::open(path, cache_kib)?;
    sqlite::set_journal_mode(&connection, "DELETE", "EXTRA")?;
    Ok(connection)
}

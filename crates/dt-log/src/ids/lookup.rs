//! The look-up thread: loads the filters, then looks up keys that passed a filter in the file.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::sqlite;
use super::key::Key;
use super::{IdsError, IndexShared, LazyConnection, table};

/// The size of the page cache of the connection for look-ups, in KiB. The inner pages of the B-trees fit.
pub const READER_CACHE_KIB: i64 = 512;

/// A key to look up, and the channel for the result.
#[derive(Debug)]
pub struct Lookup {
    pub key: Key,
    pub reply: oneshot::Sender<Result<bool, IdsError>>,
}

impl IndexShared {
    /// Serves look-ups until the queue is closed.
    pub fn serve(&self, lookups: &mpsc::Receiver<Lookup>) {
        // Without filters each look-up would read all periods, so the filters are loaded first.
        self.load_filters();
        for Lookup { key, reply } in lookups {
            if !reply.is_closed() {
                let _gone = reply.send(self.contains(key));
            }
        }
    }

    /// Loads the missing filters, newest first. A filter that cannot be loaded stays missing; look-ups read the pages of
    /// its period.
    fn load_filters(&self) {
        let missing = self.periods.read().iter().rev().map(|period| period.id).collect::<Vec<_>>();
        for id in missing {
            // One at a time, so that `store` waits for at most one.
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

    /// Returns whether a key is stored.
    pub fn contains(&self, key: Key) -> Result<bool, IdsError> {
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
        // The period may have been dropped since its filter was checked.
        if found.is_err()
            && table::periods(connection).is_ok_and(|rows| rows.iter().all(|row| row.id != period))
        {
            return Ok(false);
        }
        found.map_err(|error| self.named("looking up an id", error))
    }

    /// Calls a closure with a connection, which is opened if necessary. An error closes the connection, so that the next call
    /// opens a new one. Damage is recorded for [`Ids::damage`](super::Ids::damage).
    pub fn with<T>(
        &self,
        lazy: &mut LazyConnection,
        run: impl FnOnce(&mut Connection) -> Result<T, IdsError>,
    ) -> Result<T, IdsError> {
        let run = || {
            let mut open = match lazy.connection.take() {
                Some(open) => open,
                None => connect(&self.path, lazy.cache_kib)
                    .map_err(|error| IdsError::sqlite(&self.path, "opening", &error))?,
            };
            let done = run(&mut open)?;
            lazy.connection = Some(open);
            Ok(done)
        };
        run().inspect_err(|error: &IdsError| {
            if error.is_damage() {
                self.damage.lock().get_or_insert_with(|| error.clone());
            }
        })
    }
}

/// Opens the file for writing. Without `EXTRA`, a deleted journal could reappear after a power loss, and undo a call that
/// was reported as stored.
pub fn connect(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = sqlite::open(path, cache_kib)?;
    sqlite::set_journal_mode(&connection, "DELETE", "EXTRA")?;
    Ok(connection)
}

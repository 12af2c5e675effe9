//! Reading, each reader on a connection of its own and in short transactions, so that none holds back the log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::Commands;
use super::command::Command;
use super::error::SpoolError;
use super::open::{check_readable, database_path};
use super::row::{self, COLUMNS};
use super::tail::Tail;
use crate::record::{DeadLetter, Record};

/// How many bytes of bodies are read at once.
pub(super) const MAX_BYTES: usize = 8 << 20;

/// So many records in a row that cannot be read are no damaged records but a damaged database.
const UNREADABLE: usize = 256;

/// How many pages a reader beside the writer keeps, in KiB. A sink's worker reads on from where it was, and comes by each
/// page once.
const CACHE_KIB: i64 = 256;

/// How long a reader waits for what was accepted last to be in the database.
const SETTLE_WAIT: Duration = Duration::from_secs(10);

/// A record with its number.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its number: records are delivered in this order.
    pub seq: i64,
    /// The record, without the headers of its request; or what is left of it, if it was damaged on the disk.
    pub record: Result<Arc<Record>, Box<DeadLetter>>,
}

impl Stored {
    fn body_bytes(&self) -> usize {
        self.record.as_ref().map_or_else(|letter| letter.body.len(), |record| record.body.len())
    }
}

/// Reads a spool, beside its writer or without one.
#[derive(Debug)]
pub struct Reader {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    /// The writer in this process, which knows more than the database.
    writer: Option<(Commands, Arc<Tail>)>,
}

impl Reader {
    /// The same beside the writer of this process: what was acknowledged before a question is part of the answer.
    pub(super) fn beside(folder: &Path, commands: Commands, tail: Arc<Tail>) -> Result<Self, SpoolError> {
        let reader = Self { writer: Some((commands, tail)), ..Self::open(folder)? };
        reader
            .connection
            .pragma_update(None, "cache_size", -CACHE_KIB)
            .map_err(|error| SpoolError::sqlite(&*reader.path, "opening", &error))?;
        Ok(reader)
    }

    /// Opens the spool in `folder` for reading. What its journal holds is not seen; see [`settle`](super::settle).
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when the database cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        let path = database_path(folder);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            Ok(connection)
        });
        let connection = opened.map_err(|error| SpoolError::sqlite(&*path, "opening", &error))?;
        check_readable(&connection, &path)?;
        Ok(Self { path, connection, writer: None })
    }

    /// Has the database know everything that was acknowledged before.
    pub(super) fn settle(&self) -> Result<(), SpoolError> {
        self.settle_within(SETTLE_WAIT)
    }

    pub(super) fn settle_within(&self, patience: Duration) -> Result<(), SpoolError> {
        let Some((commands, tail)) = &self.writer else { return Ok(()) };
        if tail.is_settled() {
            return Ok(());
        }
        // One that was closed has settled.
        let Some(commands) = commands.lock().clone() else { return Ok(()) };
        let (reply, answer) = mpsc::sync_channel(1);
        commands.try_send(Command::Settle { reply }).map_err(|_| SpoolError::Overloaded)?;
        answer.recv_timeout(patience).map_err(|_| SpoolError::Overloaded)?
    }

    /// Up to `limit` records after `seq`, in order; fewer when their bodies are large, but at least one if there is one.
    /// Where a page of the database is damaged, those that can be read are read one by one.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when none of them can be read.
    pub fn after(&self, seq: i64, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        self.settle()?;
        self.stored_after(seq, limit)
    }

    /// The same of those that are in the database already.
    pub(super) fn stored_after(&self, seq: i64, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        let read = || -> rusqlite::Result<Vec<Stored>> {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT seq, {COLUMNS}, signatures, header_names FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            within_bytes(statement.query_map(params![seq, limit], row::stored)?)
        };
        match read() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                self.one_by_one(seq, limit, &error)
            }
            read => self.named(read),
        }
    }

    /// The same past damaged pages: a record that cannot be read does not keep back the others. Where none of a whole
    /// stretch can be, it is no record that is damaged but the database, and `damage` is what there is to say. Empty only
    /// when there is nothing after `seq`.
    fn one_by_one(
        &self,
        seq: i64,
        limit: usize,
        damage: &rusqlite::Error,
    ) -> Result<Vec<Stored>, SpoolError> {
        let is_damage =
            |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt);
        let read = || -> rusqlite::Result<Option<Vec<Stored>>> {
            let number = |query: &str, seq: i64| {
                self.connection.prepare_cached(query)?.query_row([seq], |row| row.get::<_, Option<i64>>(0))
            };
            let last = number("SELECT value FROM counts WHERE name = 'last_seq' AND ?1 IS NOT NULL", seq)?;
            let one = |what: &str, seq: i64| {
                let query =
                    format!("SELECT seq, {what}, signatures, header_names FROM records WHERE seq = ?1");
                self.connection.prepare_cached(&query)?.query_row([seq], row::stored).optional()
            };
            // A body that cannot be read may lie on pages of its own.
            let without_body = COLUMNS.replace("body", "x''");
            let (last, mut next) = (last.unwrap_or(seq), seq.saturating_add(1));
            let (mut found, mut is_readable, mut unreadable, mut bytes) =
                (Vec::new(), false, 0_usize, 0_usize);
            while next <= last {
                let is_full = found.len() >= limit || bytes > MAX_BYTES;
                if is_full && is_readable {
                    break;
                }
                let seq = next;
                next = next.saturating_add(1);
                let stored = match one(COLUMNS, seq) {
                    Ok(None) => {
                        // What was pruned long ago is passed at once, unless that leads over a damaged page.
                        let later = number("SELECT min(seq) FROM records WHERE seq > ?1", seq);
                        next = later.map_or(next, |later| later.unwrap_or(i64::MAX));
                        continue;
                    }
                    Ok(Some(stored)) => {
                        is_readable = true;
                        stored
                    }
                    Err(error) if is_damage(&error) => {
                        unreadable = unreadable.saturating_add(1);
                        if !is_readable && unreadable >= UNREADABLE {
                            return Ok(None);
                        }
                        let error = format!("the stored record {seq} cannot be read: {error}");
                        let mut letter = match one(&without_body, seq) {
                            Ok(Some(Stored { record: Err(letter), .. })) => letter,
                            _ => row::lost(String::new()),
                        };
                        letter.error = error;
                        Stored { seq, record: Err(letter) }
                    }
                    Err(error) => return Err(error),
                };
                if !is_full {
                    bytes = bytes.saturating_add(stored.body_bytes());
                    found.push(stored);
                }
            }
            Ok(Some(found))
        };
        match self.named(read())? {
            Some(found) => Ok(found),
            None => Err(SpoolError::sqlite(&*self.path, "reading", damage)),
        }
    }

    /// Up to `limit` records after `seq` that were received at or after `since` and, where a sink is named, that it has
    /// not passed. The second value is the number to go on after; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when they cannot be read.
    pub fn export(
        &self,
        since: i64,
        sink: Option<&str>,
        seq: i64,
        limit: usize,
    ) -> Result<(Vec<Stored>, Option<i64>), SpoolError> {
        let passed = match sink {
            Some(sink) => self.cursor(sink)?.unwrap_or(i64::MAX),
            None => i64::MIN,
        };
        let mut stored = self.after(seq.max(passed), limit)?;
        let next = stored.last().map(|stored| stored.seq);
        // Of a damaged one nobody knows.
        stored.retain(|stored| stored.record.as_ref().map_or(true, |record| record.received_at >= since));
        Ok((stored, next))
    }

    /// The number of the first record that was received at or after `since`. It looks at a part at a time, so that no
    /// transaction is long.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when the records cannot be read.
    pub fn first_since(&self, since: i64) -> Result<Option<i64>, SpoolError> {
        /// How many records one transaction looks at.
        const PART: i64 = 10_000;
        self.settle()?;
        let Some((first, last)) = self.bounds()? else { return Ok(None) };
        let mut from = first;
        while from <= last {
            let to = from.saturating_add(PART);
            let found: Option<i64> = self.named(
                self.connection
                    .prepare_cached(
                        "SELECT seq FROM records WHERE seq >= ?1 AND seq < ?2 AND received_at >= ?3
                         ORDER BY seq LIMIT 1",
                    )
                    .and_then(|mut statement| {
                        statement.query_row(params![from, to, since], |row| row.get(0)).optional()
                    }),
            )?;
            if found.is_some() {
                return Ok(found);
            }
            from = to;
        }
        Ok(None)
    }

    /// The first and the last number that there is.
    pub(super) fn bounds(&self) -> Result<Option<(i64, i64)>, SpoolError> {
        let read = || -> rusqlite::Result<Option<(i64, i64)>> {
            let ends = |end| self.connection.query_row(end, [], |row| row.get::<_, Option<i64>>(0));
            let (first, last) =
                (ends("SELECT min(seq) FROM records")?, ends("SELECT max(seq) FROM records")?);
            Ok(first.zip(last))
        };
        self.named(read())
    }

    /// How far a sink is; `None` when it is not known here.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when that cannot be read.
    pub fn cursor(&self, sink: &str) -> Result<Option<i64>, SpoolError> {
        self.settle()?;
        let read = || {
            self.connection
                .prepare_cached("SELECT cursor FROM sinks WHERE name = ?1")?
                .query_row([sink], |row| row.get(0))
                .optional()
        };
        self.named(read())
    }

    /// Says at which database something failed.
    pub(super) fn named<T>(&self, read: rusqlite::Result<T>) -> Result<T, SpoolError> {
        read.map_err(|error| SpoolError::sqlite(&*self.path, "reading", &error))
    }
}

/// Takes rows until their bodies are too many bytes; the first one in any case.
pub(super) fn within_bytes(
    rows: impl Iterator<Item = rusqlite::Result<Stored>>,
) -> rusqlite::Result<Vec<Stored>> {
    let (mut taken, mut bytes) = (Vec::new(), 0_usize);
    for stored in rows {
        let stored = stored?;
        bytes = bytes.saturating_add(stored.body_bytes());
        taken.push(stored);
        if bytes > MAX_BYTES {
            break;
        }
    }
    Ok(taken)
}

//! Saves what can be read of a damaged spool into a new database, which takes the old one's place; the old file is kept
//! beside it. `sqlite3`'s own `.recover` would serve, but not every operator's build of that tool has it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params_from_iter};
use serde::Serialize;

use super::error::SpoolError;
use super::open::{self, BUSY_WAIT, check_readable, database_path};
use super::{schema, store};
use crate::clock::Clock;

/// How many rows are copied at once.
const PART: i64 = 256;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuilt {
    /// Records that were saved.
    pub records: u64,
    /// Records that could not be read.
    pub lost_records: u64,
    /// Dead letters that were saved.
    pub dead_letters: u64,
    /// Dead letters that could not be read.
    pub lost_dead_letters: u64,
    /// Whether the events known as duplicates could be read; otherwise those of the saved records are known.
    pub known_events: bool,
    /// The damaged database, as it was.
    pub kept: PathBuf,
}

/// Rebuilds the spool in `folder`, which nobody may have open. `step` is told what is copied next.
///
/// A crash on the way leaves the old database in its place, or the new one; never none.
///
/// # Errors
///
/// [`SpoolError`] when the spool is in use, is none, or its sinks cannot be read: without their cursors nobody would know
/// what was delivered. The old database is in its place then.
pub fn rebuild(folder: &Path, clock: &dyn Clock, mut step: impl FnMut(&str)) -> Result<Rebuilt, SpoolError> {
    let _lock = open::lock(folder)?;
    let path = database_path(folder);
    let new = folder.join("spool.db.new");
    let unusable = |path: &Path, doing| {
        let path = path.to_owned();
        move |error: std::io::Error| SpoolError::io(path, doing, &error)
    };
    for left in [&new, &with_suffix(&new, "-journal")] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(SpoolError::io(left, "removing what an earlier attempt left", &error));
            }
            _ => {}
        }
    }
    step("the write-ahead log");
    settle(&path)?;
    let mut rebuilt = copy(&path, &new, &mut step)?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(unusable(&new, "syncing"))?;
    let kept = folder.join(format!("spool.db.damaged-{}", clock.unix_seconds()));
    let log = with_suffix(&path, "-wal");
    if fs::metadata(&log).is_ok_and(|about| about.len() > 0) {
        let text = "the write-ahead log could not be written back; stop whatever has it open".to_owned();
        return Err(SpoolError::Database { path: log, doing: "rebuilding", text });
    }
    // The old one has its second name before it loses the first, and there is a database at every moment: without one, a
    // start would make an empty one.
    fs::hard_link(&path, &kept).map_err(unusable(&kept, "keeping the old database"))?;
    let sync = || File::open(folder).and_then(|folder| folder.sync_all());
    sync().map_err(unusable(folder, "syncing the folder"))?;
    fs::rename(&new, &path).map_err(unusable(&path, "putting the new database in its place"))?;
    sync().map_err(unusable(folder, "syncing the folder"))?;
    rebuilt.kept = kept;
    Ok(rebuilt)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes the log back into the old database, so that the file is all there is of it.
fn settle(path: &Path) -> Result<(), SpoolError> {
    let failed = |error: rusqlite::Error| SpoolError::sqlite(path, "writing the log back", &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let old = Connection::open_with_flags(path, flags).map_err(failed)?;
    old.busy_timeout(BUSY_WAIT).map_err(failed)?;
    check_readable(&old, path)?;
    old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)
}

fn copy(path: &Path, new: &Path, step: &mut impl FnMut(&str)) -> Result<Rebuilt, SpoolError> {
    let unread = |error: rusqlite::Error| SpoolError::sqlite(path, "reading", &error);
    let unwritten = |error: rusqlite::Error| SpoolError::sqlite(new, "writing", &error);
    let old = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(unread)?;
    let mut connection = Connection::open(new).map_err(unwritten)?;
    schema::create(&mut connection).map_err(unwritten)?;
    let new = connection.transaction().map_err(unwritten)?;
    let copying = Copying { old: &old, new: &new };
    // The first of these that can be read.
    let number = |queries: &[&str]| {
        let one = |query: &&str| old.query_row(query, [], |row| row.get::<_, Option<i64>>(0)).optional();
        queries.iter().find_map(|query| one(query).ok()).flatten().flatten().unwrap_or(0)
    };
    step("sinks");
    copying.all("sinks", "").map_err(unwritten)?.map_err(unread)?;
    // A sink's cursor is never beyond the last number that was given.
    let last_seq =
        number(&["SELECT value FROM counts WHERE name = 'last_seq'", "SELECT max(seq) FROM records"]).max(
            new.query_row("SELECT coalesce(max(cursor), 0) FROM sinks", [], |row| row.get(0))
                .map_err(unwritten)?,
        );
    step("records");
    let (records, lost_records) = copying.by_number("records", "seq", last_seq).map_err(unwritten)?;
    step("dead letters");
    let last_id =
        number(&["SELECT seq FROM sqlite_sequence WHERE name = 'dead'", "SELECT max(id) FROM dead"]);
    // The triggers count them.
    let (dead_letters, lost_dead_letters) = copying.by_number("dead", "id", last_id).map_err(unwritten)?;
    step("known events");
    let known_events = copying.all("seen", "").map_err(unwritten)?.is_ok();
    if !known_events {
        new.execute("INSERT OR IGNORE INTO seen SELECT connector, event_id, received_at FROM records", [])
            .map_err(unwritten)?;
    }
    new.execute(
        "UPDATE counts SET value = iif(name = 'seen', (SELECT count(*) FROM seen), ?1)
         WHERE name IN ('seen', 'last_seq')",
        [last_seq],
    )
    .map_err(unwritten)?;
    let not_stored = number(&["SELECT value FROM counts WHERE name = 'not_stored'"]);
    if not_stored > 0 {
        store::store_gap(&new, not_stored).map_err(unwritten)?;
    }
    // What the journal holds is still to come.
    if let Ok(Some(position)) = store::position(&old) {
        store::store_position(&new, position).map_err(unwritten)?;
    }
    step("syncing");
    new.commit().map_err(unwritten)?;
    let kept = path.to_owned();
    Ok(Rebuilt { records, lost_records, dead_letters, lost_dead_letters, known_events, kept })
}

/// From a database to another one.
struct Copying<'a> {
    old: &'a Connection,
    new: &'a Connection,
}

impl Copying<'_> {
    /// Copies the rows of a table for which a condition holds. Gives how many were copied, and how many hold what no such
    /// row may. The outer error is one of writing, the inner one of reading; what was read before it is copied.
    fn all(&self, table: &str, condition: &str) -> rusqlite::Result<rusqlite::Result<(u64, u64)>> {
        let mut statement = match self.old.prepare(&format!("SELECT * FROM {table} {condition}")) {
            Ok(statement) => statement,
            Err(error) => return Ok(Err(error)),
        };
        let columns = statement.column_count();
        let places = vec!["?"; columns].join(", ");
        let mut insert =
            self.new.prepare_cached(&format!("INSERT OR IGNORE INTO {table} VALUES ({places})"))?;
        let mut rows = match statement.query([]) {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error)),
        };
        let (mut copied, mut unfit) = (0_u64, 0_u64);
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Ok((copied, unfit))),
                Err(error) => return Ok(Err(error)),
            };
            let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|column| row.get(column)).collect();
            match values {
                Ok(values) => {
                    let count =
                        if insert.execute(params_from_iter(values))? > 0 { &mut copied } else { &mut unfit };
                    *count = count.saturating_add(1);
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Copies the rows with numbers up to `last`, a part at a time, and one by one where a part cannot be read. Gives how
    /// many were copied, and how many could not be.
    fn by_number(&self, table: &str, key: &str, last: i64) -> rusqlite::Result<(u64, u64)> {
        let first = self.old.query_row(&format!("SELECT min({key}) FROM {table}"), [], |row| row.get(0));
        // Of a damaged first page nobody knows; then all numbers are tried.
        let mut from: i64 = first.unwrap_or(Some(1)).unwrap_or(i64::MAX);
        let (mut copied, mut lost) = (0_u64, 0_u64);
        while from <= last {
            let to = from.saturating_add(PART);
            let part = self.all(table, &format!("WHERE {key} >= {from} AND {key} < {to}"))?;
            match part {
                Ok((rows, unfit)) => {
                    copied = copied.saturating_add(rows);
                    lost = lost.saturating_add(unfit);
                }
                Err(_) => {
                    // What was read of the part before it failed would count as unfit below.
                    self.new.execute(
                        &format!("DELETE FROM {table} WHERE {key} >= {from} AND {key} < {to}"),
                        [],
                    )?;
                    for number in from..to.min(last.saturating_add(1)) {
                        let one = self.all(table, &format!("WHERE {key} = {number}"))?;
                        let (row, unfit) = one.unwrap_or((0, 1));
                        copied = copied.saturating_add(row);
                        lost = lost.saturating_add(unfit);
                    }
                }
            }
            from = to;
        }
        Ok((copied, lost))
    }
}

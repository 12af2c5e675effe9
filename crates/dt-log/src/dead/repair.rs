//! What can be done with a `dead.db` that does not open: an older copy is used again, and a new file takes the place of
//! any other, with the letters that can still be read.

use std::path::Path;

use rusqlite::Connection;

use super::error::DeadError;
use super::open::{self, Expect, flush, open_writer};
use super::read::ReadOnly;
use super::schema::LETTER_TABLES;

/// How many letters in a row are tried one by one behind one that cannot be read.
const MAX_SKIPPED: i64 = 1000;

/// The id of the store that a file is of; `None` where it is not readable as dead letters.
pub(in super::super) fn store_of(path: &Path) -> Option<[u8; 16]> {
    ReadOnly::open(path).and_then(|reader| reader.found()).ok().map(|found| found.store_id)
}

/// Whether a file is of no store yet, or of one that never had a letter; then a new store takes it.
pub(in super::super) fn is_unclaimed(path: &Path) -> bool {
    let is_empty = std::fs::metadata(path).is_ok_and(|about| about.len() == 0);
    let found = ReadOnly::open(path).and_then(|reader| reader.found());
    is_empty || found.is_ok_and(|found| found.store_id == [0; 16] || found.highest_id == 0)
}

/// What keeps a file from being opened for a store whose log knows this highest id, if anything does.
pub(in super::super) fn problem(path: &Path, store_id: [u8; 16], highest_id: i64) -> Option<DeadError> {
    let read = || {
        open::prepare(path, Expect::Existing { store_id, highest_id })?;
        let reader = ReadOnly::open(path)?;
        reader.counts()?;
        reader.check()
    };
    read().err()
}

/// The highest id that a file of this store says was given; 0 where it cannot be read.
pub(in super::super) fn highest_in(path: &Path) -> i64 {
    ReadOnly::open(path).and_then(|reader| reader.highest_id()).unwrap_or(0)
}

/// Lets an older copy go on, above the highest id that is known.
pub(in super::super) fn raise(path: &Path, above: i64) -> Result<(), DeadError> {
    let connection = open_writer(path)?;
    go_above(&connection, path, above)?;
    flush(&connection, path)
}

/// Makes a new file, whose letters have ids above this one.
pub(in super::super) fn create(path: &Path, store_id: [u8; 16], above: i64) -> Result<(), DeadError> {
    open::create(path, store_id)?;
    raise(path, above)
}

/// Copies the letters that can be read from a damaged file. Returns how many.
pub(in super::super) fn salvage(from: &Path, to: &Path, highest: i64) -> Result<u64, DeadError> {
    const DOING: &str = "copying what can be read";
    let connection = open_writer(to)?;
    let failed = |error: rusqlite::Error| DeadError::sqlite(to, DOING, &error);
    let attached = connection.execute("ATTACH ?1 AS damaged", [from.to_string_lossy()]);
    if attached.is_err() {
        return Ok(0);
    }
    let mut saved = 0_u64;
    for table in LETTER_TABLES {
        let copy = format!(
            "INSERT OR IGNORE INTO main.{table} SELECT * FROM damaged.{table} WHERE id > ?1 AND id <= ?2"
        );
        let copy_range = |after: i64, to: i64| connection.execute(&copy, [after, to]);
        if let Ok(rows) = copy_range(0, i64::MAX) {
            saved = saved.saturating_add(u64::try_from(rows).unwrap_or(0));
            continue;
        }
        // From the front one by one up to the damage, and as far behind it as anything can be found.
        let (mut id, mut misses) = (0_i64, 0_i64);
        while id < highest && misses < MAX_SKIPPED {
            match copy_range(id, id.saturating_add(1)) {
                Ok(0) => {}
                Ok(_) => {
                    saved = saved.saturating_add(1);
                    misses = 0;
                }
                Err(_) => misses = misses.saturating_add(1),
            }
            id = id.saturating_add(1);
        }
    }
    connection.execute("DETACH damaged", []).map_err(failed)?;
    let last = connection
        .query_row("SELECT coalesce(max(id), 0) FROM letters", [], |row| row.get(0))
        .map_err(failed)?;
    go_above(&connection, to, last)?;
    flush(&connection, to)?;
    Ok(saved)
}

fn go_above(connection: &Connection, path: &Path, above: i64) -> Result<(), DeadError> {
    let raised = connection.execute("UPDATE store SET highest_id = max(highest_id, ?1)", [above]);
    raised.map(drop).map_err(|error| DeadError::sqlite(path, "raising the highest id", &error))
}

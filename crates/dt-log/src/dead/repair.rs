//! Repairs a `dead.db` that does not open: reuses an older copy, or creates a new file with the dead letters that are still
//! readable.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::super::repair::Saved;
use super::super::sqlite::{self, NextRow, Salvaged, is_unreadable};
use super::error::DeadError;
use super::open::{self, Expect, flush, open_writer};
use super::read::ReadOnly;
use super::schema::DEAD_LETTER_TABLES;

/// Returns the id of the store that a file belongs to; `None` if the file cannot be read as dead letters.
pub(in super::super) fn store_of(path: &Path) -> Option<[u8; 16]> {
    ReadOnly::open(path).and_then(|reader| reader.found()).ok().map(|found| found.store_id)
}

/// The highest plausible id of a dead letter; a higher one is damage. At a thousand dead letters a second, it is reached after 35
/// years.
pub(in super::super) const MAX_HIGHEST: i64 = 1 << 40;

/// Returns whether a new store may adopt a file: the file belongs to no store, or has never had a dead letter.
pub(in super::super) fn is_unclaimed(path: &Path) -> bool {
    let is_empty = std::fs::metadata(path).is_ok_and(|about| about.len() == 0);
    let found = ReadOnly::open(path).and_then(|reader| reader.found());
    is_empty || found.is_ok_and(|found| found.store_id == [0; 16] || found.highest_id == 0)
}

/// Returns why a file cannot be opened for a store whose log has recorded this highest id; `None` if it can.
pub(in super::super) fn problem(path: &Path, store_id: [u8; 16], highest_id: i64) -> Option<DeadError> {
    let read = || {
        open::prepare(path, Expect::Existing { store_id, highest_id })?;
        let reader = ReadOnly::open(path)?;
        reader.counts()?;
        reader.check()?;
        match reader.highest_id()? {
            ..=MAX_HIGHEST => Ok(()),
            found => {
                let text = format!("the highest id is {found}, which leaves no room for others");
                Err(DeadError::Damaged { path: path.to_owned(), text })
            }
        }
    };
    read().err()
}

/// Returns the highest id that a file has ever assigned; 0 if it cannot be read, or if no higher ids would be left.
pub(in super::super) fn highest_in(path: &Path) -> i64 {
    let found = ReadOnly::open(path).and_then(|reader| reader.highest_id()).ok();
    found.filter(|found| *found <= MAX_HIGHEST).unwrap_or(0)
}

/// Raises the highest assigned id of an older copy to `above`, so that ids are not reused.
pub(in super::super) fn raise(path: &Path, above: i64) -> Result<(), DeadError> {
    let connection = open_writer(path)?;
    go_above(&connection, path, above)?;
    flush(&connection, path)
}

/// Creates a new file that assigns ids above `above`.
pub(in super::super) fn create(path: &Path, store_id: [u8; 16], above: i64) -> Result<(), DeadError> {
    open::create(path, store_id)?;
    raise(path, above)
}

/// Copies the readable dead letters of a damaged file.
///
/// # Errors
///
/// [`DeadError`] if the new file cannot be written, for example on a full disk.
pub(in super::super) fn salvage(from: &Path, to: &Path, highest: i64) -> Result<Saved, DeadError> {
    salvage_with(&open_writer(to)?, from, to, highest)
}

/// Copies the readable dead letters of a damaged file through a connection to the new file.
pub(super) fn salvage_with(
    connection: &Connection,
    from: &Path,
    to: &Path,
    highest: i64,
) -> Result<Saved, DeadError> {
    let failed = |error: rusqlite::Error| DeadError::sqlite(to, "copying what can be read", &error);
    let mut saved = Saved::default();
    match connection.execute("ATTACH ?1 AS damaged", [from.to_string_lossy()]) {
        Ok(_) => {}
        Err(error) if is_unreadable(&error) => return Ok(saved),
        Err(error) => return Err(failed(error)),
    }
    for table in DEAD_LETTER_TABLES {
        let copy = format!(
            "INSERT OR IGNORE INTO main.{table} SELECT * FROM damaged.{table} WHERE id > ?1 AND id <= ?2"
        );
        // Returns how many rows were copied; `None` if some cannot be read.
        let copy_range = |after: i64, to: i64| match connection.execute(&copy, [after, to]) {
            Ok(rows) => Ok(Some(u64::try_from(rows).unwrap_or(0))),
            Err(error) if is_unreadable(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        };
        if let Some(rows) = copy_range(0, i64::MAX)? {
            saved.dead_letters = saved.dead_letters.saturating_add(rows);
            continue;
        }
        // One by one up to the damage, and after it as long as rows are found.
        let next = format!("SELECT id FROM damaged.{table} WHERE id > ?1 ORDER BY id LIMIT 1");
        let next = |after: i64| match connection.query_row(&next, [after], |row| row.get(0)).optional() {
            Ok(found) => Ok(found.map_or(NextRow::End, NextRow::Id)),
            Err(error) if is_unreadable(&error) => Ok(NextRow::Unreadable),
            Err(error) => Err(failed(error)),
        };
        let Salvaged { rows, unreadable } =
            sqlite::read_each(highest, next, |id| copy_range(id.saturating_sub(1), id))?;
        saved.dead_letters = saved.dead_letters.saturating_add(rows);
        saved.unreadable = saved.unreadable.saturating_add(unreadable);
    }
    connection.execute("DETACH damaged", []).map_err(failed)?;
    let last = connection
        .query_row("SELECT coalesce(max(id), 0) FROM letters", [], |row| row.get(0))
        .map_err(failed)?;
    go_above(connection, to, last)?;
    flush(connection, to)?;
    Ok(saved)
}

fn go_above(connection: &Connection, path: &Path, above: i64) -> Result<(), DeadError> {
    let raised = connection.execute("UPDATE store SET highest_id = max(highest_id, ?1)", [above]);
    raised.map(drop).map_err(|error| DeadError::sqlite(path, "raising the highest id", &error))
}

//! Checks a dedup index without changing it.

use std::path::Path;

use rusqlite::ErrorCode;

use super::super::remedy;
use super::super::sqlite;
use super::IdsError;
use super::store::{Unusable, unusable};
use super::table::{self, TableError};

/// Checks an index, with or without a running server, without changing it. Returns the problem and the remedy; `None` if there is
/// no problem.
///
/// # Errors
///
/// [`IdsError`] if the file cannot be accessed.
pub fn check(path: &Path, store_id: [u8; 16]) -> Result<Option<String>, IdsError> {
    let finding = |text: &str| Ok(Some(format!("ids.db: {text}; {}", remedy::IDS)));
    if !path.try_exists().map_err(|error| IdsError::failed(path, "looking for the file", &error))? {
        return finding("the file is missing");
    }
    let read = || -> Result<Option<Unusable>, TableError> {
        let connection = sqlite::open_read_only(path, false)?;
        // A running server may have added ids since the caller has read the log.
        let unusable = unusable(&connection, store_id, i64::MAX)?;
        if unusable.is_some() {
            return Ok(unusable);
        }
        for period in table::periods(&connection)? {
            // A running server may drop a period meanwhile, but not within this transaction, which is short.
            let _transaction = connection.unchecked_transaction()?;
            if table::periods(&connection)?.iter().any(|row| row.id == period.id) {
                table::each_page(&connection, period.id, 0, i64::MAX, |keys| keys.for_each(drop))?;
            }
        }
        Ok(None)
    };
    match read() {
        Ok(None) => Ok(None),
        Ok(Some(Unusable { text, .. })) => finding(&text),
        Err(error @ TableError::Page { .. }) => finding(&format!("damaged ({error})")),
        Err(TableError::Sqlite(error)) => match error.sqlite_error_code() {
            // A killed process left a journal, which the next start applies.
            Some(ErrorCode::ReadOnly) => Ok(None),
            _ if sqlite::is_unreadable(&error) => finding(&format!("damaged ({error})")),
            _ => Err(IdsError::sqlite(path, "checking", &error)),
        },
    }
}

/// Returns the time of receipt since which an index has all ids, in Unix milliseconds, with or without a running server; `None` if
/// the file cannot be read, or does not belong to this store.
pub fn complete_since(path: &Path, store_id: [u8; 16]) -> Option<i64> {
    let connection = sqlite::open_read_only(path, false).ok()?;
    let unusable = unusable(&connection, store_id, i64::MAX).ok()?;
    table::complete_since(&connection).ok()?.filter(|_| unusable.is_none())
}

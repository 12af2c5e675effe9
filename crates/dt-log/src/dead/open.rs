//! Opens `dead.db`, and compares the file with the expectation of the caller.

use std::path::Path;

use rusqlite::Connection;

use super::super::sqlite::{self, DatabaseHeader};
use super::error::DeadError;
use super::read::{ReadOnly, highest_id};
use super::schema::{self, FORMAT};

/// The store id in a file of mode `direct`, which does not belong to a store yet.
const NO_STORE: [u8; 16] = [0; 16];

/// The size of the writer's page cache, in KiB.
const CACHE_KIB: i64 = 1024;

/// The file of dead letters that the caller expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no log (mode `direct`): any file of dead letters is accepted, and a missing one is created.
    Anything,
    /// The store is new: the file is created. A file without a store, or without any dead letter, is adopted.
    New {
        /// The id of the store, which the file gets.
        store_id: [u8; 16],
    },
    /// The log has recorded the file.
    Existing {
        /// The id of the store, which the file must have.
        store_id: [u8; 16],
        /// The highest id of a dead letter that the log has recorded. A file with a lower one is an older copy.
        highest_id: i64,
    },
}

/// The store id and the highest assigned id in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileInfo {
    pub store_id: [u8; 16],
    pub highest_id: i64,
}

/// Checks the file, or creates it if `expect` allows it. If the file exists, no free space on the disk is needed.
pub fn prepare(path: &Path, expect: Expect) -> Result<(), DeadError> {
    let is_there = std::fs::metadata(path).map(|about| about.len() > 0);
    match (is_there, expect) {
        (Ok(true), _) => {}
        // An interrupted creation leaves an empty file. Once the log knows the file, an empty one is a loss.
        (Ok(false), Expect::Existing { highest_id, .. }) => {
            return Err(DeadError::Missing { path: path.to_owned(), expected: highest_id });
        }
        (Err(error), _) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(DeadError::io(path, "looking for the file", &error));
        }
        (Err(_), Expect::Existing { highest_id, .. }) => {
            return Err(DeadError::Missing { path: path.to_owned(), expected: highest_id });
        }
        (Ok(false) | Err(_), Expect::Anything | Expect::New { .. }) => {
            // The write-ahead log holds dead letters of the lost database, and SQLite would delete it.
            if has_log(path)? {
                let found = "a write-ahead log without its database".to_owned();
                return Err(DeadError::NotOurs { path: path.to_owned(), found });
            }
            return create(path, expect.store_id());
        }
    }
    let found = match ReadOnly::open(path) {
        // Without tables: the creation was interrupted.
        Err(DeadError::Missing { .. }) if !matches!(expect, Expect::Existing { .. }) => {
            return create(path, expect.store_id());
        }
        Err(DeadError::Missing { path, .. }) => {
            return Err(DeadError::Missing { path, expected: expect.highest_id() });
        }
        found => found?.found()?,
    };
    compare(path, expect, found)
}

/// Compares the file with the expected one. Assigns a file that does not belong to a store yet to the expected store.
fn compare(path: &Path, expect: Expect, found: FileInfo) -> Result<(), DeadError> {
    let foreign = |expected: [u8; 16]| DeadError::Foreign {
        path: path.to_owned(),
        expected: hex::encode(expected),
        found: hex::encode(found.store_id),
    };
    match expect {
        Expect::Anything => Ok(()),
        Expect::New { store_id } if found.store_id == store_id => Ok(()),
        Expect::New { store_id } if found.store_id == NO_STORE || found.highest_id == 0 => {
            adopt(path, store_id)
        }
        Expect::New { store_id } => Err(foreign(store_id)),
        Expect::Existing { store_id, .. } if found.store_id != store_id => Err(foreign(store_id)),
        Expect::Existing { highest_id, .. } if found.highest_id < highest_id => {
            Err(DeadError::Older { path: path.to_owned(), expected: highest_id, found: found.highest_id })
        }
        Expect::Existing { .. } => Ok(()),
    }
}

/// Opens the file of a store that the log has recorded, for reading.
///
/// # Errors
///
/// [`DeadError`] if the file does not match the log, as from [`DeadLetters::open`](super::DeadLetters::open).
pub fn open_existing(path: &Path, store_id: [u8; 16], highest_id: i64) -> Result<ReadOnly, DeadError> {
    match ReadOnly::open(path) {
        Err(DeadError::Missing { path, .. }) => Err(DeadError::Missing { path, expected: highest_id }),
        opened => {
            let reader = opened?;
            compare(path, Expect::Existing { store_id, highest_id }, reader.found()?)?;
            Ok(reader)
        }
    }
}

/// Returns the highest id that a file has ever assigned; `None` if the file does not belong to a store, or its creation was
/// interrupted.
///
/// # Errors
///
/// [`DeadError`] if the file cannot be read, or contains no dead letters.
pub fn highest_id_of_a_store(path: &Path) -> Result<Option<i64>, DeadError> {
    match ReadOnly::open(path).and_then(|reader| reader.found()) {
        Ok(found) => Ok((found.store_id != NO_STORE).then_some(found.highest_id)),
        Err(DeadError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Expect {
    const fn store_id(self) -> [u8; 16] {
        match self {
            Self::Anything => NO_STORE,
            Self::New { store_id } | Self::Existing { store_id, .. } => store_id,
        }
    }

    const fn highest_id(self) -> i64 {
        match self {
            Self::Anything | Self::New { .. } => 0,
            Self::Existing { highest_id, .. } => highest_id,
        }
    }
}

/// Reads the store id and the highest assigned id. It is an error if the file contains no dead letters.
pub fn inspect(connection: &Connection, path: &Path) -> Result<FileInfo, DeadError> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => {
            DeadError::NotOurs { path: path.to_owned(), found: "not a database".to_owned() }
        }
        _ => DeadError::sqlite(path, "reading the format", &error),
    };
    match FORMAT.header_of(connection).map_err(failed)? {
        DatabaseHeader::Current => {}
        DatabaseHeader::Version(found) => {
            return Err(DeadError::Newer { path: path.to_owned(), expected: FORMAT.version, found });
        }
        DatabaseHeader::Empty => return Err(DeadError::Missing { path: path.to_owned(), expected: 0 }),
        DatabaseHeader::Other => {
            let found = "another program's database".to_owned();
            return Err(DeadError::NotOurs { path: path.to_owned(), found });
        }
    }
    let read = || -> rusqlite::Result<FileInfo> {
        let store_id = connection.query_row("SELECT store_id FROM store", [], |row| row.get(0))?;
        Ok(FileInfo { store_id, highest_id: highest_id(connection)? })
    };
    read().map_err(failed)
}

/// Creates the file with its tables, or completes an empty file, and syncs it.
///
/// SQLite syncs the folder whenever it creates a journal or a write-ahead log in it (`UNIXFILE_DIRSYNC` in its `os_unix.c`), so
/// the file's name is durable too when this returns.
pub fn create(path: &Path, store_id: [u8; 16]) -> Result<(), DeadError> {
    sqlite::create_file(path).map_err(|error| DeadError::io(path, "creating the file", &error))?;
    let mut connection = connect(path).and_then(|connection| in_wal_mode(connection, path))?;
    schema::create(&mut connection, store_id)
        .map_err(|error| DeadError::sqlite(path, "creating the tables", &error))?;
    flush(&connection, path)
}

/// Writes the store's id to a file that does not belong to a store yet.
fn adopt(path: &Path, store_id: [u8; 16]) -> Result<(), DeadError> {
    let connection = open_writer(path)?;
    connection
        .execute("UPDATE store SET store_id = ?1", [store_id.as_slice()])
        .map_err(|error| DeadError::sqlite(path, "writing the store's id", &error))?;
    flush(&connection, path)
}

/// Opens the file for writing. First writes the write-ahead log of a killed process to the database: otherwise a dead letter
/// could count as stored and be lost at a power failure.
pub fn open_writer(path: &Path) -> Result<Connection, DeadError> {
    // If the database is empty, SQLite would delete the write-ahead log.
    let about =
        std::fs::metadata(path).map_err(|error| DeadError::io(path, "looking for the file", &error))?;
    if about.len() == 0 {
        return Err(DeadError::Missing { path: path.to_owned(), expected: 0 });
    }
    let connection = connect(path)?;
    // Checked before anything changes: the file may be another program's.
    inspect(&connection, path)?;
    let connection = in_wal_mode(connection, path)?;
    flush(&connection, path)?;
    Ok(connection)
}

/// Returns whether the database has a write-ahead log, which means that a process has the file open, or was killed.
pub fn has_log(path: &Path) -> Result<bool, DeadError> {
    let found = sqlite::with_ending(path, "-wal").try_exists();
    found.map_err(|error| DeadError::io(path, "looking for the write-ahead log", &error))
}

fn connect(path: &Path) -> Result<Connection, DeadError> {
    sqlite::open(path, CACHE_KIB).map_err(|error| DeadError::sqlite(path, "opening", &error))
}

fn in_wal_mode(connection: Connection, path: &Path) -> Result<Connection, DeadError> {
    sqlite::set_journal_mode(&connection, "WAL", "FULL")
        .map_err(|error| DeadError::sqlite(path, "turning on the write-ahead log", &error))?;
    Ok(connection)
}

/// Writes the write-ahead log to the database, and syncs both files.
pub fn flush(connection: &Connection, path: &Path) -> Result<(), DeadError> {
    const DOING: &str = "flushing the write-ahead log";
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))
        .map_err(|error| DeadError::sqlite(path, DOING, &error))?;
    if busy == 0 {
        return Ok(());
    }
    let text = "another program has the database open; stop it".to_owned();
    Err(DeadError::Failed { path: path.to_owned(), doing: DOING, text })
}

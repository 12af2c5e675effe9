//! The code that the databases of a receiver share: how a file is created, opened and recognised, how an error is classified,
//! and how a damaged table is read.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

/// The longest time to wait for a lock that another program holds.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// The largest number of consecutive unreadable ids before reading a damaged table is given up.
const MAX_SKIPPED: u64 = 1000;

/// The suffixes of a database, and of the files beside it that SQLite applies to any database of that name.
pub const ENDINGS: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// Returns a path with a suffix added to its last segment.
#[must_use]
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The format of a database, identified by the two numbers in its header.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseFormat {
    /// The application id in the header: one number for each kind of database.
    pub application_id: i64,
    /// The newest version that this program reads.
    pub version: i64,
}

/// The format according to the header of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseHeader {
    /// The expected format, in the version that this program writes.
    Current,
    /// The expected kind of database, in an unknown version.
    Version(i64),
    /// A database without any table.
    Empty,
    /// Another kind of database, such as that of another program.
    Other,
}

impl DatabaseFormat {
    /// Reads the header of a database.
    ///
    /// # Errors
    ///
    /// The error of SQLite.
    pub fn header_of(self, connection: &Connection) -> rusqlite::Result<DatabaseHeader> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(match (application_id, version) {
            (0, 0) if tables == 0 => DatabaseHeader::Empty,
            (id, version) if id == self.application_id && version == self.version => DatabaseHeader::Current,
            (id, version) if id == self.application_id => DatabaseHeader::Version(version),
            _ => DatabaseHeader::Other,
        })
    }

    /// Writes the header, in the transaction that creates the tables.
    ///
    /// # Errors
    ///
    /// The error of SQLite.
    pub fn mark(self, connection: &Connection) -> rusqlite::Result<()> {
        connection.pragma_update(None, "application_id", self.application_id)?;
        connection.pragma_update(None, "user_version", self.version)
    }
}

/// Creates an empty file that only its owner can access, unless the file exists.
///
/// # Errors
///
/// The error of the operating system.
pub fn create_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// Opens an existing database for writing, with a page cache of `cache_kib` KiB.
///
/// # Errors
///
/// The error of SQLite.
pub fn open(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "cache_size", cache_kib.saturating_neg())?;
    Ok(connection)
}

/// Sets the journal mode and the sync level. It is an error if the file system does not support the mode.
///
/// # Errors
///
/// The error of SQLite.
pub fn set_journal_mode(connection: &Connection, mode: &str, synchronous: &str) -> rusqlite::Result<()> {
    let found: String = connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    if found.eq_ignore_ascii_case(mode) {
        return Ok(());
    }
    let text = format!("the file system allows only journal mode {found}");
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), Some(text)))
}

/// Opens a database for reading, without creating a file. `is_quiet` says that no process has the database open and that no
/// write-ahead log exists.
///
/// # Errors
///
/// The error of SQLite.
pub fn open_read_only(path: &Path, is_quiet: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if is_quiet {
        // Without `immutable`, SQLite would create two files beside a database in WAL mode.
        let uri = format!("file:{}?immutable=1", escaped(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    connection.busy_timeout(BUSY_WAIT)?;
    Ok(connection)
}

/// Returns a path as part of a `file:` URI.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// The identity of a file: its device and inode number.
pub type Identity = (u64, u64);

/// Returns the identity of the file at a path.
///
/// # Errors
///
/// The error of the operating system.
pub fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The kind of a SQLite error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The content is damaged.
    Damage,
    /// The disk is full.
    Full,
    /// Another error; a later attempt may succeed.
    Other,
}

/// Returns the kind of a SQLite error.
#[must_use]
pub fn kind(error: &rusqlite::Error) -> FailureKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FailureKind::Full,
        // `Unknown` is a missing table; no code means a column of another type.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) | None => {
            FailureKind::Damage
        }
        Some(_) => FailureKind::Other,
    }
}

/// Returns an error of SQLite for content that is damaged, but that SQLite accepts.
#[must_use]
pub fn damaged(text: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(text))
}

/// Returns whether an error was caused by the content that was read. Other errors concern the access to a file, or the file that
/// is written.
#[must_use]
pub fn is_unreadable(error: &rusqlite::Error) -> bool {
    let is_unreadable = |error: &ffi::Error| match error.code {
        // A damaged row can have values that no row may have.
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig => true,
        ErrorCode::SystemIoFailure => {
            matches!(error.extended_code, ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ)
        }
        _ => false,
    };
    kind(error) == FailureKind::Damage || error.sqlite_error().is_some_and(is_unreadable)
}

/// The result of reading a damaged table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// The number of rows that could be read.
    pub rows: u64,
    /// The number of ids whose rows could not be read. Some or all of these ids may have no row.
    pub unreadable: u64,
}

/// The result of searching the next row of a damaged table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextRow {
    /// The row with this id.
    Id(i64),
    /// There is no further row.
    End,
    /// The next row cannot be determined.
    Unreadable,
}

/// Reads the rows of a damaged table one by one, by id. `next` searches the first row after an id. `read` reads the row with an
/// id and returns how many rows (of the kind that the caller counts) it had, or `None` if the row cannot be read.
///
/// `highest` is the highest id that any row had. It may be damaged, and so be too high or too low. Therefore `next` is called
/// only after many ids without a row, and above `highest`: elsewhere, its result near the damage may be wrong.
///
/// # Errors
///
/// The first error of `next` or `read`.
pub fn read_each<E>(
    highest: i64,
    mut next: impl FnMut(i64) -> Result<NextRow, E>,
    mut read: impl FnMut(i64) -> Result<Option<u64>, E>,
) -> Result<Salvaged, E> {
    let mut salvaged = Salvaged::default();
    let (mut id, mut empty, mut failed) = (0_i64, 0_u64, 0_u64);
    // Above `highest`, it is not known how many rows there are.
    let mut unreadable_above = 0;
    while failed < MAX_SKIPPED {
        if empty >= MAX_SKIPPED || id >= highest {
            empty = 0;
            match next(id)? {
                NextRow::End => break,
                NextRow::Id(found) if found > id && (found <= highest || id >= highest) => {
                    id = found.saturating_sub(1);
                }
                NextRow::Id(_) | NextRow::Unreadable => failed = failed.saturating_add(1),
            }
        }
        let Some(following) = id.checked_add(1) else { break };
        id = following;
        match read(id)? {
            Some(0) => empty = empty.saturating_add(1),
            Some(rows) => {
                salvaged.rows = salvaged.rows.saturating_add(rows);
                (empty, failed) = (0, 0);
            }
            None => {
                failed = failed.saturating_add(1);
                if id > highest {
                    unreadable_above = 1;
                } else {
                    salvaged.unreadable = salvaged.unreadable.saturating_add(1);
                }
            }
        }
    }
    let rest = if failed < MAX_SKIPPED { 0 } else { u64::try_from(highest.saturating_sub(id)).unwrap_or(0) };
    salvaged.unreadable = salvaged.unreadable.saturating_add(rest).saturating_add(unreadable_above);
    Ok(salvaged)
}

//! The code that the two databases of the log share: how a file is created, opened and recognised, what an error means, and
//! how a damaged table is read.

use std::fs::OpenOptions;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

/// How long to wait for a lock that another program holds.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// After an unreadable row, how many consecutive ids are tried one by one before the rest is given up.
const MAX_SKIPPED: u64 = 1000;

/// The endings of a database and of the files that SQLite keeps beside it, and applies to whatever database has its name.
pub const ENDINGS: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// Returns a path with an ending added to its last name.
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The format of a database, by the two numbers in its header.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseFormat {
    pub application_id: i64,
    /// The newest version that this program reads.
    pub version: i64,
}

/// The format that the header of a file states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseHeader {
    /// The format that the caller asks for, in the version that this program writes.
    Current,
    /// The same kind of database, in an unknown version.
    Version(i64),
    /// A database without any table.
    Empty,
    /// A database of another kind, such as one of another program.
    Other,
}

impl DatabaseFormat {
    /// Reads the header of a database.
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
    pub fn mark(self, connection: &Connection) -> rusqlite::Result<()> {
        connection.pragma_update(None, "application_id", self.application_id)?;
        connection.pragma_update(None, "user_version", self.version)
    }
}

/// Creates an empty file that only its owner can access, if there is none.
pub fn create_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// Opens an existing database for writing, with a page cache of `cache_kib` KiB.
pub fn open(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "cache_size", cache_kib.saturating_neg())?;
    Ok(connection)
}

/// Sets the journal mode and the sync level. Returns an error if the file system does not support the mode.
pub fn set_journal_mode(connection: &Connection, mode: &str, synchronous: &str) -> rusqlite::Result<()> {
    let found: String = connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    if found.eq_ignore_ascii_case(mode) {
        return Ok(());
    }
    let text = format!("the file system allows only journal mode {found}");
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), Some(text)))
}

/// Opens a database for reading, and creates no file. `is_quiet` says that no process has it open, and no write-ahead log
/// exists.
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
pub fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The kind of a SQLite error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The content is not what was written.
    Damage,
    /// No space on the disk.
    Full,
    /// Another error; a later attempt may succeed.
    Other,
}

/// Returns the kind of a SQLite error.
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

/// Returns whether an error comes from what was read. Any other concerns access to a file, or the file that is written.
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

/// What was read of a damaged table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// The number of rows that were read.
    pub rows: u64,
    /// The number of ids that could not be read. Some or all of them may belong to no row.
    pub unreadable: u64,
}

/// Reads the rows of a damaged table one by one. `read` returns the number of rows with an id, of whatever the caller counts,
/// or `None` if that id cannot be read.
///
/// # Errors
///
/// The first error of `read`.
pub fn read_each<E>(
    ids: RangeInclusive<i64>,
    mut read: impl FnMut(i64) -> Result<Option<u64>, E>,
) -> Result<Salvaged, E> {
    let (mut salvaged, mut in_a_row, last) = (Salvaged::default(), 0_u64, *ids.end());
    for id in ids {
        match read(id)? {
            Some(0) => {}
            Some(rows) => {
                salvaged.rows = salvaged.rows.saturating_add(rows);
                in_a_row = 0;
            }
            None => {
                salvaged.unreadable = salvaged.unreadable.saturating_add(1);
                in_a_row = in_a_row.saturating_add(1);
            }
        }
        if in_a_row >= MAX_SKIPPED {
            let rest = u64::try_from(last.saturating_sub(id)).unwrap_or(0);
            salvaged.unreadable = salvaged.unreadable.saturating_add(rest);
            break;
        }
    }
    Ok(salvaged)
}

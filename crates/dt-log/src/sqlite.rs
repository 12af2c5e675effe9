//! What the two databases of the log have in common: how a file is made, opened and recognised, and what an error means.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::disk::parent;

/// How long a lock of another program is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A kind of database, by the two numbers in its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub(super) application_id: i64,
    /// The newest version that this program knows.
    pub(super) version: i64,
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// The format that was asked for.
    Known,
    /// The same kind of database, of a version that is not known here.
    Version(i64),
    /// A database without any table.
    Empty,
    /// Another program's database.
    Other,
}

impl Format {
    /// Reads the header of a database.
    pub(super) fn header_of(self, connection: &Connection) -> rusqlite::Result<Header> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(match (application_id, version) {
            (0, 0) if tables == 0 => Header::Empty,
            (id, version) if id == self.application_id && version == self.version => Header::Known,
            (id, version) if id == self.application_id => Header::Version(version),
            _ => Header::Other,
        })
    }

    /// Writes the header; part of the transaction that makes the tables.
    pub(super) fn mark(self, connection: &Connection) -> rusqlite::Result<()> {
        connection.pragma_update(None, "application_id", self.application_id)?;
        connection.pragma_update(None, "user_version", self.version)
    }
}

/// Makes an empty file for its owner only, unless there is one.
pub(super) fn create_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// Syncs the folder that a file lies in.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// Opens an existing database for writing. The connection keeps so many KiB of pages.
pub(super) fn open(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "cache_size", cache_kib.saturating_neg())?;
    Ok(connection)
}

/// Sets the journal mode, and how much is synced; an error where the file system does not allow that mode.
pub(super) fn set_journal_mode(
    connection: &Connection,
    mode: &str,
    synchronous: &str,
) -> rusqlite::Result<()> {
    let found: String = connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    if found.eq_ignore_ascii_case(mode) {
        return Ok(());
    }
    let text = format!("the file system allows only journal mode {found}");
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), Some(text)))
}

/// Opens a database for reading, and creates no file. `is_quiet`: nobody has it open, and no write-ahead log lies beside it.
pub(super) fn open_read_only(path: &Path, is_quiet: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if is_quiet {
        // SQLite would make two files beside a database in WAL mode, unless it is told that nothing changes.
        let uri = format!("file:{}?immutable=1", escaped(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    connection.busy_timeout(BUSY_WAIT)?;
    Ok(connection)
}

/// A path as part of a `file:` URI.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Which file a path leads to: its device and its number there.
pub(super) type Identity = (u64, u64);

/// Tells which file a path leads to.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// What kind of error SQLite reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The content is not what was written.
    Damage,
    /// No room on the disk.
    Full,
    /// Anything else: trying again may help.
    Other,
}

/// Sorts an error of SQLite.
pub(super) fn kind(error: &rusqlite::Error) -> Kind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Kind::Full,
        // The last two: a table that is not there, a column of another type.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) | None => {
            Kind::Damage
        }
        Some(_) => Kind::Other,
    }
}

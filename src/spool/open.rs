//! Opening: the lock, the checks of the format, and the recovery of what a crash left in the log.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::SpoolError;
use super::schema;

/// How long a lock of another program is waited for.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How many pages the writer's connection keeps, in KiB; what a transaction changes beyond that goes to the log before its
/// end. With 16 MiB nothing was faster, whatever ids look like, and 3 to 8 MiB more were held (`benches/compare`: spool ->
/// Kafka, and ids in no order).
const CACHE_KIB: i64 = 1024;

/// A database that was checked and recovered.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    /// The highest number that was ever given to a record.
    pub(super) last_seq: i64,
    pub(super) seen: u64,
}

/// The database of a spool's folder.
pub(super) fn database_path(folder: &Path) -> PathBuf {
    folder.join("spool.db")
}

/// The folder is ours as long as this lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child process that is just being started holds the file open a moment longer; closing alone would leave the
        // folder locked for that long. Where it cannot be unlocked, closing does it.
        let _unlocked = self.0.unlock();
    }
}

/// How long a server that starts waits for a command that has the folder, for as long as it brings to the database what a
/// killed server left in the journal.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How often it looks.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// The same as [`lock`], but waits for a moment where somebody else has it.
pub(super) fn lock_soon(folder: &Path) -> Result<Lock, SpoolError> {
    let started = Instant::now();
    loop {
        match lock(folder) {
            Err(SpoolError::Locked { .. }) if started.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_LOOK),
            locked => return locked,
        }
    }
}

/// Makes the folder if it is not there, and takes it. The lock goes with the process, however that ends.
pub(super) fn lock(folder: &Path) -> Result<Lock, SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| SpoolError::io(folder, "making the folder", &error))?;
    let path = folder.join("spool.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| SpoolError::io(&path, "opening", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(SpoolError::io(&path, "locking", &error)),
    }
}

/// Opens, checks and recovers the database.
pub(super) fn database(folder: &Path) -> Result<Database, SpoolError> {
    let path = database_path(folder);
    let failed = |doing: &'static str| {
        let path = path.clone();
        move |error: rusqlite::Error| SpoolError::sqlite(path, doing, &error)
    };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&path, flags).map_err(failed("opening"))?;
    connection.busy_timeout(BUSY_WAIT).map_err(failed("opening"))?;
    check_format(&mut connection, &path)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed("turning on the write-ahead log"))?;
    if !mode.eq_ignore_ascii_case("wal") {
        let text = format!("the file system allows only journal mode {mode}");
        return Err(SpoolError::Database { path, doing: "turning on the write-ahead log", text });
    }
    for (name, value) in [("synchronous", 2), ("wal_autocheckpoint", 0), ("cache_size", -CACHE_KIB)] {
        connection.pragma_update(None, name, value).map_err(failed("setting up"))?;
    }
    recover(&connection).map_err(failed("recovering the write-ahead log"))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| SpoolError::io(folder, "syncing the folder", &error))?;
    let count = |name: &str| {
        connection
            .query_row("SELECT value FROM counts WHERE name = ?1", [name], |row| row.get::<_, i64>(0))
            .map_err(failed("reading the counts"))
    };
    let (last_seq, seen) = (count("last_seq")?, u64::try_from(count("seen")?).unwrap_or(0));
    Ok(Database { path, connection, last_seq, seen })
}

/// Another connection to an open database, which waits so long for the first one, or for another program.
pub(super) fn aside(path: &Path, wait: Duration) -> Result<Connection, SpoolError> {
    let opened = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    );
    opened
        .and_then(|connection| {
            connection.busy_timeout(wait)?;
            for (name, value) in [("synchronous", 2), ("wal_autocheckpoint", 0)] {
                connection.pragma_update(None, name, value)?;
            }
            Ok(connection)
        })
        .map_err(|error| SpoolError::sqlite(path, "opening", &error))
}

/// A sink whose cursor is beyond the end would not be given what comes next.
pub(super) fn check_numbers(database: &Database) -> Result<(), SpoolError> {
    let Database { path, connection, last_seq, .. } = database;
    let last_seq = *last_seq;
    let failed = |error: rusqlite::Error| SpoolError::sqlite(&**path, "reading the cursors", &error);
    let stored: Option<i64> =
        connection.query_row("SELECT max(seq) FROM records", [], |row| row.get(0)).map_err(failed)?;
    if let Some(stored) = stored.filter(|stored| *stored > last_seq) {
        let text = format!("there is a record {stored}, and the last number given is {last_seq}");
        return Err(SpoolError::Damaged { path: path.to_owned(), text });
    }
    let beyond = connection
        .query_row("SELECT name, cursor FROM sinks WHERE cursor > ?1", [last_seq], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(failed)?;
    match beyond {
        None => Ok(()),
        Some((sink, cursor)) => {
            Err(SpoolError::CursorBeyondEnd { path: path.to_owned(), sink, cursor, last_seq })
        }
    }
}

/// Whether an existing database has our format.
pub(super) fn check_readable(connection: &Connection, path: &Path) -> Result<(), SpoolError> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| SpoolError::sqlite(path, "reading the format", &error))
    };
    match (pragma("application_id")?, pragma("user_version")?) {
        (schema::APPLICATION_ID, schema::VERSION) => Ok(()),
        (schema::APPLICATION_ID, found) if found > schema::VERSION => {
            Err(SpoolError::Newer { path: path.to_owned(), found, known: schema::VERSION })
        }
        _ => Err(SpoolError::NotASpool { path: path.to_owned() }),
    }
}

fn check_format(connection: &mut Connection, path: &Path) -> Result<(), SpoolError> {
    let failed = |error: rusqlite::Error| SpoolError::sqlite(path, "reading the format", &error);
    let pragma = |connection: &Connection, name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed)
    };
    let version = pragma(connection, "user_version")?;
    let application = pragma(connection, "application_id")?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if (application, version, objects) == (0, 0, 0) {
        return schema::create(connection).map_err(failed);
    }
    check_readable(connection, path)
}

/// Rewrites what is in the log into the database and syncs both; a failed checkpoint is a failed start.
fn recover(connection: &Connection) -> rusqlite::Result<()> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 {
        return Ok(());
    }
    // Somebody reads with a tool; the busy timeout has passed.
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
        Some("another program holds the database open".to_owned()),
    ))
}

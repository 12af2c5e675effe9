//! Why the spool cannot do what it is asked for, with the path and the cure.

use std::io;
use std::path::PathBuf;

/// Why a spool cannot be opened, or something is not stored.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Another process has the folder.
    #[error("{path}: another process uses this spool; stop it, or name another folder with `data`")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error(
        "{path}: its format is version {found}, and this program knows version {known}; use a newer program"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known here.
        known: i64,
    },
    /// It is no spool.
    #[error("{path}: not a spool of this program; name another folder with `data`")]
    NotASpool {
        /// The database.
        path: PathBuf,
    },
    /// It is damaged.
    #[error(
        "{path}: damaged ({text}); stop the receiver, then `dt-receiver spool rebuild` saves what can be read, and keeps this file"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        text: String,
    },
    /// A sink is said to have records that there never were.
    #[error("{path}: the cursor of sink {sink} is {cursor}, and the last record ever stored is {last_seq}: \
             this is an older copy of the spool, or it was changed by hand. To go on from its end: \
             sqlite3 {path} \"UPDATE sinks SET cursor = {last_seq} WHERE name = '{sink}'\"", path = .path.display())]
    CursorBeyondEnd {
        /// The database.
        path: PathBuf,
        /// The sink's name.
        sink: String,
        /// Its cursor.
        cursor: i64,
        /// The last number that was given to a record.
        last_seq: i64,
    },
    /// A file or folder cannot be used.
    #[error("{path}: {doing}: {text}")]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        text: String,
    },
    /// SQLite cannot do something.
    #[error("{path}: {doing}: {text}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite says.
        text: String,
    },
    /// There is no room.
    #[error("{path}: the spool is full: {text}")]
    Full {
        /// The folder.
        path: PathBuf,
        /// Which limit was met.
        text: String,
    },
    /// A write or sync has failed, and nobody knows what is on the disk.
    #[error("{path}: writing has stopped until a restart: {text}")]
    Poisoned {
        /// The folder.
        path: PathBuf,
        /// What happened.
        text: String,
    },
    /// Too much waits for the writer.
    #[error("too much waits for the spool")]
    Overloaded,
    /// It was closed.
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    /// An I/O error at a path.
    pub(super) fn io(path: impl Into<PathBuf>, doing: &'static str, error: &io::Error) -> Self {
        Self::Unusable { path: path.into(), doing, text: error.to_string() }
    }

    /// An error of SQLite at a database.
    pub(super) fn sqlite(path: impl Into<PathBuf>, doing: &'static str, error: &rusqlite::Error) -> Self {
        let (path, text) = (path.into(), error.to_string());
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::NotASpool { path },
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Self::Damaged { path, text },
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full { path, text },
            _ => Self::Database { path, doing, text },
        }
    }

    /// Whether trying again without a restart can help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Overloaded)
    }
}

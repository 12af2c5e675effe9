//! The errors of the dead letters. Each message names the file, what was expected, and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use super::super::sqlite::{self, FailureKind};

/// A failure to open, store or read dead letters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeadError {
    /// The database of dead letters does not exist, or has no tables yet.
    #[error("{path}: missing, though the log knows of dead letters up to id {expected}; restore the file from a backup, \
             or accept the loss with `dt-receiver spool repair`", path = .path.display())]
    Missing {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// The highest id of a dead letter that the log has recorded.
        expected: i64,
    },
    /// The file belongs to another store.
    #[error("{path}: belongs to store {found}, expected {expected}; put the right file back, or move this one away and \
             accept the loss with `dt-receiver spool repair`", path = .path.display())]
    Foreign {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// The id of the store that is opened, in hex.
        expected: String,
        /// The id in the file, in hex.
        found: String,
    },
    /// A newer version of this program wrote the file.
    #[error("{path}: its format is version {found}, and this program reads version {expected}; use a newer program",
            path = .path.display())]
    Newer {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// The newest version that this program reads.
        expected: i64,
        /// The version of the file.
        found: i64,
    },
    /// The file is an older copy of the database: the log has recorded a higher id.
    #[error("{path}: an older copy: its last dead letter has id {found}, expected {expected} or higher; put the newest \
             copy back, or accept the loss with `dt-receiver spool repair`", path = .path.display())]
    Older {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// The highest id of a dead letter that the log has recorded.
        expected: i64,
        /// The highest id that the file has assigned.
        found: i64,
    },
    /// The file does not contain dead letters.
    #[error("{path}: {found}, expected the dead letters of this program; move it away, and put the right file back",
            path = .path.display())]
    NotOurs {
        /// The path at which the database of dead letters was expected.
        path: PathBuf,
        /// What the file contains instead.
        found: String,
    },
    /// The database of dead letters is damaged.
    #[error("{path}: damaged ({text}); `dt-receiver spool repair` copies what is readable, and keeps this file",
            path = .path.display())]
    Damaged {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// What is damaged, in words.
        text: String,
    },
    /// The disk is full.
    #[error("{path}: {doing}: no space left ({text})", path = .path.display())]
    Full {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of SQLite or of the operating system.
        text: String,
    },
    /// The operation failed for another reason; a later attempt can succeed.
    #[error("{path}: {doing}: {text}", path = .path.display())]
    Failed {
        /// The path of the database of dead letters.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of SQLite or of the operating system.
        text: String,
    },
    /// Too many dead letters of requests are queued.
    #[error("the queue for dead letters of requests is full")]
    Overloaded,
    /// The database of dead letters is closed.
    #[error("the dead letters are closed")]
    Closed,
}

impl DeadError {
    /// Returns the stable code of the error, for metrics and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "dead_missing",
            Self::Foreign { .. } => "dead_foreign",
            Self::Newer { .. } => "dead_newer",
            Self::Older { .. } => "dead_older",
            Self::NotOurs { .. } => "dead_not_ours",
            Self::Damaged { .. } => "dead_damaged",
            Self::Full { .. } => "dead_full",
            Self::Failed { .. } => "dead_failed",
            Self::Overloaded => "dead_overloaded",
            Self::Closed => "dead_closed",
        }
    }

    /// Returns whether a later attempt can succeed without an operator.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Failed { .. } | Self::Overloaded)
    }

    pub(super) fn io(path: &Path, doing: &'static str, error: &io::Error) -> Self {
        let (path, text) = (path.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, doing, text },
            _ => Self::Failed { path, doing, text },
        }
    }

    pub(super) fn sqlite(path: &Path, doing: &'static str, error: &rusqlite::Error) -> Self {
        let (path, text) = (path.to_owned(), error.to_string());
        match sqlite::kind(error) {
            FailureKind::Damage => Self::Damaged { path, text },
            FailureKind::Full => Self::Full { path, doing, text },
            FailureKind::Other => Self::Failed { path, doing, text },
        }
    }
}

//! The errors of `cloud.db`. Each message names the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use dt_log::sqlite::{self, FailureKind};

/// Why `cloud.db` cannot be opened, read or changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// A newer version of this program wrote the file.
    #[error("{path}: its format is version {found}, and this program reads version {expected}; use a newer program",
            path = .path.display())]
    Newer {
        /// The path of the database.
        path: PathBuf,
        /// The newest version that this program reads.
        expected: i64,
        /// The version of the file.
        found: i64,
    },
    /// The file is not a database of this kind.
    #[error("{path}: not a database of this program; move it away, then a new one is created", path = .path.display())]
    NotOurs {
        /// The path at which the database was expected.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error("{path}: damaged ({text}); move the file away, then a new one is created: no event is lost, but holes from before \
             that time are only filled by `dt-receiver backfill`", path = .path.display())]
    Damaged {
        /// The path of the database.
        path: PathBuf,
        /// What is damaged, in words.
        text: String,
    },
    /// The disk is full.
    #[error("{path}: {doing}: no space left ({text})", path = .path.display())]
    Full {
        /// The path of the database.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of SQLite or of the operating system.
        text: String,
    },
    /// The operation failed for another reason; a later attempt can succeed.
    #[error("{path}: {doing}: {text}", path = .path.display())]
    Failed {
        /// The path of the database.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of SQLite or of the operating system.
        text: String,
    },
}

impl CloudError {
    /// Returns the stable code of the error, for metrics and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "cloud_newer",
            Self::NotOurs { .. } => "cloud_not_ours",
            Self::Damaged { .. } => "cloud_damaged",
            Self::Full { .. } => "cloud_full",
            Self::Failed { .. } => "cloud_failed",
        }
    }

    /// Returns the path of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Newer { path, .. }
            | Self::NotOurs { path }
            | Self::Damaged { path, .. }
            | Self::Full { path, .. }
            | Self::Failed { path, .. } => path,
        }
    }

    pub(super) fn io(path: &Path, doing: &'static str, error: &io::Error) -> Self {
        let (path, text) = (path.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::StorageFull => Self::Full { path, doing, text },
            _ => Self::Failed { path, doing, text },
        }
    }

    pub(super) fn sqlite(path: &Path, doing: &'static str, error: &rusqlite::Error) -> Self {
        let (path, text) = (path.to_owned(), error.to_string());
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) {
            return Self::NotOurs { path };
        }
        match sqlite::kind(error) {
            FailureKind::Damage => Self::Damaged { path, text },
            FailureKind::Full => Self::Full { path, doing, text },
            FailureKind::Other => Self::Failed { path, doing, text },
        }
    }
}

//! The errors of the dedup index.

use std::path::{Path, PathBuf};

use rusqlite::ffi::SQLITE_READONLY_DBMOVED;

use super::super::sqlite::{self, FailureKind};

/// A failure of the dedup index: to open it, or to store or read ids.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IdsError {
    /// The content is damaged, or the file was moved; [`Ids::reset`](super::Ids::reset) creates a new file.
    #[error("{path}: damaged ({text}); it is rebuilt from the log", path = .path.display())]
    Damaged {
        /// The path of the dedup index.
        path: PathBuf,
        /// What is damaged, in words.
        text: String,
    },
    /// The disk is full. A later attempt can succeed.
    #[error("{path}: {doing}: no space left ({text})", path = .path.display())]
    Full {
        /// The path of the dedup index.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of SQLite.
        text: String,
    },
    /// Another failure. A later attempt can succeed.
    #[error("{path}: {doing}: {text}", path = .path.display())]
    Failed {
        /// The path of the dedup index.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of SQLite or of the operating system.
        text: String,
    },
    /// The index is closed.
    #[error("the dedup index is closed")]
    Closed,
}

impl IdsError {
    /// Returns the stable code of the error, for metrics and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "ids_damaged",
            Self::Full { .. } => "ids_full",
            Self::Failed { .. } => "ids_failed",
            Self::Closed => "ids_closed",
        }
    }

    /// Returns whether [`Ids::reset`](super::Ids::reset) is the remedy. After any other error, a retry can succeed.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    pub(super) fn damaged(path: &Path, text: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), text: text.into() }
    }

    pub(super) fn failed(path: &Path, doing: &'static str, error: &impl ToString) -> Self {
        Self::Failed { path: path.to_owned(), doing, text: error.to_string() }
    }

    /// Returns the error for an error of SQLite.
    pub(super) fn sqlite(path: &Path, doing: &'static str, error: &rusqlite::Error) -> Self {
        let (path, text) = (path.to_owned(), error.to_string());
        match sqlite::kind(error) {
            FailureKind::Damage => Self::Damaged { path, text },
            FailureKind::Full => Self::Full { path, doing, text },
            FailureKind::Other if was_moved(&path, error) => {
                Self::Damaged { path, text: format!("the file was moved: {text}") }
            }
            FailureKind::Other => Self::Failed { path, doing, text },
        }
    }
}

/// Returns whether the file at a path is missing, or is not the one that SQLite opened. SQLite reports a replaced file only on an
/// open connection, and has no code for a missing one.
fn was_moved(path: &Path, error: &rusqlite::Error) -> bool {
    let is_another = |error: &rusqlite::ffi::Error| error.extended_code == SQLITE_READONLY_DBMOVED;
    error.sqlite_error().is_some_and(is_another) || matches!(path.try_exists(), Ok(false))
}

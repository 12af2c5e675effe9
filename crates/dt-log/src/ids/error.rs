//! Why the dedup index cannot do something.

use std::path::{Path, PathBuf};

use super::super::sqlite::{self, Kind};

/// An error of the dedup index.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IdsError {
    /// Its content is not what was written; [`Ids::reset`](super::Ids::reset) makes a new one.
    #[error("{path}: damaged ({text}); it is rebuilt from the log", path = .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        text: String,
    },
    /// The disk is full. Trying again later can succeed.
    #[error("{path}: {doing}: no space left ({text})", path = .path.display())]
    Full {
        /// The database.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite says.
        text: String,
    },
    /// Something else failed. Trying again later can succeed.
    #[error("{path}: {doing}: {text}", path = .path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite or the system says.
        text: String,
    },
    /// It was closed.
    #[error("the dedup index is closed")]
    Closed,
}

impl IdsError {
    /// Stable name, for metrics and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "ids_damaged",
            Self::Full { .. } => "ids_full",
            Self::Failed { .. } => "ids_failed",
            Self::Closed => "ids_closed",
        }
    }

    /// Whether [`Ids::reset`](super::Ids::reset) is the remedy; other errors pass.
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

    /// An error of SQLite.
    pub(super) fn sqlite(path: &Path, doing: &'static str, error: &rusqlite::Error) -> Self {
        let (path, text) = (path.to_owned(), error.to_string());
        match sqlite::kind(error) {
            Kind::Damage => Self::Damaged { path, text },
            Kind::Full => Self::Full { path, doing, text },
            Kind::Other => Self::Failed { path, doing, text },
        }
    }
}

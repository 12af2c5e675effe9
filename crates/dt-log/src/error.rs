//! Why the log cannot be opened, or something is not stored: each with the path and the remedy.

use std::io;
use std::path::PathBuf;

use super::StoreId;
use super::dead::DeadError;

/// Why the log cannot be opened, or something is not stored.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process has the folder.
    #[error("{path}: another process uses this spool; stop it, or name another folder with `data`")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The first edition of this program, which was never released, wrote it.
    #[error(
        "{path}: the spool of an unreleased edition of this program, which this one cannot read; move the folder away, or \
         deliver what is in it with the program that wrote it"
    )]
    FirstEdition {
        /// The file that shows it.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error(
        "{path}: its format is version {found}, and this program knows version {known}; use a newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that is known here.
        known: u32,
    },
    /// It is of another store.
    #[error(
        "{path}: it belongs to another spool (expected store {expected}, found {found}); move it away, or \
         `dt-receiver spool repair` proposes what to do"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The store's id.
        expected: StoreId,
        /// The id in the file.
        found: StoreId,
    },
    /// Segments are not there that should be.
    #[error(
        "{folder}: segments {first} to {last} are missing; put them back, or `dt-receiver spool repair` proposes how to \
         go on without what was in them", folder = .folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The number of the first one.
        first: u64,
        /// The number of the last one.
        last: u64,
    },
    /// A file cannot be read as what it is.
    #[error(
        "{path}: damaged: {text}; `dt-receiver spool check` says more, `dt-receiver spool repair` proposes what to do"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The dead letters cannot be used.
    #[error(transparent)]
    DeadLetters(#[from] DeadError),
    /// A file or folder cannot be used.
    #[error("{path}: {doing}: {text}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        text: String,
        /// The system's kind of error.
        kind: io::ErrorKind,
    },
    /// There is no room for events.
    #[error("{path}: the spool is full: {text}; make room, or change the limit")]
    Full {
        /// The folder.
        path: PathBuf,
        /// Which limit was met.
        text: String,
    },
    /// A write or a sync has failed, and no new segment can be begun; it is tried every second.
    #[error("{path}: nothing can be written, which is tried again every second: {text}")]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// What happened.
        text: String,
    },
    /// An event does not fit into a segment.
    #[error("an event of {bytes} bytes does not fit into a segment")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// The log does not know the sink.
    #[error("the spool knows no sink {name}; `dt-receiver spool status` shows those it knows")]
    UnknownSink {
        /// The name.
        name: String,
    },
    /// Too much waits for the writer.
    #[error("too much waits for the spool")]
    Overloaded,
    /// It was closed.
    #[error("the spool is closed")]
    Closed,
}

impl LogError {
    /// An I/O error at a path.
    pub(super) fn io(path: impl Into<PathBuf>, doing: &'static str, error: &io::Error) -> Self {
        Self::Io { path: path.into(), doing, text: error.to_string(), kind: error.kind() }
    }

    /// A stable name for the kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "locked",
            Self::FirstEdition { .. } => "first_edition",
            Self::Newer { .. } => "newer",
            Self::Foreign { .. } => "foreign",
            Self::Missing { .. } => "missing",
            Self::Damaged { .. } => "damaged",
            Self::DeadLetters(_) => "dead_letters",
            Self::Io { .. } => "io",
            Self::Full { .. } => "full",
            Self::Unwritable { .. } => "unwritable",
            Self::TooLarge { .. } => "too_large",
            Self::UnknownSink { .. } => "unknown_sink",
            Self::Overloaded => "overloaded",
            Self::Closed => "closed",
        }
    }
}

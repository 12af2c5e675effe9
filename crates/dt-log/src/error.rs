//! The errors of the log. Each message names the path and the remedy.

use std::io;
use std::path::PathBuf;

use super::StoreId;
use super::dead::DeadError;
use super::ids::IdsError;

/// A failure of the log: to open it, or to store or read data.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process uses the folder.
    #[error("{path}: another process uses this spool; stop it, or set another folder with `data`")]
    Locked {
        /// The folder of the log.
        path: PathBuf,
    },
    /// The unreleased first edition of this program wrote the folder.
    #[error(
        "{path}: the spool of an unreleased edition of this program, which this version cannot read; move the folder away, \
         or deliver its events with the program that wrote it"
    )]
    FirstEdition {
        /// The file by which the first edition was recognised.
        path: PathBuf,
    },
    /// A newer version of this program wrote the file.
    #[error(
        "{path}: its format is version {found}, and this program reads version {known}; use a newer program"
    )]
    Newer {
        /// The file that the newer version wrote.
        path: PathBuf,
        /// The version of the file's format.
        found: u32,
        /// The newest version of the format that this program reads.
        known: u32,
    },
    /// The file belongs to another store.
    #[error(
        "{path}: belongs to another spool (expected store {expected}, found {found}); move it away, or \
         `dt-receiver spool repair` proposes a remedy"
    )]
    Foreign {
        /// The file that belongs to the other store.
        path: PathBuf,
        /// The id of the store that is opened.
        expected: StoreId,
        /// The id of the store in the file.
        found: StoreId,
    },
    /// Segments are missing.
    #[error(
        "{folder}: segments {first} to {last} are missing; put them back, or `dt-receiver spool repair` proposes how to \
         continue without them", folder = .folder.display()
    )]
    Missing {
        /// The folder of the log.
        folder: PathBuf,
        /// The number of the first missing segment.
        first: u64,
        /// The number of the last missing segment.
        last: u64,
    },
    /// A file is damaged.
    #[error(
        "{path}: damaged: {text}; `dt-receiver spool check` shows details, and `dt-receiver spool repair` proposes a remedy"
    )]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is damaged in it, in words.
        text: String,
    },
    /// The dead letters cannot be used.
    #[error(transparent)]
    DeadLetters(#[from] DeadError),
    /// The id of an event cannot be looked up.
    #[error(transparent)]
    Ids(#[from] IdsError),
    /// A file or folder cannot be used.
    #[error("{path}: {doing}: {text}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The message of the operating system.
        text: String,
        /// The kind of the error.
        kind: io::ErrorKind,
    },
    /// There is no room for events.
    #[error("{path}: the spool is full: {text}; make room, or change the limit")]
    Full {
        /// The folder of the log.
        path: PathBuf,
        /// The limit that was reached, in words.
        text: String,
    },
    /// A write or a sync failed, and no new segment can be created. Creating one is retried every second.
    #[error("{path}: cannot write, trying again every second: {text}")]
    Unwritable {
        /// The folder of the log.
        path: PathBuf,
        /// The operation that failed, in words.
        text: String,
    },
    /// An event does not fit into a segment.
    #[error("an event of {bytes} bytes does not fit into a segment")]
    TooLarge {
        /// The size of the group that contains the event, in bytes.
        bytes: usize,
    },
    /// No sink with this name is registered in the log.
    #[error("the spool has no sink {name}; `dt-receiver spool status` lists its sinks")]
    UnknownSink {
        /// The name of the unknown sink.
        name: String,
    },
    /// The highest possible number is assigned, so that no further one can be.
    #[error("the spool has no {what} left; deliver its events, and start with a new folder")]
    Exhausted {
        /// The objects that the numbers count, in words.
        what: &'static str,
    },
    /// The queue of the writer is full.
    #[error("the queue of the spool is full")]
    Overloaded,
    /// The log is closed.
    #[error("the spool is closed")]
    Closed,
}

impl LogError {
    /// Returns the error for a failed operation of the operating system on a path.
    pub(super) fn io(path: impl Into<PathBuf>, doing: &'static str, error: &io::Error) -> Self {
        Self::Io { path: path.into(), doing, text: error.to_string(), kind: error.kind() }
    }

    /// Returns the stable code of the error, for metrics and `--json`.
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
            Self::Ids(_) => "ids",
            Self::Io { .. } => "io",
            Self::Full { .. } => "full",
            Self::Unwritable { .. } => "unwritable",
            Self::TooLarge { .. } => "too_large",
            Self::UnknownSink { .. } => "unknown_sink",
            Self::Exhausted { .. } => "exhausted",
            Self::Overloaded => "overloaded",
            Self::Closed => "closed",
        }
    }
}

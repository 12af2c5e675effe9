//! The interface of a sink of `dt-receiver`: the [`Sink`] trait, the [`Record`]s that a sink receives, and the [`Format`]s
//! in which it writes them. A new type of sink is a crate or module that implements [`Sink`] and [`SinkSettings`], and
//! passes the contract test.

pub mod clock;
pub mod config;
mod metric;
pub mod record;
mod reporter;
#[cfg(feature = "tls")]
pub mod tls;
mod types;

use std::sync::Arc;
use std::time::Duration;

pub use metric::{Metric, MetricKind};
pub use record::{DeadLetter, Format, Record};
pub use reporter::{LogPermit, SinkReporter};
pub use types::{
    BadPlace, MissingType, NoSinkType, NotASink, Settings, SinkContext, SinkSettings, SinkType, SinkTypes,
};

/// The limit of a sink's checkpoint in bytes.
pub const MAX_CHECKPOINT: usize = 64 * 1024;

/// The result of delivering one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The record is delivered, as durably as the sink can make it.
    Delivered,
    /// The record is not delivered, and a later attempt may succeed: the destination is full, down or busy.
    Retry {
        /// The error, in words fit for a log.
        error: String,
    },
    /// The record can never be delivered. Others may succeed.
    Rejected {
        /// The reason, in words fit for a log.
        error: String,
    },
    /// The record is on its way, and the result is not known yet. The worker passes it again at once, as the same [`Arc`]
    /// and before later records, until there is another result. The sink recognises it by its address, and does not send it
    /// twice.
    Pending {
        /// Why it takes longer than it should; `None` while there is no problem. In words fit for a log.
        last_error: Option<String>,
    },
}

/// The result of delivering a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One result for each record, in the order of the batch. A missing one counts as [`Fate::Retry`].
    pub fates: Vec<Fate>,
    /// The checkpoint of the sink after this batch, of at most [`MAX_CHECKPOINT`] bytes. It is stored with the sink's
    /// cursor, and passed to [`Sink::open`] on the next start.
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the checkpoint must be durable before the next call of [`Sink::deliver`]. Otherwise it becomes durable soon,
    /// and a later one may replace it first. Several such outcomes in a row without a delivered or rejected record count as
    /// a failure of the sink.
    pub is_checkpoint_due: bool,
}

impl Outcome {
    /// Returns the result for `count` delivered records.
    #[must_use]
    pub fn delivered(count: usize) -> Self {
        Self { fates: vec![Fate::Delivered; count], ..Self::default() }
    }

    /// Returns the result for `count` records that can be tried again.
    #[must_use]
    pub fn retry(count: usize, error: &str) -> Self {
        Self { fates: vec![Fate::Retry { error: error.to_owned() }; count], ..Self::default() }
    }
}

/// A store of dead letters other than `dead.db`.
pub trait DeadLetterSink: Send + Sync + std::fmt::Debug {
    /// Stores a dead letter durably. Blocks until it is durable. A copy may be stored twice.
    ///
    /// # Errors
    ///
    /// [`SinkError`] if it is not stored.
    fn store(&self, dead_letter: &DeadLetter) -> Result<(), SinkError>;

    /// Returns the last error; `None` if dead letters can be stored.
    fn last_error(&self) -> Option<String>;
}

/// Why a sink cannot deliver or store now. The text fits into a log line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(String);

impl From<String> for SinkError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SinkError {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Why a sink cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The destination is down. Opening is tried again, and the service starts without the sink.
    #[error("{0}")]
    Down(String),
    /// The sink can never work as configured. The service does not start.
    #[error("{0}")]
    Unusable(String),
}

/// A destination to which deliveries are forwarded.
///
/// One worker drives a sink, on a thread of its own, so its methods may block. A sink never retries, drops or reorders
/// records: it returns the result, and the worker decides. Records arrive in the order in which they were accepted; a
/// record may arrive again after a failure or a crash, with the same event id.
pub trait Sink: Send {
    /// Makes the sink ready. Called before the first delivery, and again after a failure. `checkpoint` is the last one that
    /// was stored, if checkpoints are kept.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says whether a later attempt can succeed.
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError>;

    /// Returns the checkpoint before the first delivery, if the sink needs one to be stored first. Called after each
    /// [`open`](Self::open) if checkpoints are kept.
    fn begin(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Delivers a batch, which is never empty, and returns the result for each record. If checkpoints are kept, the last
    /// one that was due ([`Outcome::is_checkpoint_due`]) is durable before this call.
    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome;

    /// Returns the largest number of records in a batch. A worker in mode `spool` delivers at once when it has as many.
    fn max_batch(&self) -> usize {
        256
    }

    /// Returns how often [`check`](Self::check) is called while there is nothing to deliver; `None` for never.
    fn check_every(&self) -> Option<Duration> {
        None
    }

    /// Checks whether a record could be delivered, without one.
    ///
    /// # Errors
    ///
    /// [`SinkError`] if it could not.
    fn check(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Flushes, and releases all resources. Called when the service stops, or when a changed configuration replaces the
    /// sink. If the new sink does not work, this one is opened again.
    fn close(&mut self) {}
}

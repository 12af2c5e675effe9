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

/// The largest size of a sink's checkpoint in bytes.
pub const MAX_CHECKPOINT: usize = 64 * 1024;

/// The result of delivering one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The record is delivered, as durably as the sink can achieve.
    Delivered,
    /// The record is not delivered, and a later attempt may succeed: the destination is full, down or busy.
    Retry {
        /// The error, in words fit for a log line.
        error: String,
    },
    /// The record can never be delivered by this sink. Other records may still succeed.
    Rejected {
        /// The reason for the rejection, in words fit for a log line.
        error: String,
    },
    /// The delivery of the record is in progress, and its result is not known yet. The worker passes the same [`Arc`] again at
    /// once, before later records, until there is another result. The sink recognises the record by the address of the `Arc`, and
    /// does not send it twice.
    Pending {
        /// Why the delivery takes longer than expected, in words fit for a log line; `None` while there is no problem.
        last_error: Option<String>,
    },
}

/// The result of delivering a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One result for each record, in the order of the batch. A missing result counts as [`Fate::Retry`].
    pub fates: Vec<Fate>,
    /// The checkpoint of the sink after this batch, of at most [`MAX_CHECKPOINT`] bytes; `None` if it has not changed. It is
    /// stored with the sink's cursor, and passed to [`Sink::open`] at the next start.
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the checkpoint must be durable before the next call of [`Sink::deliver`]. If `false`, the checkpoint becomes
    /// durable a little later, and a newer one may replace it before that. After eight consecutive outcomes with `true` in which
    /// every record is pending, the sink counts as failed.
    pub is_checkpoint_due: bool,
}

impl Outcome {
    /// Returns the outcome of a batch of `count` records that are all delivered.
    #[must_use]
    pub fn delivered(count: usize) -> Self {
        Self { fates: vec![Fate::Delivered; count], ..Self::default() }
    }

    /// Returns the outcome of a batch of `count` records that are all to be retried, with the same error.
    #[must_use]
    pub fn retry(count: usize, error: &str) -> Self {
        Self { fates: vec![Fate::Retry { error: error.to_owned() }; count], ..Self::default() }
    }
}

/// A destination for dead letters other than the database `dead.db`.
pub trait DeadLetterSink: Send + Sync + std::fmt::Debug {
    /// Stores a dead letter, and returns after it is durable. The same dead letter may be stored twice.
    ///
    /// # Errors
    ///
    /// [`SinkError`] if the dead letter could not be stored.
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
    /// The destination is unavailable. Opening is retried, and the service starts meanwhile.
    #[error("{0}")]
    Down(String),
    /// The sink can never work as configured. The service does not start.
    #[error("{0}")]
    Unusable(String),
}

/// A destination to which deliveries are forwarded.
///
/// One worker drives a sink, on a thread of its own, so the sink's methods may block. A sink does not retry, drop or reorder
/// records: it returns the result of each one, and the worker decides. Records are passed in the order in which they were
/// accepted. After a failure or a crash, a record may be passed again, with the same event id.
pub trait Sink: Send {
    /// Prepares the sink for deliveries. Called before the first delivery, and again after a failure. `checkpoint` is the last
    /// stored checkpoint; `None` if there is none, or checkpoints are not kept.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says whether a later attempt can succeed.
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError>;

    /// Returns a checkpoint that must be stored before the first delivery; `None` if there is no need for one. Called after each
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

    /// Returns the interval of [`check`](Self::check) while there is nothing to deliver; `None` if the sink is never checked.
    fn check_every(&self) -> Option<Duration> {
        None
    }

    /// Checks whether a record could be delivered now, without delivering one.
    ///
    /// # Errors
    ///
    /// [`SinkError`] if a record could not be delivered now.
    fn check(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Flushes the sink, and releases its resources. Called when the service stops, or when a changed configuration replaces the
    /// sink. If the new sink does not work, this one is opened again.
    fn close(&mut self) {}
}

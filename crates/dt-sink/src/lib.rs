//! What a sink of `dt-receiver` is: the [`Sink`] trait, the [`Record`]s that it gets, and the [`Format`]s that they are
//! written in. A new type of sink is a crate or module that implements [`Sink`] and [`SinkSettings`], and passes the contract
//! test.

pub mod clock;
pub mod config;
mod metric;
pub mod record;
mod reporter;
mod types;

use std::sync::Arc;
use std::time::Duration;

pub use metric::{Metric, MetricKind};
pub use record::{DeadLetter, Format, Record};
pub use reporter::{LogPermit, SinkReporter};
pub use types::{
    BadPlace, MissingType, NoSinkType, NotASink, Settings, SinkContext, SinkSettings, SinkType, SinkTypes,
};

/// The most bytes a sink's checkpoint may have.
pub const MAX_CHECKPOINT: usize = 64 * 1024;

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is where it should be, as durably as the sink can make it.
    Delivered,
    /// It is not, but may be next time: the place is full, down or busy.
    Retry {
        /// What happened, in words fit for a log.
        error: String,
    },
    /// It never will be: this record is at fault, others may pass.
    Rejected {
        /// Why, in words fit for a log.
        error: String,
    },
    /// It is on its way, and nobody knows yet. It comes again at once, as the same [`Arc`] and before those that follow it,
    /// until there is another fate; the sink knows it by that, and does not send it twice.
    Pending {
        /// What holds it up, if it takes longer than it should; in words fit for a log.
        trouble: Option<String>,
    },
}

/// What became of a batch: the fate of each record, in the order of the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One fate a record. A missing one counts as [`Fate::Retry`].
    pub fates: Vec<Fate>,
    /// Where the sink stands after this batch, in its own terms; at most [`MAX_CHECKPOINT`] bytes. It is stored with
    /// the sink's position and handed back to [`Sink::open`] on the next start.
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the checkpoint has to be durable before the next call of [`Sink::deliver`]. Otherwise it becomes durable
    /// soon, and a later one may take its place before it does.
    pub is_checkpoint_due: bool,
}

impl Outcome {
    /// All `count` records were delivered.
    #[must_use]
    pub fn delivered(count: usize) -> Self {
        Self { fates: vec![Fate::Delivered; count], ..Self::default() }
    }

    /// None of the `count` records was delivered; all may be tried again.
    #[must_use]
    pub fn retry(count: usize, error: &str) -> Self {
        Self { fates: vec![Fate::Retry { error: error.to_owned() }; count], ..Self::default() }
    }
}

/// A place for dead letters, other than `dead.db`.
pub trait LetterBox: Send + Sync + std::fmt::Debug {
    /// Stores a letter durably; blocks until it is. A copy may be stored twice.
    ///
    /// # Errors
    ///
    /// Why it is not stored, in words fit for a log.
    fn bury(&self, letter: &DeadLetter) -> Result<(), String>;

    /// What went wrong last, if letters still cannot be stored.
    fn trouble(&self) -> Option<String>;
}

/// Why a sink cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is down; it will be tried again. The service starts without it.
    #[error("{0}")]
    Down(String),
    /// It can never work as configured; the service does not start.
    #[error("{0}")]
    Unusable(String),
}

/// A place that deliveries are passed on to.
///
/// A sink is driven by one worker on a thread of its own, so its methods may block. It never retries, never drops and
/// never reorders: it says what happened, and the worker decides. Records come in the order in which they were
/// accepted; a record may come again after a failure or a crash, and then carries the same event id.
pub trait Sink: Send {
    /// Makes the sink ready. Called before the first delivery, and again after it failed. `checkpoint` is what the
    /// last successful [`Outcome`] carried, if that was kept.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says whether trying again can help.
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), OpenError>;

    /// Where the sink stands before its first delivery, if it needs that to be stored first. Called after each
    /// [`open`](Self::open) by whoever keeps checkpoints, and by nobody else.
    fn begin(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Delivers a batch, never empty, and says what became of each record. Where checkpoints are kept, one that was due
    /// ([`Outcome::is_checkpoint_due`]) is durable by then.
    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome;

    /// How many records a batch may have. With so many to deliver, a worker in mode `spool` does not wait for more.
    fn max_batch(&self) -> usize {
        256
    }

    /// How often [`check`](Self::check) is called while there is nothing to deliver; `None` for never.
    fn check_every(&self) -> Option<Duration> {
        None
    }

    /// Looks whether a record could be delivered, without one.
    ///
    /// # Errors
    ///
    /// What is wrong, in words fit for a log.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Flushes and lets go. Called when the service stops, or when a changed configuration puts another sink in its
    /// place; should that one be of no use, this one is opened again.
    fn close(&mut self) {}
}

//! What the HTTP side needs from whatever stores the deliveries.

use std::pin::Pin;
use std::sync::Arc;

use crate::record::{DeadLetter, Record};

/// How an event came to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Now.
    New,
    /// It was stored already.
    Duplicate,
}

/// Why something is not stored, though it may be next time. Each is a 503: DT keeps the event and tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Too much is waiting.
    Overloaded,
    /// A sink did not take it.
    Sink,
    /// It could not be stored.
    Storage,
    /// It names a key that is not known, and the issuer of keys cannot be asked.
    Keys,
}

/// Whether events can be stored, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether they can. With the spool they can while a sink is down, and a proxy must not cut DT off then.
    pub ready: bool,
    /// What is wrong, each in a line.
    pub troubles: Vec<String>,
}

/// The future that an intake returns.
pub type IntakeFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// Stores what was verified. When a future gives `Ok`, a crash no longer loses it.
pub trait Intake: Send + Sync + 'static {
    /// Stores a record of the connector at place `connector` in the configuration.
    fn accept(&self, connector: usize, record: Arc<Record>) -> IntakeFuture<'_, Accepted>;

    /// Sets a delivery aside. The work goes on when the future is dropped.
    fn bury(&self, letter: DeadLetter) -> IntakeFuture<'_, ()>;

    /// What it means when a record is not stored within the deadline.
    fn late(&self) -> Unavailable {
        Unavailable::Sink
    }

    /// Whether events can be stored, and what is wrong.
    fn readiness(&self) -> Readiness;

    /// Brings gauges up to date before they are read.
    fn measure(&self) {}
}

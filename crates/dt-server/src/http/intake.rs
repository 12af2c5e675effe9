//! The interface between HTTP and the storage of events: the trait [`Intake`].

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use dt_sink::record::{DeadLetter, Record};

/// The result of storing an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The record was new, and is stored now.
    New,
    /// A copy of the record was stored before.
    Duplicate,
}

/// Why an event is not stored for now. The answer is 503, and DT sends the event again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The limits of concurrent requests are reached.
    Overloaded,
    /// A sink did not take it.
    Sink,
    /// The log or the dead letters cannot be written.
    Storage,
    /// The request names a key that is not in the key set, and the key set cannot be fetched.
    Keys,
    /// The request was not verified: its token is expired or names an unknown key, and there is no permit for it, or the key
    /// set was fetched a moment ago. It may be authentic. Any client can cause this answer, so it is no sign of a fault.
    Unverified,
}

/// Whether events can be stored, and the known problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether events can be stored. In mode `spool` they can while a sink is down, so that a proxy keeps forwarding.
    pub ready: bool,
    /// The problems, each in one line.
    pub problems: Vec<String>,
}

/// The future that an intake returns. Known results and channels need no allocation.
pub enum IntakeFuture<'a, T> {
    /// The result is known.
    Ready(Result<T, Unavailable>),
    /// A worker sends the result. If it drops the channel, nothing was stored.
    Sent(oneshot::Receiver<Result<T, Unavailable>>),
    /// Any other future.
    Boxed(Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>),
}

impl<'a, T> IntakeFuture<'a, T> {
    /// Boxes any future.
    pub fn boxed(future: impl Future<Output = Result<T, Unavailable>> + Send + 'a) -> Self {
        Self::Boxed(Box::pin(future))
    }
}

impl<T: Copy + Unpin> Future for IntakeFuture<'_, T> {
    type Output = Result<T, Unavailable>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(outcome) => Poll::Ready(*outcome),
            Self::Sent(outcome) => {
                Pin::new(outcome).poll(cx).map(|sent| sent.unwrap_or(Err(Unavailable::Storage)))
            }
            Self::Boxed(future) => future.as_mut().poll(cx),
        }
    }
}

/// Stores verified events and dead letters. They are durable when the future returns `Ok`. Dropping the future does not cancel
/// the operation.
pub trait Intake: Send + Sync + 'static {
    /// Stores a record of the connector with the index `connector` in the configuration.
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted>;

    /// Stores a dead letter.
    fn dead_letter(&self, dead_letter: DeadLetter) -> IntakeFuture<'_, ()>;

    /// Returns the reason to report when a record is not stored by the deadline.
    fn late(&self) -> Unavailable {
        Unavailable::Sink
    }

    /// Returns whether events can be stored, and the known problems.
    fn readiness(&self) -> Readiness;

    /// Updates the gauges. It is called before the metrics are rendered.
    fn measure(&self) {}
}

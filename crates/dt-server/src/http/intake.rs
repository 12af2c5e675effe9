//! The interface between the HTTP server and the storage of events: the trait [`Intake`].

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use dt_sink::record::{DeadLetter, Record};

/// The result of storing an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The record was new, and was stored now.
    New,
    /// A copy of the record was stored before.
    Duplicate,
}

/// Why an event cannot be stored now. The request is answered 503, and DT sends the event again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// A limit of concurrent requests or of waiting records is reached.
    Overloaded,
    /// A sink did not accept the record.
    Sink,
    /// The log or the dead letters cannot be written.
    Storage,
    /// The request names a key that is not in the key set, and the key set cannot be fetched now.
    Keys,
    /// The request was not verified: its token has expired or names an unknown key, and there is no permit for it, or the key set
    /// was fetched a moment ago. The request may be authentic. Any client can cause this answer, so it does not indicate a fault.
    Unverified,
}

/// The readiness of the service: whether events can be stored, and the known problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether events can be stored. In mode `spool` this is possible while a sink is down, so that a proxy continues to forward.
    pub ready: bool,
    /// The problems, each in one line.
    pub problems: Vec<String>,
}

/// The future that an intake returns. Its variants avoid an allocation for known results and for channels.
pub enum IntakeFuture<'a, T> {
    /// The result is known.
    Ready(Result<T, Unavailable>),
    /// A worker sends the result. If the worker drops the channel, nothing was stored.
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

/// Stores verified events and dead letters. They are durable once the future returns `Ok`. Dropping the future does not cancel
/// the operation.
pub trait Intake: Send + Sync + 'static {
    /// Stores a record of the connector with the index `connector` in the configuration.
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted>;

    /// Stores a dead letter.
    fn dead_letter(&self, dead_letter: DeadLetter) -> IntakeFuture<'_, ()>;

    /// Returns the reason that is reported if a record is not stored by the deadline.
    fn late(&self) -> Unavailable {
        Unavailable::Sink
    }

    /// Returns whether events can be stored, and the known problems.
    fn readiness(&self) -> Readiness;

    /// Updates the gauges. Called before the metrics are rendered.
    fn measure(&self) {}
}

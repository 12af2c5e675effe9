//! What the HTTP side needs from whatever stores the deliveries.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use dt_sink::record::{DeadLetter, Record};

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
    /// It is not verified, and there is no room or no time to find out: its token is out of date, or names a key that is not
    /// known, and the issuer was asked a moment ago. It may be DT's. Anybody can send such requests, so they say nothing of
    /// this receiver.
    Unverified,
}

/// Whether events can be stored, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether they can. With the spool they can while a sink is down, and a proxy must not cut DT off then.
    pub ready: bool,
    /// What is wrong, each in a line.
    pub problems: Vec<String>,
}

/// What an intake returns: the outcome, or what will bring it.
pub enum IntakeFuture<'a, T> {
    /// The outcome is known.
    Ready(Result<T, Unavailable>),
    /// A worker sends the outcome. One that goes without a word has stored nothing.
    Sent(oneshot::Receiver<Result<T, Unavailable>>),
    /// Anything else.
    Boxed(Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>),
}

impl<'a, T> IntakeFuture<'a, T> {
    /// Waits for any future, at the price of an allocation.
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

/// Stores what was verified. When a future returns `Ok`, a crash no longer loses it. The work goes on when the future is
/// dropped.
pub trait Intake: Send + Sync + 'static {
    /// Stores a record of the connector at place `connector` in the configuration.
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted>;

    /// Moves a delivery to the dead letters.
    fn dead_letter(&self, letter: DeadLetter) -> IntakeFuture<'_, ()>;

    /// What it means when a record is not stored within the deadline.
    fn late(&self) -> Unavailable {
        Unavailable::Sink
    }

    /// Whether events can be stored, and what is wrong.
    fn readiness(&self) -> Readiness;

    /// Updates the gauges before they are read.
    fn measure(&self) {}
}

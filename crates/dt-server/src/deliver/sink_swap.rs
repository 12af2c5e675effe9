//! Replaces the sink of a running worker, in both modes. The worker swaps the sinks when no record is pending, and keeps
//! the old one if the new one can never work.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::sink::{OpenError, Sink};

/// The longest time that the worker waits for pending records before it swaps the sinks. The new sink delivers the records that
/// are still pending again.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a sink was not replaced. The old one stays in use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// The new sink can never work as configured.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The old sink did not finish its batch within this time.
    #[error("the old one is busy and did not pause within {} s; try again", .0.as_secs())]
    Busy(Duration),
    /// The worker of the sink has ended.
    #[error("its worker has ended")]
    Ended,
}

/// Passes a new sink to a worker. It holds the request until the worker takes it.
#[derive(Debug, Default)]
pub struct SinkSwap(Mutex<Option<Arc<SwapRequest>>>);

/// A request to a worker to replace its sink. It carries the new sink to the worker, and the result back.
pub struct SwapRequest {
    since: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for SwapRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwapRequest").field("since", &self.since).finish_non_exhaustive()
    }
}

enum State {
    Waiting(Box<dyn Sink>),
    /// The worker is opening the new sink.
    Taken,
    /// The result: the old sink, closed, or why the new sink can never work.
    Done(Result<Box<dyn Sink>, OpenError>),
    /// The caller has given up, or the worker has ended.
    Withdrawn,
}

/// The sink that a worker has after a swap, and its state.
#[derive(Debug)]
pub enum SwapOutcome {
    /// The worker has the new sink, which is open.
    Open,
    /// The worker has the new sink, which is down for the contained reason and has to be opened later.
    Down(String),
    /// The worker keeps the old sink, since the new one can never work or the caller has given up. The old sink was closed for
    /// the swap, and has to be reopened.
    Kept,
}

impl SinkSwap {
    /// Requests that the worker replaces its sink by `sink`, wakes the worker by `wake`, and waits for the result. Returns the
    /// old sink, closed; it can be opened again.
    ///
    /// # Errors
    ///
    /// Returns [`ReplaceError`] if the old sink stays in use, also if the swap takes longer than `timeout`.
    pub fn replace(
        &self,
        sink: Box<dyn Sink>,
        wake: impl Fn(),
        timeout: Duration,
    ) -> Result<Box<dyn Sink>, ReplaceError> {
        let since = Instant::now();
        let request =
            Arc::new(SwapRequest { since, state: Mutex::new(State::Waiting(sink)), changed: Condvar::new() });
        *self.0.lock() = Some(Arc::clone(&request));
        wake();
        let until = since.checked_add(timeout).unwrap_or(since);
        let mut state = request.state.lock();
        while matches!(*state, State::Waiting(_) | State::Taken) {
            if request.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        match std::mem::replace(&mut *state, State::Withdrawn) {
            State::Done(done) => Ok(done?),
            State::Waiting(_) | State::Taken => Err(ReplaceError::Busy(timeout)),
            State::Withdrawn => Err(ReplaceError::Ended),
        }
    }

    /// Returns whether a new sink is waiting. The worker then takes no more records for the old one.
    pub fn is_requested(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|request| matches!(*request.state.lock(), State::Waiting(_)))
    }

    /// Returns the request if the worker can swap now: the old sink is idle (`is_idle`), or [`DRAIN_TIMEOUT`] has passed. `None`
    /// if not, or if there is no request.
    pub fn due(&self, is_idle: bool) -> Option<Arc<SwapRequest>> {
        let mut swap = self.0.lock();
        let is_due = swap.as_ref().is_some_and(|request| is_idle || request.since.elapsed() >= DRAIN_TIMEOUT);
        if is_due { swap.take() } else { None }
    }

    /// Ends the request, if there is one, with [`ReplaceError::Ended`]: the worker ends.
    pub fn end(&self) {
        if let Some(request) = self.0.lock().take() {
            *request.state.lock() = State::Withdrawn;
            request.changed.notify_all();
        }
    }
}

impl SwapRequest {
    /// Closes the old sink, opens the new one at `checkpoint`, and puts it into `sink`. Returns `None` if the request was
    /// withdrawn, which leaves the old sink untouched.
    pub fn swap(&self, sink: &mut Box<dyn Sink>, checkpoint: Option<&[u8]>) -> Option<SwapOutcome> {
        let mut new = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut *state, State::Taken) {
                State::Waiting(new) => new,
                other => {
                    *state = other;
                    return None;
                }
            }
        };
        // First, since both may write to the same file or topic.
        let closed = std::panic::catch_unwind(AssertUnwindSafe(|| sink.close()));
        if closed.is_err() {
            tracing::warn!("a sink panicked while it was closed");
        }
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| new.open(checkpoint)));
        let panicked = |_| Err(OpenError::Unusable("it panicked while it was opened".to_owned()));
        let (swapped, failure) = match opened.unwrap_or_else(panicked) {
            Ok(()) => (SwapOutcome::Open, None),
            Err(OpenError::Down(error)) => (SwapOutcome::Down(error), None),
            Err(error @ OpenError::Unusable(_)) => (SwapOutcome::Kept, Some(error)),
        };
        let mut state = self.state.lock();
        if matches!(*state, State::Withdrawn) {
            new.close();
            return Some(SwapOutcome::Kept);
        }
        *state = State::Done(match failure {
            Some(error) => Err(error),
            None => Ok(std::mem::replace(sink, new)),
        });
        self.changed.notify_all();
        Some(swapped)
    }
}

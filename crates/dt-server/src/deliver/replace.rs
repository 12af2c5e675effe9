//! Another sink in place of the one that a worker has, while both modes go on: the worker takes it where nothing is on
//! its way, and goes back to the old one if the new one can never work.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::sink::{OpenError, Sink};

/// How long what is on its way is waited for. What has no answer then is delivered again by the new sink.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a sink was not replaced. The old one goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// The new one can never work as configured.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The worker did not come to an end with what the old one is doing.
    #[error("the old one is busy and did not pause within {} s; try again", .0.as_secs())]
    Busy(Duration),
    /// There is no worker any more.
    #[error("its worker has ended")]
    Ended,
}

/// Where a worker finds the sink that it is to take.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Arc<Request>>>);

/// One sink that waits to be taken.
pub(super) struct Request {
    since: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("since", &self.since).finish_non_exhaustive()
    }
}

enum State {
    Waiting(Box<dyn Sink>),
    /// The worker is opening it.
    Taken,
    /// The old sink, closed.
    Done(Result<Box<dyn Sink>, OpenError>),
    /// Nobody wants it any more.
    Withdrawn,
}

/// What a worker has now.
#[derive(Debug)]
pub(super) enum Swapped {
    /// The new sink, open.
    Open,
    /// The new sink, which is down.
    Down(String),
    /// The old sink, closed: it has to be opened again.
    Kept,
}

impl Slot {
    /// Asks the worker to take `sink`, and waits for it. Gives the old one, closed; it may be opened again.
    pub(super) fn replace(
        &self,
        sink: Box<dyn Sink>,
        wake: impl Fn(),
        patience: Duration,
    ) -> Result<Box<dyn Sink>, ReplaceError> {
        let since = Instant::now();
        let request =
            Arc::new(Request { since, state: Mutex::new(State::Waiting(sink)), changed: Condvar::new() });
        *self.0.lock() = Some(Arc::clone(&request));
        wake();
        let until = since.checked_add(patience).unwrap_or(since);
        let mut state = request.state.lock();
        while matches!(*state, State::Waiting(_) | State::Taken) {
            if request.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        match std::mem::replace(&mut *state, State::Withdrawn) {
            State::Done(done) => Ok(done?),
            State::Waiting(_) | State::Taken => Err(ReplaceError::Busy(patience)),
            State::Withdrawn => Err(ReplaceError::Ended),
        }
    }

    /// Whether a sink waits, so that nothing new is begun with the old one.
    pub(super) fn is_asked(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|request| matches!(*request.state.lock(), State::Waiting(_)))
    }

    /// The sink that waits, if the worker can take it now: nothing is on its way, or was for too long.
    pub(super) fn due(&self, is_idle: bool) -> Option<Arc<Request>> {
        let mut slot = self.0.lock();
        let is_due = slot.as_ref().is_some_and(|request| is_idle || request.since.elapsed() >= DRAIN);
        if is_due { slot.take() } else { None }
    }

    /// The worker ends: whoever waits hears so.
    pub(super) fn end(&self) {
        if let Some(request) = self.0.lock().take() {
            *request.state.lock() = State::Withdrawn;
            request.changed.notify_all();
        }
    }
}

impl Request {
    /// Puts the new sink in the place of the old one. `None`: it was withdrawn, and the old one was not touched.
    pub(super) fn swap(&self, sink: &mut Box<dyn Sink>, checkpoint: Option<&[u8]>) -> Option<Swapped> {
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
        // The old one lets go first: both may write to the same place.
        let closed = std::panic::catch_unwind(AssertUnwindSafe(|| sink.close()));
        if closed.is_err() {
            tracing::warn!("a sink panicked while it was closed");
        }
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| new.open(checkpoint)));
        let panicked = |_| Err(OpenError::Unusable("it panicked while it was opened".to_owned()));
        let (swapped, failure) = match opened.unwrap_or_else(panicked) {
            Ok(()) => (Swapped::Open, None),
            Err(OpenError::Down(error)) => (Swapped::Down(error), None),
            Err(error @ OpenError::Unusable(_)) => (Swapped::Kept, Some(error)),
        };
        let mut state = self.state.lock();
        if matches!(*state, State::Withdrawn) {
            new.close();
            return Some(Swapped::Kept);
        }
        *state = State::Done(match failure {
            Some(error) => Err(error),
            None => Ok(std::mem::replace(sink, new)),
        });
        self.changed.notify_all();
        Some(swapped)
    }
}

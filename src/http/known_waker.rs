//! Asking only when there may be news. A future that waits for something rare is asked each time that the task around it runs,
//! which here is several times a request, and takes a lock each time to leave the same waker once more.

use std::task::Waker;

/// The waker that was left with something last.
#[derive(Debug, Default)]
pub(super) struct KnownWaker(Option<Waker>);

impl KnownWaker {
    /// Whether it has to be asked again, so that it wakes this one. What has been asked before with the same waker has that
    /// waker still, and will wake it.
    pub(super) fn is_new(&mut self, waker: &Waker) -> bool {
        if self.0.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return false;
        }
        self.0 = Some(waker.clone());
        true
    }
}

//! The time that a part of a request may take.

use std::pin::pin;
use std::task::Poll;

use tokio::time::{Instant, timeout_at};

use super::activity::Activity;

/// The time was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late;

/// Waits for a future, at the latest until the deadline.
///
/// A request of HTTP/1 has the timer of its connection, `alarm`: that one stands at a deadline nearly always before this
/// request's, and has only to be set anew when it rings. A timer of its own would be set and taken back for each request,
/// which takes the lock of all timers twice. What that saves is in `http/mod.rs`.
pub(super) async fn until<F: Future>(
    alarm: Option<&Activity>,
    deadline: Instant,
    future: F,
) -> Result<F::Output, Late> {
    let Some(alarm) = alarm else { return timeout_at(deadline, future).await.map_err(|_| Late) };
    let mut future = pin!(future);
    let mut is_set = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // The alarm in the past rings at once.
        if is_set && deadline <= Instant::now() {
            return Poll::Ready(Err(Late));
        }
        is_set = true;
        alarm.set_alarm(deadline);
        Poll::Pending
    })
    .await
}

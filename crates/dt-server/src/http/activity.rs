//! Limits how long a connection may stay in one phase, and lets other tasks run while the connection reads much.
//!
//! hyper's own header timer also runs between requests, allocates a timer for each of them, and does not exist for HTTP/2.
//! So these limits hold for both versions:
//!
//! | phase | time limit |
//! |---|---|
//! | receiving a request's head (the first of a connection; later ones of HTTP/1 only) | `header_timeout` from its first byte |
//! | answering a request | the request's own deadline |
//! | idle | `keep_alive_idle` |
//!
//! A client that sends more than [`MAX_IDLE_BYTES`] between two requests, such as an endless series of PING frames, is
//! disconnected. While an earlier request is being answered, the first bytes of the next head do not start its time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The largest number of bytes that a client may send between two requests. A correct client may send the rest of a rejected body
/// there, up to its window.
const MAX_IDLE_BYTES: usize = 2 * 1024 * 1024;

/// The timer's interval while a request is being answered.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The phase of one connection. Its own task changes it and, for HTTP/2, the tasks of its requests.
#[derive(Debug)]
pub struct Activity {
    header_timeout: Duration,
    keep_alive_idle: Duration,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
struct Phase {
    /// The number of requests that are being answered.
    requests: usize,
    idle_since: Instant,
    /// When the first byte of the incomplete head was received; `None` if no head is incomplete.
    head_since: Option<Instant>,
    /// When the last bytes were received while no request was being answered; `None` if there were none.
    last_read: Option<Instant>,
    /// The number of bytes received since the last request.
    idle_bytes: usize,
    is_http2: bool,
}

impl Activity {
    pub fn new(header_timeout: Duration, keep_alive_idle: Duration) -> Self {
        let phase = Phase {
            requests: 0,
            idle_since: Instant::now(),
            head_since: None,
            last_read: None,
            idle_bytes: 0,
            is_http2: false,
        };
        Self { header_timeout, keep_alive_idle, phase: Mutex::new(phase) }
    }

    /// Returns when the connection has waited too long for the rest of a head or for the next request; `None` while a request is
    /// being answered, which has its own deadline.
    fn deadline(&self) -> Option<Instant> {
        let phase = self.phase.lock();
        if phase.requests > 0 {
            return None;
        }
        if phase.idle_bytes > MAX_IDLE_BYTES {
            return Some(phase.idle_since);
        }
        match phase.head_since {
            Some(since) if !phase.is_http2 => since.checked_add(self.header_timeout),
            _ => phase.idle_since.checked_add(self.keep_alive_idle),
        }
    }

    /// Waits until the time limit of the connection's phase has expired. Resets `timer` only if the deadline is earlier than
    /// before, or if the timer has fired, since most requests only postpone the deadline.
    pub async fn expired(&self, mut timer: Pin<&mut Sleep>) {
        std::future::poll_fn(|cx| {
            loop {
                let deadline = self.deadline();
                let next = match deadline {
                    Some(deadline) if deadline < timer.deadline() => Some(deadline),
                    // A request of HTTP/2 may end without a wake-up for the connection, so the timer always runs.
                    _ if timer.is_elapsed() => {
                        deadline.or_else(|| timer.deadline().checked_add(RECHECK_INTERVAL))
                    }
                    _ => None,
                };
                if let Some(next) = next {
                    timer.as_mut().reset(next);
                }
                ready!(timer.as_mut().poll(cx));
                if deadline.is_some_and(|deadline| deadline <= timer.deadline()) {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }

    /// Returns whether the head of an HTTP/1 request has begun and is not complete.
    fn is_in_head(&self) -> bool {
        let phase = self.phase.lock();
        phase.requests == 0 && phase.head_since.is_some() && !phase.is_http2
    }

    /// Updates the phase after bytes were received.
    fn received(&self, bytes: usize) {
        let mut phase = self.phase.lock();
        if phase.requests == 0 {
            let now = Instant::now();
            phase.idle_bytes = phase.idle_bytes.saturating_add(bytes);
            phase.last_read = Some(now);
            phase.head_since.get_or_insert(now);
        }
    }

    /// Starts a request whose head is complete. It lasts until the guard is dropped.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the requests of a connection are in memory, so far fewer than 2^64"
    )]
    pub fn request(self: &Arc<Self>, version: Version) -> RequestGuard {
        let mut phase = self.phase.lock();
        phase.is_http2 = version == Version::HTTP_2;
        phase.head_since = None;
        phase.idle_bytes = 0;
        phase.requests += 1;
        // The last read completed this head. A second head in the same read starts now.
        let started = phase.last_read.take().unwrap_or_else(Instant::now);
        drop(phase);
        RequestGuard { activity: Arc::clone(self), started, ended: None }
    }
}

/// Marks a request as being answered until it is dropped.
#[derive(Debug)]
pub struct RequestGuard {
    activity: Arc<Activity>,
    started: Instant,
    ended: Option<Instant>,
}

impl RequestGuard {
    /// Returns when the request's head was complete.
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Ends the request, which was answered at the time `at`.
    pub fn end(mut self, at: Instant) {
        self.ended = Some(at);
    }
}

impl Drop for RequestGuard {
    #[expect(clippy::arithmetic_side_effects, reason = "the guard was counted when it was made")]
    fn drop(&mut self) {
        let mut phase = self.activity.phase.lock();
        phase.idle_since = self.ended.unwrap_or_else(Instant::now);
        phase.requests -= 1;
    }
}

/// The number of bytes after which other tasks run. They can contain thousands of small frames.
const YIELD_AFTER_BYTES: usize = 32 * 1024;

/// The largest number of bytes that are read and discarded after a head that was too large. If the connection were closed while
/// the client still sends, it would be reset, and the client might lose the answer. The time limit of the head applies as well.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A stream that reports received bytes to the connection's [`Activity`], and lets other tasks run after
/// [`YIELD_AFTER_BYTES`], so that one busy connection does not delay the others.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    read: usize,
    is_shut: bool,
    /// The number of bytes that were read and discarded after the answer.
    lingered: usize,
}

impl<S> Watched<S> {
    pub const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, read: 0, is_shut: false, lingered: 0 }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads and discards the rest of a head, until the client closes the connection or [`LINGER_BYTES`] are read.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; 8192];
        while self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut buffer);
            if self.read >= YIELD_AFTER_BYTES {
                self.read = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let bytes = buffer.filled().len();
            if result.is_err() || bytes == 0 {
                break;
            }
            self.read = self.read.saturating_add(bytes);
            self.lingered = self.lingered.saturating_add(bytes);
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= YIELD_AFTER_BYTES {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len().saturating_sub(before);
        if bytes > 0 {
            self.activity.received(bytes);
            self.read = self.read.saturating_add(bytes);
        } else if result.is_pending() {
            // The task waits, so others run.
            self.read = 0;
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        if self.activity.is_in_head() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_TIMEOUT: Duration = Duration::from_secs(1);

    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(HEADER_TIMEOUT, Duration::from_secs(60)))
    }

    /// Returns how long the connection may still wait for the rest of a head or for the next request, and then is closed;
    /// `None` while a request is being answered, which this does not limit.
    fn left(activity: &Activity) -> Option<Duration> {
        activity.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    #[tokio::test]
    async fn others_run_while_a_flood_is_read() {
        let flood = tokio::io::repeat(0);
        let mut stream = Watched::new(flood, activity());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut read, mut pauses) = (0, 0);
        while read < 10 * YIELD_AFTER_BYTES {
            let mut buffer = [0; 8192];
            let mut buffer = ReadBuf::new(&mut buffer);
            match Pin::new(&mut stream).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => pauses += 1,
            }
            read += buffer.filled().len();
        }
        assert_eq!(pauses, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_much_and_asks_nothing_has_no_time_left() {
        let activity = activity();
        drop(activity.request(Version::HTTP_2));
        let has_expired = || left(&activity) == Some(Duration::ZERO);
        activity.received(MAX_IDLE_BYTES);
        assert!(!has_expired());
        let request = activity.request(Version::HTTP_2);
        // A body counts for its request.
        activity.received(5 * MAX_IDLE_BYTES);
        drop(request);
        activity.received(MAX_IDLE_BYTES);
        assert!(!has_expired());
        activity.received(1);
        assert!(has_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_little_time_and_an_idle_connection_much() {
        for (version, between) in [(Version::HTTP_11, 1), (Version::HTTP_2, 60)] {
            let activity = activity();
            assert_eq!(left(&activity), Some(Duration::from_secs(60)));
            activity.received(1);
            tokio::time::advance(Duration::from_millis(300)).await;
            activity.received(1);
            assert_eq!(left(&activity), Some(Duration::from_millis(700)), "from the first byte");
            let request = activity.request(version);
            assert_eq!(request.started(), Instant::now(), "the head was complete with the last byte");
            assert_eq!(left(&activity), None);
            tokio::time::advance(Duration::from_secs(5)).await;
            let ended = Instant::now();
            tokio::time::advance(Duration::from_secs(1)).await;
            request.end(ended);
            assert_eq!(left(&activity), Some(Duration::from_secs(59)), "since the answer");
            tokio::time::advance(Duration::from_secs(1)).await;
            // Of HTTP/2 these may be the frames that end a stream.
            activity.received(1);
            let expected = if version == Version::HTTP_2 { 58 } else { between };
            assert_eq!(left(&activity), Some(Duration::from_secs(expected)), "{version:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_head_of_the_same_read_starts_when_its_turn_comes() {
        let activity = activity();
        activity.received(1000);
        let first = activity.request(Version::HTTP_11);
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(first);
        assert_eq!(activity.request(Version::HTTP_11).started(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_follows_the_deadline_both_ways() {
        let activity = activity();
        let started = Instant::now();
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::from_secs(60)));
        let quick = async {
            tokio::time::sleep(Duration::from_secs(50)).await;
            activity.received(1);
            let request = activity.request(Version::HTTP_11);
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop(request);
            tokio::time::sleep(Duration::from_secs(50)).await;
            activity.received(1);
            std::future::pending::<()>().await;
        };
        // In the same order as in the connection's task.
        tokio::select! {
            biased;
            () = quick => {}
            () = activity.expired(timer.as_mut()) => {}
        }
        assert_eq!(started.elapsed(), Duration::from_secs(50 + 30 + 50 + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_ends_unnoticed_does_not_keep_the_connection() {
        let activity = activity();
        let request = activity.request(Version::HTTP_2);
        let watched = Arc::clone(&activity);
        let expired = tokio::spawn(async move {
            let mut timer = std::pin::pin!(tokio::time::sleep(Duration::from_secs(60)));
            watched.expired(timer.as_mut()).await;
        });
        tokio::time::sleep(Duration::from_secs(70)).await;
        let ended = Instant::now();
        // In another task than the connection's, which is not woken.
        drop(request);
        expired.await.expect("it expires");
        assert_eq!(ended.elapsed(), Duration::from_secs(60));
    }
}

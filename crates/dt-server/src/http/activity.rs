//! What a connection is doing, and until when it may go on doing that.
//!
//! hyper's own header timer also runs between requests, allocates a timer for each of them, and does not exist for HTTP/2.
//! So the time of a connection is kept here, for both versions:
//!
//! | the connection is | it may stay so for |
//! |---|---|
//! | sending a head (until its first request: of either version; then of HTTP/1) | `header_timeout` from its first byte |
//! | waiting for our answer | the request's own deadline |
//! | doing nothing | `keep_alive_idle` |
//!
//! A client that sends [`MAX_IDLE_BYTES`] between two requests, such as PING frames without end, has no time left.
//!
//! A head whose first bytes arrive while an earlier request is being answered counts as doing nothing until more arrives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// More than all that may rightly come between two requests: what is left of the window of a body that was refused.
const MAX_IDLE_BYTES: usize = 2 * 1024 * 1024;

/// How long after its timer has fired a connection is looked at again that has a request.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One connection's phase. The connection's own task and, for HTTP/2, those of its requests change it.
#[derive(Debug)]
pub(super) struct Activity {
    header_timeout: Duration,
    keep_alive_idle: Duration,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
struct Phase {
    /// How many are being answered.
    requests: usize,
    idle_since: Instant,
    /// When the first byte arrived of a head that is not complete yet.
    head_since: Option<Instant>,
    /// When bytes arrived last while no request was being answered.
    last_read: Option<Instant>,
    /// How much arrived since the last request, while there was none.
    idle_bytes: usize,
    is_http2: bool,
}

impl Activity {
    pub(super) fn new(header_timeout: Duration, keep_alive_idle: Duration) -> Self {
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

    /// Until when the connection may go on like this; `None` while a request is being answered.
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

    /// Waits until the connection has stayed too long in one phase. `timer` is reset only when the deadline has come nearer
    /// or the timer has fired: most requests only move the deadline away.
    pub(super) async fn expired(&self, mut timer: Pin<&mut Sleep>) {
        std::future::poll_fn(|cx| {
            loop {
                let deadline = self.deadline();
                let next = match deadline {
                    Some(deadline) if deadline < timer.deadline() => Some(deadline),
                    // A request of HTTP/2 may end without a wake-up for the connection, so the timer always runs.
                    _ if timer.is_elapsed() => deadline.or_else(|| timer.deadline().checked_add(LOOK_AGAIN)),
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

    /// Whether a head of HTTP/1 was begun and is not complete.
    fn is_in_head(&self) -> bool {
        let phase = self.phase.lock();
        phase.requests == 0 && phase.head_since.is_some() && !phase.is_http2
    }

    fn received(&self, bytes: usize) {
        let mut phase = self.phase.lock();
        if phase.requests == 0 {
            let now = Instant::now();
            phase.idle_bytes = phase.idle_bytes.saturating_add(bytes);
            phase.last_read = Some(now);
            phase.head_since.get_or_insert(now);
        }
    }

    /// A head is complete. The request lasts until the guard ends.
    pub(super) fn request(self: &Arc<Self>, version: Version) -> RequestGuard {
        let mut phase = self.phase.lock();
        phase.is_http2 = version == Version::HTTP_2;
        phase.head_since = None;
        phase.idle_bytes = 0;
        phase.requests = phase.requests.saturating_add(1);
        // The head that has just become complete came with the last read. One that follows in the same read has none.
        let started = phase.last_read.take().unwrap_or_else(Instant::now);
        drop(phase);
        RequestGuard { activity: Arc::clone(self), started, ended: None }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Arc<Activity>,
    started: Instant,
    ended: Option<Instant>,
}

impl RequestGuard {
    /// When its head was complete.
    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Ends the request, with the time at which it was answered.
    pub(super) fn end(mut self, at: Instant) {
        self.ended = Some(at);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut phase = self.activity.phase.lock();
        phase.idle_since = self.ended.unwrap_or_else(Instant::now);
        phase.requests = phase.requests.saturating_sub(1);
    }
}

/// How much is read in one go. Of small frames, these are thousands.
const READ_AT_ONCE: usize = 32 * 1024;

/// How much of a head that is too large is read on after its answer, so that the answer gets through: a connection that is
/// closed while the client still sends is reset, and the client may lose what it has not read. It ends with the time of the
/// head at the latest.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A stream that reports its bytes to the connection's activity, and lets other tasks run after [`READ_AT_ONCE`], so that a
/// flood on one connection does not delay the others.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    read: usize,
    is_shut: bool,
    /// How much was read after the answer.
    lingered: usize,
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, read: 0, is_shut: false, lingered: 0 }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads what still comes of a head that was answered, until the client has gone or it is too much.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; 8192];
        while self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut buffer);
            if self.read >= READ_AT_ONCE {
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
        if self.read >= READ_AT_ONCE {
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

    /// How long the connection may go on like this.
    fn left(activity: &Activity) -> Option<Duration> {
        activity.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    #[tokio::test]
    async fn others_run_while_a_flood_is_read() {
        let flood = tokio::io::repeat(0);
        let mut stream = Watched::new(flood, activity());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut read, mut pauses) = (0, 0);
        while read < 10 * READ_AT_ONCE {
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
        let is_over = || left(&activity) == Some(Duration::ZERO);
        activity.received(MAX_IDLE_BYTES);
        assert!(!is_over());
        let request = activity.request(Version::HTTP_2);
        // A body counts for its request.
        activity.received(5 * MAX_IDLE_BYTES);
        drop(request);
        activity.received(MAX_IDLE_BYTES);
        assert!(!is_over());
        activity.received(1);
        assert!(is_over());
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
        // As in the connection's task: first what happens, then the timer.
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

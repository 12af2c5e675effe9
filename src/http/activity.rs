//! What a connection is doing, seen from its bytes and its requests, and until when it may go on doing that.
//!
//! hyper's own header timer also runs between requests, and `hyper-util` has none while it tells HTTP/1 from HTTP/2.
//! So the time of a connection is kept here, for both versions and all phases:
//!
//! | the connection is | it may stay so for |
//! |---|---|
//! | sending the head of a request (HTTP/1), or the preface of HTTP/2 | `header_timeout` from its first byte |
//! | waiting for our answer | the request's own deadline |
//! | doing nothing | `keep_alive_idle` |
//!
//! Whoever sends [`MAX_IDLE_BYTES`] between two requests, such as PING frames without end, has no time left.
//!
//! A head whose first bytes come while an earlier request is being answered counts as doing nothing until more comes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How every HTTP/2 connection begins (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// More than all that may rightly come between two requests: what is left of the window of a body that was refused.
const MAX_IDLE_BYTES: usize = 2 * 1024 * 1024;

/// One connection's phase.
///
/// It is written by the connection's own task and, at the end of a request of HTTP/2, by that of the request, and asked
/// several times a request: so each part is a number that is written and read without a lock.
#[derive(Debug)]
pub(super) struct Activity {
    header_timeout: Duration,
    keep_alive_idle: Duration,
    /// Moments are told from here.
    start: Instant,
    requests: AtomicUsize,
    /// When the first byte of a head came that is not complete yet.
    head_since: Moment,
    idle_since: Moment,
    /// When the request that is being answered has to be woken, where the connection's timer does that.
    alarm: Moment,
    /// How much came since the last request, while there was none.
    idle_bytes: AtomicUsize,
    /// How many of the connection's first bytes are those of the preface, however small the pieces they come in.
    preface: AtomicUsize,
    /// Whether a byte came that is none of it.
    is_http1: AtomicBool,
}

/// A moment in nanoseconds from a start, or none.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, start: Instant, at: Instant) {
        let since = u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX);
        self.0.store(since.saturating_add(1), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn get(&self, start: Instant) -> Option<Instant> {
        let since = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        start.checked_add(Duration::from_nanos(since))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

impl Activity {
    pub(super) fn new(header_timeout: Duration, keep_alive_idle: Duration) -> Self {
        Self {
            header_timeout,
            keep_alive_idle,
            start: Instant::now(),
            requests: AtomicUsize::new(0),
            head_since: Moment::default(),
            // Since the start.
            idle_since: Moment(AtomicU64::new(1)),
            alarm: Moment::default(),
            idle_bytes: AtomicUsize::new(0),
            preface: AtomicUsize::new(0),
            is_http1: AtomicBool::new(false),
        }
    }

    /// Until when the connection may go on like this; `None` while a request is being answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.requests.load(Ordering::Acquire) > 0 {
            return None;
        }
        let idle_since = self.idle_since.get(self.start).unwrap_or(self.start);
        if self.idle_bytes.load(Ordering::Relaxed) > MAX_IDLE_BYTES {
            return Some(idle_since);
        }
        let is_http2 = self.preface.load(Ordering::Relaxed) == HTTP2_PREFACE.len();
        match self.head_since.get(self.start) {
            Some(since) if !is_http2 => since.checked_add(self.header_timeout),
            _ => idle_since.checked_add(self.keep_alive_idle),
        }
    }

    /// When the request that is being answered has to be woken.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.alarm.get(self.start)
    }

    /// The connection's own task is to be woken then, instead of any other time that was set here.
    pub(super) fn set_alarm(&self, at: Instant) {
        self.alarm.set(self.start, at);
    }

    /// The alarm has rung.
    pub(super) fn clear_alarm(&self) {
        self.alarm.clear();
    }

    fn received(&self, bytes: &[u8]) {
        if !self.is_http1.load(Ordering::Relaxed) {
            let matched = self.preface.load(Ordering::Relaxed);
            let missing = HTTP2_PREFACE.get(matched..).unwrap_or_default();
            let is_it = missing.iter().zip(bytes).all(|(expected, byte)| expected == byte);
            self.is_http1.store(!is_it, Ordering::Relaxed);
            if is_it {
                self.preface.store(matched.saturating_add(missing.len().min(bytes.len())), Ordering::Relaxed);
            }
        }
        if self.requests.load(Ordering::Acquire) == 0 {
            let so_far = self.idle_bytes.load(Ordering::Relaxed);
            self.idle_bytes.store(so_far.saturating_add(bytes.len()), Ordering::Relaxed);
            if !self.head_since.is_set() {
                self.head_since.set(self.start, Instant::now());
            }
        }
    }

    /// A head is complete. The request lasts as long as what is returned here.
    pub(super) fn request(self: &Arc<Self>) -> RequestGuard {
        self.head_since.clear();
        self.alarm.clear();
        self.idle_bytes.store(0, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard(Arc::clone(self))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<Activity>);

impl RequestGuard {
    /// What its connection is doing.
    pub(super) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.idle_since.set(self.0.start, Instant::now());
        self.0.requests.fetch_sub(1, Ordering::Release);
    }
}

/// How much is read in one go. Of small frames, these are thousands.
const READ_AT_ONCE: usize = 32 * 1024;

/// A stream that reports its bytes to the connection's activity, and lets others run after [`READ_AT_ONCE`]: whoever floods
/// us is read on when it is its turn again.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    read: usize,
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, read: 0 }
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
        if let Some(bytes) = buf.filled().get(before..)
            && !bytes.is_empty()
        {
            self.activity.received(bytes);
            self.read = self.read.saturating_add(bytes.len());
        } else if result.is_pending() {
            // It waits, so others run.
            self.read = 0;
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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

    /// Whether such a client has only `header_timeout` for what it is sending.
    fn is_hurried(pieces: &[&[u8]]) -> bool {
        let (header_timeout, keep_alive_idle) = (Duration::from_secs(1), Duration::from_secs(60));
        let activity = Activity::new(header_timeout, keep_alive_idle);
        for piece in pieces {
            activity.received(piece);
        }
        let left = activity.deadline().unwrap().duration_since(Instant::now());
        left <= header_timeout
    }

    #[tokio::test]
    async fn others_run_while_a_flood_is_read() {
        let activity = Arc::new(Activity::new(Duration::from_secs(1), Duration::from_secs(60)));
        let flood = tokio::io::repeat(0);
        let mut stream = Watched::new(flood, activity);
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

    #[test]
    fn who_sends_much_and_asks_nothing_has_no_time_left() {
        let activity = Arc::new(Activity::new(Duration::from_secs(1), Duration::from_secs(60)));
        activity.received(HTTP2_PREFACE);
        let is_over = || activity.deadline().is_some_and(|deadline| deadline <= Instant::now());
        let half = vec![0; MAX_IDLE_BYTES / 2];
        activity.received(&half);
        assert!(!is_over());
        let request = activity.request();
        // A body counts for its request.
        (0..5).for_each(|_| activity.received(&half));
        drop(request);
        activity.received(&half);
        assert!(!is_over());
        activity.received(&half);
        activity.received(b"x");
        assert!(is_over());
    }

    #[test]
    fn the_version_is_known_however_the_first_bytes_are_split() {
        let after = [HTTP2_PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        for at in 1..HTTP2_PREFACE.len() {
            let (first, second) = after.split_at(at);
            assert!(is_hurried(&[first]), "the preface is not complete after {at} bytes");
            assert!(!is_hurried(&[first, second]), "split at {at}");
        }
        assert!(!is_hurried(&[HTTP2_PREFACE]));
        assert!(!is_hurried(&[&after]));
        assert!(!is_hurried(&[]));
        for head in [&b"POST / HTTP/1.1\r\n"[..], b"PRINT / HTTP/1.1\r\n", b"PRI * HTTP/1.1\r\n"] {
            assert!(is_hurried(&[head]));
            assert!(is_hurried(&[&head[..3], &head[3..]]));
        }
    }
}

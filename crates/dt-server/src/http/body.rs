//! A request's body, limited in size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::reply::Reply;

/// The time limit for reading a body that was already received.
const ARRIVED_TIMEOUT: Duration = Duration::from_millis(10);

/// Returns whether the client waits for `100 Continue`. If so, it has not sent the body yet.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// A request's body, limited in size and time.
pub struct CappedBody<B> {
    body: B,
    max: usize,
    deadline: Instant,
}

impl<B: Body<Data = Bytes> + Unpin> CappedBody<B> {
    pub const fn new(body: B, max: usize, deadline: Instant) -> Self {
        Self { body, max, deadline }
    }

    /// Returns whether the announced length exceeds the limit.
    pub fn announces_too_much(&self) -> bool {
        let max = u64::try_from(self.max).unwrap_or(u64::MAX);
        self.body.size_hint().lower() > max
    }

    /// Returns the largest size that the body can have, in bytes: the announced length, or else the limit.
    pub fn at_most(&self) -> usize {
        let announced = self.body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        announced.unwrap_or(self.max).min(self.max)
    }

    /// Reads the whole body.
    ///
    /// # Errors
    ///
    /// Returns the [`Reply`] to send if the body is too large, too slow, or ends early.
    pub async fn read(&mut self) -> Result<Bytes, Reply> {
        timeout_at(self.deadline, self.collect()).await.unwrap_or(Err(Reply::BodyTimeout))
    }

    async fn collect(&mut self) -> Result<Bytes, Reply> {
        // A copy, since a piece of the body would keep the connection's read buffer of at least 8 KiB in memory.
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len().saturating_add(piece.len()) > self.max {
                return Err(Reply::BodyTooLarge);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Returns the next part of the body; `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Reply> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(Reply::BodyUnreadable),
                Some(Ok(frame)) => {
                    // Trailers are ignored.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Reads and discards the body of a rejected request. Each part counts as at least 512 bytes.
    ///
    /// # Errors
    ///
    /// Returns the [`Reply`] to send if the body is too large, too slow, or ends early.
    pub async fn discard(&mut self) -> Result<(), Reply> {
        /// The smallest size that a part counts as, in bytes. It limits the cost of a body in chunks of one byte.
        const PIECE: usize = 512;
        let (max, deadline) = (self.max.max(PIECE), self.deadline);
        let all = async {
            let mut read = 0_usize;
            while let Some(bytes) = self.next().await? {
                read = read.saturating_add(bytes.len().max(PIECE));
                // `max` is at least the size that a small piece counts as.
                if read > max {
                    return Err(Reply::BodyTooLarge);
                }
            }
            Ok(())
        };
        timeout_at(deadline, all).await.unwrap_or(Err(Reply::BodyTimeout))
    }

    /// Discards the bytes that were already received. Returns whether they were the whole body.
    pub async fn discard_arrived(&mut self) -> bool {
        self.limit_time(ARRIVED_TIMEOUT);
        self.discard().await.is_ok()
    }

    /// Discards the body for up to 500 ms and returns `reply`. If the connection were closed while the client still sends, it
    /// would be reset, and the client might lose the answer.
    pub async fn linger(mut self, reply: Reply, headers: &HeaderMap) -> Reply {
        /// The largest number of bytes that are discarded.
        const LINGER_BYTES: usize = 1024 * 1024;
        const LINGER: Duration = Duration::from_millis(500);
        if !expects_continue(headers) {
            self.max = LINGER_BYTES;
            self.limit_time(LINGER);
            // The result does not change the answer.
            let _discarded = self.discard().await;
        }
        reply
    }

    /// Brings the deadline forward so that at most `time` is left.
    fn limit_time(&mut self, time: Duration) {
        let end = Instant::now().checked_add(time);
        self.deadline = end.map_or(self.deadline, |end| end.min(self.deadline));
    }
}

//! A request's body, limited in size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::reply::Reply;

/// How long a body may take that is not waited for: one that has arrived already is read in this time.
const BRIEFLY: Duration = Duration::from_millis(10);

/// A client that waits for `100 Continue` has not sent its body, and need not.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// A request's body, limited in size and time.
pub(super) struct CappedBody<B> {
    body: B,
    max: usize,
    deadline: Instant,
}

impl<B: Body<Data = Bytes> + Unpin> CappedBody<B> {
    pub(super) const fn new(body: B, max: usize, deadline: Instant) -> Self {
        Self { body, max, deadline }
    }

    /// Whether its announced length is too large.
    pub(super) fn announces_too_much(&self) -> bool {
        let max = u64::try_from(self.max).unwrap_or(u64::MAX);
        self.body.size_hint().lower() > max
    }

    /// How many bytes it may take to hold it: what is announced, else all that is allowed.
    pub(super) fn at_most(&self) -> usize {
        let announced = self.body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        announced.unwrap_or(self.max).min(self.max)
    }

    /// Reads all of it.
    pub(super) async fn read(&mut self) -> Result<Bytes, Reply> {
        timeout_at(self.deadline, self.collect()).await.unwrap_or(Err(Reply::BodyTimeout))
    }

    async fn collect(&mut self) -> Result<Bytes, Reply> {
        // In one copy: a piece of it would keep the connection's whole read buffer, 8 KiB for 600 bytes.
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len().saturating_add(piece.len()) > self.max {
                return Err(Reply::BodyTooLarge);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The next piece of the body; `None` at its end.
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

    /// Reads it to its end, or to the cap, and keeps nothing. Only for a request that is refused anyway.
    pub(super) async fn discard(&mut self) -> Result<(), Reply> {
        /// A piece costs more than its bytes, and a body in chunks of one byte has no honest sender.
        const PIECE: usize = 512;
        let (max, deadline) = (self.max.max(PIECE), self.deadline);
        let all = async {
            let mut read = 0_usize;
            while let Some(bytes) = self.next().await? {
                read = read.saturating_add(bytes.len().max(PIECE));
                // One piece of any length, as long as that is allowed.
                if read > max {
                    return Err(Reply::BodyTooLarge);
                }
            }
            Ok(())
        };
        timeout_at(deadline, all).await.unwrap_or(Err(Reply::BodyTimeout))
    }

    /// Discards what has arrived already. Returns whether that was all of it.
    pub(super) async fn discard_arrived(&mut self) -> bool {
        self.hurry(BRIEFLY);
        self.discard().await.is_ok()
    }

    /// Answers without looking at the body. What the client is still sending is read for a moment and thrown away:
    /// closing on it would reset the connection before the client has read the answer.
    pub(super) async fn linger(mut self, reply: Reply, headers: &HeaderMap) -> Reply {
        /// How much of a refused body is read to let the answer through.
        const LINGER_BYTES: usize = 1024 * 1024;
        const LINGER: Duration = Duration::from_millis(500);
        if !expects_continue(headers) {
            self.max = LINGER_BYTES;
            self.hurry(LINGER);
            // However it ends, the answer is the same.
            let _read = self.discard().await;
        }
        reply
    }

    /// Leaves it at most this time.
    fn hurry(&mut self, time: Duration) {
        let end = Instant::now().checked_add(time);
        self.deadline = end.map_or(self.deadline, |end| end.min(self.deadline));
    }
}

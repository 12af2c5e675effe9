//! What happens to a request that no body can make authentic: how politely it is refused, and what is kept of it.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use tokio::time::timeout_at;

use super::body::{CappedBody, expects_continue};
use super::endpoint::Connector;
use super::ingest::Exchange;
use super::reply::Reply;
use dt_sink::record::{DeadLetter, Reason};
use dt_verify::Rejection;

impl Exchange<'_> {
    /// Refuses a request for its signature. Within the budget, and while it is not busy here, a body that is too large or
    /// too slow comes first; otherwise only what has arrived already is read, so that the connection can go on.
    pub(super) async fn refuse<B: Body<Data = Bytes> + Unpin>(
        &self,
        connector: &Connector,
        rejection: Rejection,
        headers: &HeaderMap,
        mut body: CappedBody<B>,
    ) -> Reply {
        if expects_continue(headers) {
            return Reply::Refused { rejection, unread: true };
        }
        let endpoint = self.endpoint;
        let is_within = endpoint.rejections.take(self.address, self.received_at) && !endpoint.is_busy();
        let Some(Ok(_permit)) = is_within.then(|| endpoint.unauthenticated.try_acquire()) else {
            let unread = !body.discard_arrived().await;
            return Reply::Refused { rejection, unread };
        };
        if connector.quarantine_refused {
            return self.read_refused(connector, rejection, headers, body).await;
        }
        match body.discard().await {
            Ok(()) => Reply::Refused { rejection, unread: false },
            Err(reply) => reply,
        }
    }

    /// Answers without looking at the body; see [`CappedBody::linger`]. Beyond the budget it is not waited for.
    pub(super) async fn turn_down<B: Body<Data = Bytes> + Unpin>(
        &self,
        body: CappedBody<B>,
        reply: Reply,
        headers: &HeaderMap,
    ) -> Reply {
        let is_within = self.endpoint.rejections.take(self.address, self.received_at);
        match self.endpoint.unauthenticated.try_acquire() {
            Ok(_permit) if is_within => body.linger(reply, headers).await,
            _ => reply,
        }
    }

    /// Reads the body of a request that is refused, and keeps both.
    async fn read_refused<B: Body<Data = Bytes> + Unpin>(
        &self,
        connector: &Connector,
        rejection: Rejection,
        headers: &HeaderMap,
        mut body: CappedBody<B>,
    ) -> Reply {
        let bytes = body.at_most();
        let held = self.endpoint.rejections.hold(self.address, bytes, self.received_at);
        let permit =
            self.endpoint.unauthenticated_bytes.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX));
        let (Some(_held), Ok(_permit)) = (held, permit) else {
            return Reply::Refused { rejection, unread: true };
        };
        match body.read().await {
            Ok(bytes) => {
                self.keep(connector, &rejection, headers, bytes).await;
                Reply::Refused { rejection, unread: false }
            }
            Err(Reply::BodyTooLarge) => body.linger(Reply::BodyTooLarge, headers).await,
            Err(reply) => reply,
        }
    }

    /// A refused request is answered 401 and stays with DT. The copy is for the case that DT never renews its token
    /// or, where that is asked for, that a secret here was wrong.
    pub(super) async fn keep(
        &self,
        connector: &Connector,
        rejection: &Rejection,
        headers: &HeaderMap,
        body: Bytes,
    ) {
        let (reason, error) = if rejection.is_expired() {
            (Reason::Expired, rejection.to_string())
        } else {
            (Reason::Refused, format!("{}: {rejection}", rejection.code()))
        };
        let name = Arc::clone(&connector.name);
        let letter = DeadLetter::of_request(name, reason, error, self.received_at, body);
        let letter = letter.with_headers(headers).with_request_id(Some(self.id));
        // Whether it was kept shows in the metrics; the answer is the same.
        let _kept = timeout_at(self.deadline, connector.intake.dead_letter(letter)).await;
    }
}

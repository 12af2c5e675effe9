//! Answers requests that are not authentic. Determines how much of the body is read, and which requests become dead letters.

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
    /// Rejects a request because of its signature. Within the rejection budget, and while the server is not busy, reads the body
    /// to its end, so that the connection can stay open; a body that is too large or too slow is answered accordingly. Otherwise
    /// discards only the bytes that were already received.
    pub async fn reject<B: Body<Data = Bytes> + Unpin>(
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
            return self.read_rejected(connector, rejection, headers, body).await;
        }
        match body.discard().await {
            Ok(()) => Reply::Refused { rejection, unread: false },
            Err(reply) => reply,
        }
    }

    /// Rejects a request before its body is read. Within the rejection budget, discards the body for a short time, as
    /// [`CappedBody::linger`] describes.
    pub async fn reject_unread<B: Body<Data = Bytes> + Unpin>(
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

    /// Reads the body of a rejected request and stores the request as a dead letter.
    async fn read_rejected<B: Body<Data = Bytes> + Unpin>(
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
                self.dead_letter_rejected(connector, &rejection, headers, bytes).await;
                Reply::Refused { rejection, unread: false }
            }
            Err(Reply::BodyTooLarge) => body.linger(Reply::BodyTooLarge, headers).await,
            Err(reply) => reply,
        }
    }

    /// Stores a rejected request as a dead letter. After a 401, DT keeps the event, but might not renew its expired token. With
    /// `quarantine_refused`, the dead letter also helps if a secret was configured wrongly.
    pub async fn dead_letter_rejected(
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
        let dead_letter = DeadLetter::of_request(name, reason, error, self.received_at, body);
        let dead_letter = dead_letter.with_headers(headers).with_request_id(Some(self.id));
        // The metrics show whether it was stored. The answer does not depend on it.
        let _stored = timeout_at(self.deadline, connector.intake.dead_letter(dead_letter)).await;
    }
}

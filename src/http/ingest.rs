//! What happens to a request: route, cap, verify, hand on. The first reason that applies is the answer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Connector, Endpoint, Routing};
use super::forwarded::client_of;
use super::intake::{Accepted, Unavailable};
use super::reply::Reply;
use crate::keys::Learned;
use crate::record::{DeadLetter, Reason, Record};
use crate::telemetry::{Answered, OtherSchemeFailed};
use crate::verify::{Authenticated, Rejection, Verified};

impl Endpoint {
    /// Answers a request, always, and within the deadline. `peer` is who connected, or whom a PROXY header named; behind
    /// trusted proxies, the request itself may name another.
    pub async fn answer<B>(&self, peer: Option<SocketAddr>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let started = Instant::now();
        let routing = self.routing();
        let peer = client_of(&routing.proxies, peer, request.headers());
        let connector = routing.connector(request.uri().path());
        let deadline = started.checked_add(routing.limits.deadline).unwrap_or(started);
        let reply = self.ingest(&routing, connector, request, deadline).await;
        let detail = reply.detail();
        self.telemetry.emit(&Answered {
            connector: connector.map(|connector| &*connector.name),
            peer,
            status: reply.status(),
            code: reply.code(),
            detail: detail.as_deref(),
            took: started.elapsed(),
        });
        reply.into_response()
    }

    async fn ingest<B>(
        &self,
        routing: &Routing,
        connector: Option<&Connector>,
        request: Request<B>,
        deadline: Instant,
    ) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if self.is_stopping() {
            return Reply::ShuttingDown;
        }
        let (head, body) = request.into_parts();
        let mut body = CappedBody { body, max: routing.limits.max_body, deadline };
        let Some(connector) = connector else {
            return body.refuse(Reply::NotFound, &head.headers).await;
        };
        if head.method != Method::POST {
            return body.refuse(Reply::MethodNotAllowed, &head.headers).await;
        }
        let Ok(_request_permit) = self.requests.try_acquire() else {
            return Reply::Unavailable(Unavailable::Overloaded);
        };
        if body.announces_too_much() {
            return body.refuse(Reply::BodyTooLarge, &head.headers).await;
        }
        let authenticated = match self.authenticate(connector, &head.headers, deadline).await {
            Ok(Ok(authenticated)) => authenticated,
            Err(unavailable) => return body.refuse(Reply::Unavailable(unavailable), &head.headers).await,
            // A body that is too large or too slow comes first, unless there is no time to look at it.
            Ok(Err(rejection)) if self.is_busy() || expects_continue(&head.headers) => {
                return Reply::Refused(rejection);
            }
            Ok(Err(rejection)) if connector.quarantine_refused => {
                return self.read_refused(connector, rejection, &head.headers, body).await;
            }
            Ok(Err(rejection)) => {
                return match body.discard().await {
                    Ok(()) => Reply::Refused(rejection),
                    Err(reply) => reply,
                };
            }
        };
        let Ok(_bytes_permit) = self.body_bytes.try_acquire_many(body.at_most()) else {
            return Reply::Unavailable(Unavailable::Overloaded);
        };
        let bytes = match body.read().await {
            Ok(bytes) => bytes,
            Err(Reply::BodyTooLarge) => return body.refuse(Reply::BodyTooLarge, &head.headers).await,
            Err(reply) => return reply,
        };
        let now = self.clock.unix_millis();
        match authenticated.verify_body(bytes.clone(), now.div_euclid(1000)) {
            Ok(verified) => {
                self.clock_doubt.accepted(&self.telemetry);
                self.store(connector, &verified, head.headers, now, deadline).await
            }
            Err(rejection) => {
                self.clock_doubt.refused(&rejection, &self.telemetry);
                if rejection.is_expired() || connector.quarantine_refused {
                    self.keep(connector, &rejection, &head.headers, now, bytes, deadline).await;
                }
                Reply::Refused(rejection)
            }
        }
    }

    /// Looks at the signatures. Where one names a key that is not known, the issuer is asked; where that cannot be done, it
    /// is not for us to refuse the request.
    async fn authenticate(
        &self,
        connector: &Connector,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> Result<Result<Authenticated, Rejection>, Unavailable> {
        let verifier = connector.verifier.get();
        let authenticated = verifier.authenticate(headers);
        let (unknown, enough) = match &authenticated {
            Ok(authenticated) => (authenticated.names_unknown_key(), authenticated.is_enough()),
            Err(_) if connector.verifier.keys().is_some() => (verifier.names_unknown_key(headers), false),
            Err(_) => (false, false),
        };
        if !unknown || connector.verifier.keys().is_none() {
            return Ok(authenticated);
        }
        if enough {
            // The other signature holds; the next request may need the key.
            let live = Arc::clone(&connector.verifier);
            drop(tokio::spawn(async move { live.learn(&verifier).await }));
            return Ok(authenticated);
        }
        match timeout_at(deadline, connector.verifier.learn(&verifier)).await {
            Ok(Learned::New) => Ok(connector.verifier.get().authenticate(headers)),
            Ok(Learned::Nothing) => Ok(authenticated),
            Ok(Learned::Unavailable) | Err(_) => Err(Unavailable::Keys),
        }
    }

    /// Reads the body of a request that no body can make authentic, and keeps both.
    async fn read_refused<B: Body<Data = Bytes> + Unpin>(
        &self,
        connector: &Connector,
        rejection: Rejection,
        headers: &HeaderMap,
        mut body: CappedBody<B>,
    ) -> Reply {
        let Ok(_bytes_permit) = self.body_bytes.try_acquire_many(body.at_most()) else {
            return Reply::Refused(rejection);
        };
        match body.read().await {
            Ok(bytes) => {
                let (now, deadline) = (self.clock.unix_millis(), body.deadline);
                self.keep(connector, &rejection, headers, now, bytes, deadline).await;
                Reply::Refused(rejection)
            }
            Err(Reply::BodyTooLarge) => body.refuse(Reply::BodyTooLarge, headers).await,
            Err(reply) => reply,
        }
    }

    /// A refused request is answered 401 and stays with DT. The copy is for the case that DT never renews its token
    /// or, where that is asked for, that a secret here was wrong.
    async fn keep(
        &self,
        connector: &Connector,
        rejection: &Rejection,
        headers: &HeaderMap,
        now: i64,
        body: Bytes,
        deadline: Instant,
    ) {
        let name = Arc::clone(&connector.name);
        let (reason, error) = if rejection.is_expired() {
            (Reason::Expired, rejection.to_string())
        } else {
            (Reason::Refused, format!("{}: {rejection}", rejection.code()))
        };
        let letter = DeadLetter::of_request(name, reason, error, now, headers, body);
        // Whether it was kept shows in the metrics; the answer is the same.
        let _kept = timeout_at(deadline, connector.intake.bury(letter)).await;
    }

    async fn store(
        &self,
        connector: &Connector,
        verified: &Verified<Bytes>,
        headers: HeaderMap,
        now: i64,
        deadline: Instant,
    ) -> Reply {
        if let Some(other) = verified.other_scheme() {
            self.telemetry.emit(&OtherSchemeFailed { connector: &connector.name, code: other.code() });
        }
        let record = match Record::read(verified, Arc::clone(&connector.name), now) {
            Ok(record) => record.with_headers(headers),
            Err(reason) => {
                return self
                    .quarantine(connector, reason.to_string(), &headers, now, verified, deadline)
                    .await;
            }
        };
        if !connector.projects.is_empty() {
            match &record.project {
                Some(project) if connector.projects.contains(&**project) => {}
                Some(_) => return Reply::ProjectNotAllowed,
                None => {
                    let error =
                        "its targetName names no project, and the connector allows only some".to_owned();
                    return self.quarantine(connector, error, &record.headers, now, verified, deadline).await;
                }
            }
        }
        let event_id = record.event_id.clone();
        if !connector.events.is_empty() && !connector.events.contains(&*record.event_type) {
            return Reply::Ignored { event_id };
        }
        match timeout_at(deadline, connector.intake.accept(connector.place, Arc::new(record))).await {
            Ok(Ok(Accepted::New)) => {
                if let Some(issued_at) = verified.issued_at() {
                    let skew = issued_at.saturating_sub(now.div_euclid(1000));
                    self.telemetry.clock_skew(&connector.name, skew);
                }
                Reply::Accepted { event_id }
            }
            Ok(Ok(Accepted::Duplicate)) => Reply::Duplicate { event_id },
            Ok(Err(unavailable)) => Reply::Unavailable(unavailable),
            Err(_late) => Reply::Unavailable(connector.intake.late()),
        }
    }

    async fn quarantine(
        &self,
        connector: &Connector,
        error: String,
        headers: &HeaderMap,
        now: i64,
        verified: &Verified<Bytes>,
        deadline: Instant,
    ) -> Reply {
        let (name, body) = (Arc::clone(&connector.name), verified.inner().clone());
        let letter = DeadLetter::of_request(name, Reason::Unreadable, error, now, headers, body);
        match timeout_at(deadline, connector.intake.bury(letter)).await {
            Ok(Ok(())) => Reply::Quarantined,
            Ok(Err(_)) | Err(_) => Reply::Unavailable(Unavailable::Storage),
        }
    }
}

/// A client that waits for `100 Continue` has not sent its body, and need not.
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// A request's body, bounded in size and time.
struct CappedBody<B> {
    body: B,
    max: usize,
    deadline: Instant,
}

impl<B: Body<Data = Bytes> + Unpin> CappedBody<B> {
    fn announces_too_much(&self) -> bool {
        let max = u64::try_from(self.max).unwrap_or(u64::MAX);
        self.body.size_hint().lower() > max
    }

    /// How many bytes there may be to hold: what is announced, else all that is allowed.
    fn at_most(&self) -> u32 {
        let announced = self.body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        u32::try_from(announced.unwrap_or(self.max).min(self.max)).unwrap_or(u32::MAX)
    }

    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Reply> {
        loop {
            match timeout_at(self.deadline, self.body.frame()).await {
                Err(_late) => return Err(Reply::BodyTimeout),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(Reply::BodyUnreadable),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
            }
        }
    }

    /// Reads all of it.
    async fn read(&mut self) -> Result<Bytes, Reply> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        if first.len() > self.max {
            return Err(Reply::BodyTooLarge);
        }
        // A body that came in one piece, as DT's do, is not copied.
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        let mut piece = Some(second);
        while let Some(bytes) = piece {
            if all.len().saturating_add(bytes.len()) > self.max {
                return Err(Reply::BodyTooLarge);
            }
            all.extend_from_slice(&bytes);
            piece = self.next().await?;
        }
        Ok(all.freeze())
    }

    /// Reads it to its end, or to the cap, and keeps nothing.
    async fn discard(&mut self) -> Result<(), Reply> {
        let mut read = 0_usize;
        while let Some(bytes) = self.next().await? {
            read = read.saturating_add(bytes.len());
            if read > self.max {
                return Err(Reply::BodyTooLarge);
            }
        }
        Ok(())
    }

    /// Answers without looking at the body. What the client is still sending is read for a moment and thrown away:
    /// closing on it would reset the connection before the client has read the answer.
    async fn refuse(mut self, reply: Reply, headers: &HeaderMap) -> Reply {
        /// How much of a refused body is read to let the answer through.
        const LINGER_BYTES: usize = 1024 * 1024;
        const LINGER: std::time::Duration = std::time::Duration::from_millis(500);
        if !expects_continue(headers) {
            self.max = LINGER_BYTES;
            self.deadline =
                Instant::now().checked_add(LINGER).map_or(self.deadline, |end| end.min(self.deadline));
            // However it ends, the answer is the same.
            let _read = self.discard().await;
        }
        reply
    }
}

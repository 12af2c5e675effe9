//! What happens to a request: route, cap, verify, store. The first reason that applies is the answer. What happens to one
//! that is not authentic is in `rejected`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::{Instant, timeout_at};

use super::body::CappedBody;
use super::connection_limiter::Slot;
use super::endpoint::{Connector, Endpoint};
use super::forwarded::client_of;
use super::intake::{Accepted, Unavailable};
use super::reply::Reply;
use crate::config::Limits;
use crate::keys::Learned;
use crate::record::{DeadLetter, Reason, Record, RequestId};
use crate::telemetry::{Answered, OtherSchemeFailed};
use crate::verify::{Authenticated, Rejection, Verified};

/// How a request arrived.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    /// The slot of its connection, if it has one.
    pub(super) slot: Option<&'a Slot>,
    /// The address that connected, or that a PROXY header named.
    pub(super) peer: Option<SocketAddr>,
    /// When its head was complete.
    pub(super) started: Instant,
}

/// One request while it is being answered.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) limits: &'a Limits,
    pub(super) id: RequestId,
    pub(super) address: Option<IpAddr>,
    slot: Option<&'a Slot>,
    pub(super) deadline: Instant,
    /// When it was received, in Unix milliseconds: the time by which its tokens are judged.
    pub(super) received_at: i64,
}

impl Endpoint {
    /// Answers a request, always, and within the deadline. `peer` is the address that connected, or that a PROXY header
    /// named; behind trusted proxies, the request itself may name another.
    pub async fn answer<B>(&self, peer: Option<SocketAddr>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.answer_in(RequestContext { slot: None, peer, started: Instant::now() }, request).await.0
    }

    /// Answers a request on a connection of the server. Also returns when it was answered.
    pub(super) async fn answer_in<B>(
        &self,
        context: RequestContext<'_>,
        request: Request<B>,
    ) -> (Response<Full<Bytes>>, Instant)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let RequestContext { slot, peer, started } = context;
        let routing = self.routing();
        let peer = client_of(&routing.proxies, peer, request.headers());
        let connector = routing.connector(request.uri().path());
        let exchange = Exchange {
            endpoint: self,
            limits: &routing.limits,
            id: self.ids.next(),
            address: peer.map(|peer| peer.ip()),
            slot,
            deadline: started.checked_add(routing.limits.deadline).unwrap_or(started),
            received_at: self.clock.unix_millis(),
        };
        let reply = exchange.ingest(connector, request).await;
        let ended = Instant::now();
        self.telemetry.emit(&Answered {
            id: exchange.id,
            connector: connector.map(|connector| &*connector.name),
            series: connector.and_then(|connector| connector.series.as_ref()),
            peer,
            status: reply.status(),
            code: reply.code(),
            detail: reply.detail().as_deref(),
            received_at: exchange.received_at,
            took: ended.saturating_duration_since(started),
        });
        (reply.into_response(exchange.id), ended)
    }
}

impl Exchange<'_> {
    async fn ingest<B>(&self, connector: Option<&Connector>, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if self.endpoint.is_stopping() {
            return Reply::ShuttingDown;
        }
        if !self.limits.allows(self.address) {
            return Reply::AddressNotAllowed;
        }
        let (Parts { method, headers, .. }, body) = request.into_parts();
        let body = CappedBody::new(body, self.limits.max_body, self.deadline);
        // What is done with a request that is refused is on the heap: every request's task would be as large otherwise.
        let Some(connector) = connector else {
            return Box::pin(self.turn_down(body, Reply::NotFound, &headers)).await;
        };
        if method != Method::POST {
            return Box::pin(self.turn_down(body, Reply::MethodNotAllowed, &headers)).await;
        }
        if body.announces_too_much() {
            return Box::pin(self.turn_down(body, Reply::BodyTooLarge, &headers)).await;
        }
        let authenticated = match connector.verifier.unchanging() {
            Some(verifier) => Ok(verifier.authenticate(&headers)),
            None => Box::pin(self.authenticate(connector, &headers)).await,
        };
        match authenticated {
            Ok(Ok(authenticated)) => self.read_and_store(connector, authenticated, headers, body).await,
            Ok(Err(rejection)) => Box::pin(self.refuse(connector, rejection, &headers, body)).await,
            Err(unavailable) => {
                Box::pin(self.turn_down(body, Reply::Unavailable(unavailable), &headers)).await
            }
        }
    }

    /// Verifies the signatures. Where one names a key that is not known, the issuer is asked; where that cannot be done, it
    /// is not for us to refuse the request.
    async fn authenticate(
        &self,
        connector: &Connector,
        headers: &HeaderMap,
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
        // It may be DT's, with a new key, or anybody's: while it is busy here, such a request is not waited for.
        let is_busy = self.endpoint.is_busy();
        let Some(Ok(_permit)) = (!is_busy).then(|| self.endpoint.requests.try_acquire()) else {
            return Err(Unavailable::Keys);
        };
        match timeout_at(self.deadline, connector.verifier.learn(&verifier)).await {
            Ok(Learned::New) => Ok(connector.verifier.get().authenticate(headers)),
            Ok(Learned::Nothing) => Ok(authenticated),
            Ok(Learned::Unavailable) | Err(_) => Err(Unavailable::Keys),
        }
    }

    /// What is left to do for a request whose signature holds.
    async fn read_and_store<B: Body<Data = Bytes> + Unpin>(
        &self,
        connector: &Connector,
        authenticated: Authenticated,
        headers: HeaderMap,
        mut body: CappedBody<B>,
    ) -> Reply {
        let (endpoint, now) = (self.endpoint, self.received_at.div_euclid(1000));
        // Anybody may have got hold of an old token: a request with one has the rights of an unauthenticated peer. It may
        // still be DT's, so it is told to come again when there is no room.
        let is_timely = authenticated.is_timely(now);
        if let Some(slot) = self.slot.filter(|_| is_timely) {
            slot.authenticated();
        }
        let (requests, pool) = if is_timely {
            (&endpoint.requests, &endpoint.body_bytes)
        } else {
            (&endpoint.unauthenticated, &endpoint.unauthenticated_bytes)
        };
        let bytes = body.at_most();
        let permits =
            (requests.try_acquire(), pool.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)));
        let (Ok(_request_permit), Ok(_bytes_permit)) = permits else {
            return Reply::Unavailable(Unavailable::Overloaded);
        };
        let unauthenticated = if is_timely { None } else { self.address };
        let Some(_held) = endpoint.rejections.hold(unauthenticated, bytes, self.received_at) else {
            return Reply::Unavailable(Unavailable::Overloaded);
        };
        let bytes = match body.read().await {
            Ok(bytes) => bytes,
            Err(Reply::BodyTooLarge) => {
                return Box::pin(body.linger(Reply::BodyTooLarge, &headers)).await;
            }
            Err(reply) => return reply,
        };
        drop(body);
        match authenticated.verify_body(bytes.clone(), now) {
            Ok(verified) => {
                endpoint.clock_doubt.accepted(&endpoint.telemetry);
                self.store(connector, verified, headers).await
            }
            Err(rejection) => {
                endpoint.clock_doubt.refused(&rejection, &endpoint.telemetry);
                if rejection.is_expired() || connector.quarantine_refused {
                    Box::pin(self.keep(connector, &rejection, &headers, bytes)).await;
                }
                Reply::Refused { rejection, unread: false }
            }
        }
    }

    async fn store(&self, connector: &Connector, verified: Verified<Bytes>, headers: HeaderMap) -> Reply {
        let telemetry = &self.endpoint.telemetry;
        let quarantine =
            |error: String| Box::pin(self.quarantine(connector, error, &headers, verified.inner().clone()));
        if let Some(other) = verified.other_scheme() {
            telemetry.emit(&OtherSchemeFailed { connector: &connector.name, code: other.code() });
        }
        let record = match Record::read(&verified, Arc::clone(&connector.name), self.received_at) {
            Ok(record) => record.with_headers(&headers).with_request_id(Some(self.id)),
            Err(reason) => return quarantine(reason.to_string()).await,
        };
        if !connector.projects.is_empty() {
            match &record.project {
                Some(project) if connector.projects.contains(&**project) => {}
                Some(_) => return Reply::ProjectNotAllowed,
                None => {
                    let error = "its targetName names no project, and the connector allows only some";
                    return quarantine(error.to_owned()).await;
                }
            }
        }
        let event_id = record.event_id.clone();
        if !connector.events.is_empty() && !connector.events.contains(&*record.event_type) {
            return Reply::Ignored { event_id };
        }
        let issued_at = verified.issued_at();
        // The record has what is needed of them; while it waits, the connection's buffer is free for what comes next.
        drop((verified, headers));
        match timeout_at(self.deadline, connector.intake.accept(connector.place, record)).await {
            Ok(Ok(Accepted::New)) => {
                if let Some(issued_at) = issued_at {
                    let skew = issued_at.saturating_sub(self.received_at.div_euclid(1000));
                    telemetry.clock_skew(&connector.name, connector.series.as_ref(), skew);
                }
                Reply::Accepted { event_id }
            }
            Ok(Ok(Accepted::Duplicate)) => Reply::Duplicate { event_id },
            Ok(Err(unavailable)) => Reply::Unavailable(unavailable),
            Err(_late) => Reply::Unavailable(connector.intake.late()),
        }
    }

    /// Moves an authentic request that is no delivery to the dead letters.
    async fn quarantine(
        &self,
        connector: &Connector,
        error: String,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Reply {
        let name = Arc::clone(&connector.name);
        let letter = DeadLetter::of_request(name, Reason::Unreadable, error, self.received_at, headers, body);
        let letter = letter.with_request_id(Some(self.id));
        match timeout_at(self.deadline, connector.intake.dead_letter(letter)).await {
            Ok(Ok(())) => Reply::Quarantined,
            Ok(Err(_)) | Err(_) => Reply::Unavailable(Unavailable::Storage),
        }
    }
}

//! What happens to a request: route, cap, verify, hand on. The first reason that applies is the answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout_at};

use super::activity::Activity;
use super::crowd::Place;
use super::endpoint::{Connector, Endpoint};
use super::forwarded::client_of;
use super::intake::{Accepted, Unavailable};
use super::reply::Reply;
use super::until::until;
use crate::config::Limits;
use crate::keys::Learned;
use crate::record::{DeadLetter, Reason, Record, RequestId};
use crate::telemetry::{Answered, OtherSchemeFailed};
use crate::verify::{Authenticated, Rejection, Verified};

/// How long a body may take that is not waited for: one that is here already comes in this time.
const BRIEFLY: Duration = Duration::from_millis(10);

/// The way that a request comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    /// The place of its connection, if it has one.
    pub(super) place: Option<&'a Place>,
    /// Who connected, or whom a PROXY header named.
    pub(super) peer: Option<SocketAddr>,
    /// The connection's timer, where that one wakes the request; it has timers of its own otherwise.
    pub(super) alarm: Option<&'a Activity>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    id: RequestId,
    address: Option<IpAddr>,
    place: Option<&'a Place>,
}

impl Endpoint {
    /// Answers a request, always, and within the deadline. `peer` is who connected, or whom a PROXY header named; behind
    /// trusted proxies, the request itself may name another.
    pub async fn answer<B>(&self, peer: Option<SocketAddr>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.answer_on(Way { place: None, peer, alarm: None }, request).await
    }

    /// The same on a connection of ours.
    pub(super) async fn answer_on<B>(&self, way: Way<'_>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let started = Instant::now();
        let routing = self.routing();
        let peer = client_of(&routing.proxies, way.peer, request.headers());
        let origin = Origin { id: self.ids.next(), address: peer.map(|peer| peer.ip()), place: way.place };
        let connector = routing.connector(request.uri().path());
        let deadline = started.checked_add(routing.limits.deadline).unwrap_or(started);
        let time = Time { deadline, alarm: way.alarm };
        let reply = self.ingest(&routing.limits, origin, connector, request, time).await;
        let detail = reply.detail();
        self.telemetry.emit(&Answered {
            id: origin.id,
            connector: connector.map(|connector| &*connector.name),
            series: connector.and_then(|connector| connector.series.as_ref()),
            peer,
            status: reply.status(),
            code: reply.code(),
            detail: detail.as_deref(),
            took: started.elapsed(),
        });
        reply.into_response(origin.id)
    }

    async fn ingest<B>(
        &self,
        limits: &Limits,
        origin: Origin<'_>,
        connector: Option<&Connector>,
        request: Request<B>,
        time: Time<'_>,
    ) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if self.is_stopping() {
            return Reply::ShuttingDown;
        }
        if !limits.allows(origin.address) {
            return Reply::AddressNotAllowed;
        }
        let (Parts { method, uri, headers, .. }, body) = request.into_parts();
        // It would hold on to the connection's buffer.
        drop(uri);
        let body = CappedBody { body, max: limits.max_body, time };
        // What is done with requests of strangers is on the heap while it lasts: every request's task would be as large.
        let Some(connector) = connector else {
            return Box::pin(self.turn_down(origin, body, Reply::NotFound, &headers)).await;
        };
        if method != Method::POST {
            return Box::pin(self.turn_down(origin, body, Reply::MethodNotAllowed, &headers)).await;
        }
        if body.announces_too_much() {
            return Box::pin(self.turn_down(origin, body, Reply::BodyTooLarge, &headers)).await;
        }
        let authenticated = match connector.verifier.unchanging() {
            Some(verifier) => Ok(verifier.authenticate(&headers)),
            None => Box::pin(self.authenticate(connector, &headers, time)).await,
        };
        let authenticated = match authenticated {
            Ok(Ok(authenticated)) => authenticated,
            Ok(Err(rejection)) => {
                return Box::pin(self.refuse(origin, connector, rejection, &headers, body)).await;
            }
            Err(unavailable) => {
                let reply = Reply::Unavailable(unavailable);
                return Box::pin(self.turn_down(origin, body, reply, &headers)).await;
            }
        };
        let now = self.clock.unix_millis();
        // Old tokens may be in anybody's hands: whoever comes with one has the rights of a stranger. The request may still be
        // DT's, so what there is no room for comes again.
        let is_timely = authenticated.is_timely(now.div_euclid(1000));
        let places = if is_timely { &self.requests } else { &self.strangers };
        let Some(_request_permit) = places.take(1) else {
            return Reply::Unavailable(Unavailable::Overloaded);
        };
        let bytes = if is_timely { 0 } else { body.at_most() };
        let Some(_held) = self.refusals.hold(origin.address.filter(|_| !is_timely), bytes, now) else {
            return Reply::Unavailable(Unavailable::Overloaded);
        };
        if let Some(place) = origin.place.filter(|_| is_timely) {
            place.is_authentic();
        }
        self.read_and_store(origin, connector, authenticated, headers, body).await
    }

    /// What is left to do for a request whose signature holds.
    async fn read_and_store<B: Body<Data = Bytes> + Unpin>(
        &self,
        origin: Origin<'_>,
        connector: &Connector,
        authenticated: Authenticated,
        headers: HeaderMap,
        mut body: CappedBody<'_, B>,
    ) -> Reply {
        let time = body.time;
        let Some(_bytes_permit) = self.body_bytes.take(body.at_most()) else {
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
        let now = self.clock.unix_millis();
        match authenticated.verify_body(bytes.clone(), now.div_euclid(1000)) {
            Ok(verified) => {
                self.clock_doubt.accepted(&self.telemetry);
                self.store(origin, connector, verified, headers, now, time).await
            }
            Err(rejection) => {
                self.clock_doubt.refused(&rejection, &self.telemetry);
                if rejection.is_expired() || connector.quarantine_refused {
                    Box::pin(self.keep(origin, connector, &rejection, &headers, now, bytes, time)).await;
                }
                Reply::Refused { rejection, unread: false }
            }
        }
    }

    /// Refuses a request that no body can make authentic. Within the budget, and while it is not busy here, a body that is
    /// too large or too slow comes first; otherwise only what has come already is read, so that the connection can go on.
    async fn refuse<B: Body<Data = Bytes> + Unpin>(
        &self,
        origin: Origin<'_>,
        connector: &Connector,
        rejection: Rejection,
        headers: &HeaderMap,
        mut body: CappedBody<'_, B>,
    ) -> Reply {
        if expects_continue(headers) {
            return Reply::Refused { rejection, unread: true };
        }
        let is_within = self.refusals.take(origin.address, self.clock.unix_millis());
        let permit = if is_within && !self.is_busy() { self.strangers.take(1) } else { None };
        if permit.is_none() {
            body.time.deadline = soon(BRIEFLY, body.time.deadline);
            let unread = body.discard().await.is_err();
            return Reply::Refused { rejection, unread };
        }
        if connector.quarantine_refused {
            return self.read_refused(origin, connector, rejection, headers, body).await;
        }
        match body.discard().await {
            Ok(()) => Reply::Refused { rejection, unread: false },
            Err(reply) => reply,
        }
    }

    /// Answers without looking at the body; see [`CappedBody::linger`]. Those who are many are not waited for.
    async fn turn_down<B: Body<Data = Bytes> + Unpin>(
        &self,
        origin: Origin<'_>,
        body: CappedBody<'_, B>,
        reply: Reply,
        headers: &HeaderMap,
    ) -> Reply {
        let is_within = self.refusals.take(origin.address, self.clock.unix_millis());
        match self.strangers.take(1) {
            Some(_permit) if is_within => body.linger(reply, headers).await,
            _ => reply,
        }
    }

    /// Looks at the signatures. Where one names a key that is not known, the issuer is asked; where that cannot be done, it
    /// is not for us to refuse the request.
    async fn authenticate(
        &self,
        connector: &Connector,
        headers: &HeaderMap,
        time: Time<'_>,
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
        // It may be DT's, with a new key, or anybody's: such ones get no place of those whose signatures hold.
        let Some(_request_permit) = (if self.is_busy() { None } else { self.requests.take(1) }) else {
            return Err(Unavailable::Keys);
        };
        match timeout_at(time.deadline, connector.verifier.learn(&verifier)).await {
            Ok(Learned::New) => Ok(connector.verifier.get().authenticate(headers)),
            Ok(Learned::Nothing) => Ok(authenticated),
            Ok(Learned::Unavailable) | Err(_) => Err(Unavailable::Keys),
        }
    }

    /// Reads the body of a request that no body can make authentic, and keeps both.
    async fn read_refused<B: Body<Data = Bytes> + Unpin>(
        &self,
        origin: Origin<'_>,
        connector: &Connector,
        rejection: Rejection,
        headers: &HeaderMap,
        mut body: CappedBody<'_, B>,
    ) -> Reply {
        let (now, time) = (self.clock.unix_millis(), body.time);
        let bytes = body.at_most();
        let Some(_held) = self.refusals.hold(origin.address, bytes, now) else {
            return Reply::Refused { rejection, unread: true };
        };
        let Some(_bytes_permit) = self.body_bytes.take(bytes) else {
            return Reply::Refused { rejection, unread: true };
        };
        match body.read().await {
            Ok(bytes) => {
                self.keep(origin, connector, &rejection, headers, now, bytes, time).await;
                Reply::Refused { rejection, unread: false }
            }
            Err(Reply::BodyTooLarge) => body.linger(Reply::BodyTooLarge, headers).await,
            Err(reply) => reply,
        }
    }

    /// A refused request is answered 401 and stays with DT. The copy is for the case that DT never renews its token
    /// or, where that is asked for, that a secret here was wrong.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the request")]
    async fn keep(
        &self,
        origin: Origin<'_>,
        connector: &Connector,
        rejection: &Rejection,
        headers: &HeaderMap,
        now: i64,
        body: Bytes,
        time: Time<'_>,
    ) {
        let name = Arc::clone(&connector.name);
        let (reason, error) = if rejection.is_expired() {
            (Reason::Expired, rejection.to_string())
        } else {
            (Reason::Refused, format!("{}: {rejection}", rejection.code()))
        };
        let letter = DeadLetter::of_request(name, reason, error, now, headers, body);
        let letter = letter.with_request_id(Some(origin.id));
        // Whether it was kept shows in the metrics; the answer is the same.
        let _kept = timeout_at(time.deadline, connector.intake.bury(letter)).await;
    }

    async fn store(
        &self,
        origin: Origin<'_>,
        connector: &Connector,
        verified: Verified<Bytes>,
        headers: HeaderMap,
        now: i64,
        time: Time<'_>,
    ) -> Reply {
        let set_aside = |error: String| {
            Box::pin(self.quarantine(origin, connector, error, &headers, now, &verified, time))
        };
        if let Some(other) = verified.other_scheme() {
            self.telemetry.emit(&OtherSchemeFailed { connector: &connector.name, code: other.code() });
        }
        let record = match Record::read(&verified, Arc::clone(&connector.name), now) {
            Ok(record) => record.with_headers(&headers).with_request_id(Some(origin.id)),
            Err(reason) => return set_aside(reason.to_string()).await,
        };
        if !connector.projects.is_empty() {
            match &record.project {
                Some(project) if connector.projects.contains(&**project) => {}
                Some(_) => return Reply::ProjectNotAllowed,
                None => {
                    let error =
                        "its targetName names no project, and the connector allows only some".to_owned();
                    return set_aside(error).await;
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
        let accepted = connector.intake.accept(connector.place, Arc::new(record));
        match until(time.alarm, time.deadline, accepted).await {
            Ok(Ok(Accepted::New)) => {
                if let Some(issued_at) = issued_at {
                    let skew = issued_at.saturating_sub(now.div_euclid(1000));
                    self.telemetry.clock_skew(&connector.name, connector.series.as_ref(), skew);
                }
                Reply::Accepted { event_id }
            }
            Ok(Ok(Accepted::Duplicate)) => Reply::Duplicate { event_id },
            Ok(Err(unavailable)) => Reply::Unavailable(unavailable),
            Err(_late) => Reply::Unavailable(connector.intake.late()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of the request")]
    async fn quarantine(
        &self,
        origin: Origin<'_>,
        connector: &Connector,
        error: String,
        headers: &HeaderMap,
        now: i64,
        verified: &Verified<Bytes>,
        time: Time<'_>,
    ) -> Reply {
        let (name, body) = (Arc::clone(&connector.name), verified.inner().clone());
        let letter = DeadLetter::of_request(name, Reason::Unreadable, error, now, headers, body);
        let letter = letter.with_request_id(Some(origin.id));
        match timeout_at(time.deadline, connector.intake.bury(letter)).await {
            Ok(Ok(())) => Reply::Quarantined,
            Ok(Err(_)) | Err(_) => Reply::Unavailable(Unavailable::Storage),
        }
    }
}

/// The end of a short time from now, and at the latest the deadline.
fn soon(time: Duration, deadline: Instant) -> Instant {
    Instant::now().checked_add(time).map_or(deadline, |end| end.min(deadline))
}

/// A client that waits for `100 Continue` has not sent its body, and need not.
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// Until when something may take, and what wakes it then; see [`until`].
#[derive(Debug, Clone, Copy)]
struct Time<'a> {
    deadline: Instant,
    alarm: Option<&'a Activity>,
}

/// A request's body, bounded in size and time.
struct CappedBody<'a, B> {
    body: B,
    max: usize,
    time: Time<'a>,
}

impl<B: Body<Data = Bytes> + Unpin> CappedBody<'_, B> {
    fn announces_too_much(&self) -> bool {
        let max = u64::try_from(self.max).unwrap_or(u64::MAX);
        self.body.size_hint().lower() > max
    }

    /// How many bytes there may be to hold: what is announced, else all that is allowed.
    fn at_most(&self) -> usize {
        let announced = self.body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        announced.unwrap_or(self.max).min(self.max)
    }

    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Reply> {
        loop {
            match until(self.time.alarm, self.time.deadline, self.body.frame()).await {
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
        let Some(second) = self.next().await? else {
            // Of a body that came in one piece, as DT's do, hyper's buffer is the larger part, and goes to the next request
            // once nobody holds on to it: a copy costs less than another buffer, and does not keep 8 KiB for 600 bytes.
            return Ok(if first.is_unique() { first } else { Bytes::copy_from_slice(&first) });
        };
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

    /// Reads it to its end, or to the cap, and keeps nothing. Only for what is refused anyway.
    async fn discard(&mut self) -> Result<(), Reply> {
        /// A piece costs more than its bytes, and a body in chunks of one byte has no honest sender.
        const PIECE: usize = 512;
        let mut read = 0_usize;
        while let Some(bytes) = self.next().await? {
            read = read.saturating_add(bytes.len().max(PIECE));
            // One piece of any length, as long as that is allowed.
            if read > self.max.max(PIECE) {
                return Err(Reply::BodyTooLarge);
            }
        }
        Ok(())
    }

    /// Answers without looking at the body. What the client is still sending is read for a moment and thrown away:
    /// closing on it would reset the connection before the client has read the answer.
    async fn linger(mut self, reply: Reply, headers: &HeaderMap) -> Reply {
        /// How much of a refused body is read to let the answer through.
        const LINGER_BYTES: usize = 1024 * 1024;
        const LINGER: Duration = Duration::from_millis(500);
        if !expects_continue(headers) {
            self.max = LINGER_BYTES;
            self.time.deadline = soon(LINGER, self.time.deadline);
            // However it ends, the answer is the same.
            let _read = self.discard().await;
        }
        reply
    }
}

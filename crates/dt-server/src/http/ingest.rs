//! Answers a request: routes it, limits its size, verifies it and stores its event. The first check that fails decides the
//! answer. Requests that are not authentic are handled in `rejected`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::body::CappedBody;
use super::connection_limiter::ConnectionSlot;
use super::endpoint::{Connector, Endpoint};
use super::forwarded::client_of;
use super::intake::{Accepted, Unavailable};
use super::rejection_budget::Held;
use super::reply::Reply;
use crate::config::Limits;
use crate::keys::RefreshOutcome;
use crate::telemetry::{OtherSchemeFailed, RequestAnswered};
use dt_sink::record::{DeadLetter, Reason, Record, RequestId};
use dt_verify::{Authenticated, Rejection, Verified};

/// The largest number of allowed projects that a log line names.
const MAX_NAMED: usize = 10;

/// The connection of a request, and the time of the request.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    /// The slot of the connection; `None` if the connection was not accepted by the server.
    pub slot: Option<&'a ConnectionSlot>,
    /// The address of the peer, or the one in a PROXY header; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// When the request's head was complete.
    pub started: Instant,
}

/// One request while it is being answered.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub endpoint: &'a Endpoint,
    pub limits: &'a Limits,
    pub id: RequestId,
    /// The address to which limits apply: the address of the client, or that of a proxy that names no client.
    pub address: Option<IpAddr>,
    /// The address of the client itself; `None` if it is not known.
    known_client: Option<IpAddr>,
    slot: Option<&'a ConnectionSlot>,
    pub deadline: Instant,
    /// When the request was received, in Unix milliseconds. Its tokens are verified at this time.
    pub received_at: i64,
}

impl Endpoint {
    /// Answers a request within the deadline. `peer` is the address of the peer, or the one in a PROXY header. If it is a trusted
    /// proxy, the request's headers name the client.
    pub async fn answer<B>(&self, peer: Option<SocketAddr>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut head, mut body) = request.into_parts();
        let context = RequestContext { slot: None, peer, started: Instant::now() };
        self.answer_in(context, &mut head, &mut body).await.0
    }

    /// Answers a request on a connection of the server, and returns the answer with its time. The request is passed by reference,
    /// since each future that owned it would be larger by its size.
    pub(super) async fn answer_in<B>(
        &self,
        context: RequestContext<'_>,
        head: &mut Parts,
        body: &mut B,
    ) -> (Response<Full<Bytes>>, Instant)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let RequestContext { slot, peer, started } = context;
        let routing = self.routing();
        let client = client_of(&routing.proxies, peer, &head.headers);
        let peer = client.address;
        let connector = routing.connector(head.uri.path());
        let exchange = Exchange {
            endpoint: self,
            limits: &routing.limits,
            id: self.ids.next(),
            address: peer.map(|peer| peer.ip()),
            known_client: client.known(),
            slot,
            deadline: started.checked_add(routing.limits.deadline).unwrap_or(started),
            received_at: self.clock.unix_millis(),
        };
        let reply = exchange.ingest(connector, head, body).await;
        let ended = Instant::now();
        self.telemetry.emit(&RequestAnswered {
            id: exchange.id,
            connector: connector.map(|connector| &*connector.name),
            series: connector.and_then(|connector| connector.series.as_ref()),
            peer,
            status: reply.status(),
            reason: reply.reason(),
            detail: &|| exchange.detail(&reply, connector),
            received_at: exchange.received_at,
            took: ended.saturating_duration_since(started),
        });
        (reply.into_response(exchange.id), ended)
    }
}

/// The permits that a request holds until it is answered.
struct Admission<'e> {
    _request: SemaphorePermit<'e>,
    _body: SemaphorePermit<'e>,
    _held: Held<'e>,
}

/// The next step for a verified request.
enum Verdict {
    Store(Record),
    Quarantine { error: String, body: Bytes },
    Reply(Reply),
}

impl<'a> Exchange<'a> {
    /// Answers a request. The futures for rejected requests are boxed: otherwise the future of every request would be as large as
    /// theirs.
    async fn ingest<B>(&self, connector: Option<&Connector>, head: &mut Parts, body: &mut B) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut body = CappedBody::new(body, self.limits.max_body, self.deadline);
        if self.endpoint.is_stopping() {
            return Reply::ShuttingDown;
        }
        if !self.limits.allows(self.known_client) {
            return Reply::AddressNotAllowed;
        }
        let Some(connector) = connector else {
            return Box::pin(self.reject_unread(body, Reply::NotFound, &head.headers)).await;
        };
        if head.method != Method::POST {
            return Box::pin(self.reject_unread(body, Reply::MethodNotAllowed, &head.headers)).await;
        }
        if body.announces_too_much() {
            return Box::pin(self.reject_unread(body, Reply::BodyTooLarge, &head.headers)).await;
        }
        let authenticated = match connector.verifier.unchanging() {
            Some(verifier) => Ok(verifier.authenticate(&head.headers)),
            None => Box::pin(self.authenticate(connector, &head.headers)).await,
        };
        let authenticated = match authenticated {
            Ok(Ok(authenticated)) => authenticated,
            Ok(Err(rejection)) => {
                return Box::pin(self.reject(connector, rejection, &head.headers, body)).await;
            }
            Err(unavailable) => {
                return Box::pin(self.reject_unread(body, Reply::Unavailable(unavailable), &head.headers))
                    .await;
            }
        };
        let _admission = match self.admit(&authenticated, body.at_most()) {
            Ok(admission) => admission,
            Err(unavailable) => return Reply::Unavailable(unavailable),
        };
        let bytes = match body.read().await {
            Ok(bytes) => bytes,
            Err(Reply::BodyTooLarge) => {
                return Box::pin(body.linger(Reply::BodyTooLarge, &head.headers)).await;
            }
            Err(reply) => return reply,
        };
        let (verified, issued_at) = match authenticated.verify_body(bytes.clone(), self.now()) {
            Ok(verified) => {
                // Not before the body is verified: the token may be a copy of an old one with another body.
                if let Some(address) = self.slot.and_then(ConnectionSlot::authenticated) {
                    self.endpoint.rejections.give_back(address);
                }
                self.endpoint.clock_doubt.accepted(&self.endpoint.telemetry);
                let issued_at = verified.issued_at();
                (self.read(connector, &verified, &head.headers), issued_at)
            }
            Err(rejection) => {
                self.endpoint.clock_doubt.refused(&rejection, &self.endpoint.telemetry);
                if rejection.is_expired() || connector.quarantine_refused {
                    Box::pin(self.dead_letter_rejected(connector, &rejection, &head.headers, bytes)).await;
                }
                return Reply::Refused { rejection, unread: false };
            }
        };
        match verified {
            Verdict::Store(record) => {
                // The record has copies of the fields. Dropping the originals frees the connection's buffer while it waits.
                (head.headers, head.uri) = (HeaderMap::new(), Uri::default());
                drop(bytes);
                self.store(connector, record, issued_at).await
            }
            Verdict::Quarantine { error, body } => {
                Box::pin(self.quarantine(connector, error, &head.headers, body)).await
            }
            Verdict::Reply(reply) => reply,
        }
    }

    /// Returns the time at which tokens are verified, in Unix seconds.
    const fn now(&self) -> i64 {
        self.received_at.div_euclid(1000)
    }

    /// Verifies the signatures. If the request needs a key that is not in the set, fetches the key set first.
    ///
    /// # Errors
    ///
    /// Returns [`Unavailable`] if the key set cannot be fetched now. The request may be authentic.
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
            // The other signature is valid. The key is fetched for the next request.
            let live = Arc::clone(&connector.verifier);
            drop(tokio::spawn(async move { live.refresh(&verifier).await }));
            return Ok(authenticated);
        }
        // The request may be forged, so it must not wait while the server is busy.
        let is_busy = self.endpoint.is_busy();
        let Some(Ok(_permit)) = (!is_busy).then(|| self.endpoint.requests.try_acquire()) else {
            return Err(Unavailable::Unverified);
        };
        match timeout_at(self.deadline, connector.verifier.refresh(&verifier)).await {
            Ok(RefreshOutcome::New) => Ok(connector.verifier.get().authenticate(headers)),
            Ok(RefreshOutcome::Unchanged) => Ok(authenticated),
            Ok(RefreshOutcome::TooSoon) => Err(Unavailable::Unverified),
            Ok(RefreshOutcome::Unavailable) | Err(_) => Err(Unavailable::Keys),
        }
    }

    /// Reserves the permits for a request with a valid signature and a body of up to `bytes` bytes.
    ///
    /// # Errors
    ///
    /// Returns [`Unavailable`] if the limits are reached.
    fn admit(&self, authenticated: &Authenticated, bytes: usize) -> Result<Admission<'a>, Unavailable> {
        let endpoint = self.endpoint;
        // A sender may have a copy of an expired token, so a request with one uses the permits of unauthenticated requests.
        // It may be DT's all the same, so it is answered 503 if there is no permit.
        let is_timely = authenticated.is_timely(self.now());
        let (requests, pool, no_room) = if is_timely {
            (&endpoint.requests, &endpoint.body_bytes, Unavailable::Overloaded)
        } else {
            (&endpoint.unauthenticated, &endpoint.unauthenticated_bytes, Unavailable::Unverified)
        };
        let request = requests.try_acquire().map_err(|_| no_room)?;
        let body = pool.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).map_err(|_| no_room)?;
        let unauthenticated = if is_timely { None } else { self.address };
        let held = endpoint.rejections.hold(unauthenticated, bytes, self.received_at).ok_or(no_room)?;
        Ok(Admission { _request: request, _body: body, _held: held })
    }

    /// Reads the event of a verified body, and returns the next step.
    fn read(&self, connector: &Connector, verified: &Verified<Bytes>, headers: &HeaderMap) -> Verdict {
        if let Some(other) = verified.other_scheme() {
            let (connector, reason) = (&*connector.name, other.code());
            self.endpoint.telemetry.emit(&OtherSchemeFailed { connector, reason });
        }
        let quarantine = |error: String| Verdict::Quarantine { error, body: verified.inner().clone() };
        let record = match Record::read(verified, Arc::clone(&connector.name), self.received_at) {
            Ok(record) => record.with_headers(headers).with_request_id(Some(self.id)),
            Err(reason) => return quarantine(format!("{}: {reason}", reason.code())),
        };
        if !connector.projects.is_empty() {
            match &record.project {
                Some(project) if connector.projects.contains(&**project) => {}
                Some(found) => {
                    return Verdict::Reply(Reply::ProjectNotAllowed { found: found.clone() });
                }
                None => {
                    let error = "project_missing: its targetName names no project, and the connector allows only some";
                    return quarantine(error.to_owned());
                }
            }
        }
        if !connector.events.is_empty() && !connector.events.contains(&*record.event_type) {
            return Verdict::Reply(Reply::Ignored { event_id: record.event_id });
        }
        Verdict::Store(record)
    }

    /// Returns details of an answer for the log, such as the expected and the found value; `None` if the reason code is
    /// enough.
    fn detail(&self, reply: &Reply, connector: Option<&Connector>) -> Option<String> {
        let Limits { max_in_flight, max_in_flight_bytes, max_body, .. } = self.limits;
        match reply {
            Reply::Refused { rejection, .. } => Some(rejection.to_string()),
            Reply::ProjectNotAllowed { found } => {
                let allowed = &connector?.projects;
                let (some, more) = (allowed.iter().take(MAX_NAMED), allowed.len().saturating_sub(MAX_NAMED));
                let some = some.map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                Some(format!("the event's project is {found}; `projects` allows {some}{more}"))
            }
            Reply::AddressNotAllowed => Some(match self.known_client {
                Some(address) => format!("{address} is in none of `limits.allow_cidrs`"),
                None => {
                    "the client's address is not known, and `limits.allow_cidrs` allows only some".to_owned()
                }
            }),
            Reply::BodyTooLarge => Some(format!("`limits.max_body` is {max_body} bytes")),
            Reply::Unavailable(Unavailable::Overloaded) => Some(format!(
                "all of `limits.max_in_flight` ({max_in_flight} requests) or `limits.max_in_flight_bytes` \
                 ({max_in_flight_bytes}) is in use"
            )),
            Reply::Unavailable(Unavailable::Keys) => connector?.verifier.keys()?.problem(),
            Reply::Unavailable(Unavailable::Sink | Unavailable::Storage) => {
                let problems = connector?.intake.readiness().problems;
                Some(if problems.is_empty() {
                    format!("it took longer than `limits.deadline` ({:?})", self.limits.deadline)
                } else {
                    problems.join("; ")
                })
            }
            _ => None,
        }
    }

    /// Stores the record, and waits for the result until the deadline.
    async fn store(&self, connector: &Connector, record: Record, issued_at: Option<i64>) -> Reply {
        let event_id = record.event_id.clone();
        match timeout_at(self.deadline, connector.intake.accept(connector.index, record)).await {
            Ok(Ok(Accepted::New)) => {
                if let Some(issued_at) = issued_at {
                    let skew = issued_at.saturating_sub(self.now());
                    self.endpoint.telemetry.clock_skew(&connector.name, connector.series.as_ref(), skew);
                }
                Reply::Accepted { event_id }
            }
            Ok(Ok(Accepted::Duplicate)) => Reply::Duplicate { event_id },
            Ok(Err(unavailable)) => Reply::Unavailable(unavailable),
            Err(_late) => Reply::Unavailable(connector.intake.late()),
        }
    }

    /// Moves an authentic request whose body is not a delivery to the dead letters.
    async fn quarantine(
        &self,
        connector: &Connector,
        error: String,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Reply {
        let name = Arc::clone(&connector.name);
        let dead_letter = DeadLetter::of_request(name, Reason::Unreadable, error, self.received_at, body);
        let dead_letter = dead_letter.with_headers(headers).with_request_id(Some(self.id));
        match timeout_at(self.deadline, connector.intake.dead_letter(dead_letter)).await {
            Ok(Ok(())) => Reply::Quarantined,
            Ok(Err(_)) | Err(_) => Reply::Unavailable(Unavailable::Storage),
        }
    }
}

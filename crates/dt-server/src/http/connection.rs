//! Serves one connection, with HTTP/1.1 or HTTP/2, until it ends, stays too long in one phase, or the server stops.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;

use super::activity::{Activity, RequestGuard, Watched};
use super::connection_limiter::ConnectionSlot;
use super::endpoint::Endpoint;
use super::ingest::RequestContext;
use super::intake::Unavailable;
use super::reply::Reply;
use crate::config::Limits;

/// The largest number of concurrent requests on an HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// The largest number of HTTP/2 streams that a client may reset before they were accepted (rapid reset, CVE-2023-44487).
const MAX_RESET_BY_PEER: usize = 20;
/// The largest number of HTTP/2 streams that are reset for the client's errors (such as CVE-2024-2758) before the connection
/// ends.
const MAX_RESET_BY_US: usize = 128;
/// The largest HTTP/2 frame in bytes: the smallest limit that RFC 9113 allows.
const MAX_FRAME: u32 = 16 * 1024;
/// The largest number of bytes of an answer that are buffered for each HTTP/2 stream. Answers are far smaller.
const MAX_SEND: usize = 16 * 1024;

/// Serves the Endpoint URL on one connection that the caller has accepted, such as a TLS stream, a Unix socket or a stream
/// in memory.
///
/// Returns when the client has closed the connection or has exceeded the time limit of a phase, or when its last request is
/// answered after `stop` became `true`. The caller limits the number of connections; all other limits are those of the endpoint.
pub async fn serve_connection<S>(
    stream: S,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_in_slot(None, stream, peer, endpoint, stop).await;
}

/// Serves the Endpoint URL on one connection, which occupies `slot` until it ends.
pub async fn serve_in_slot<S>(
    slot: Option<ConnectionSlot>,
    stream: S,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A copy, so that a long connection does not keep a routing in memory that was replaced.
    let limits = endpoint.routing().limits.clone();
    // Each request holds a reference to both, for HTTP/2 in a task of its own.
    let shared = Arc::new((endpoint, slot));
    let answer = move |request: Request<Incoming>, guard: RequestGuard| {
        let shared = Arc::clone(&shared);
        let (mut head, mut body) = request.into_parts();
        async move {
            let (endpoint, slot) = &*shared;
            let context = RequestContext { slot: slot.as_ref(), peer, started: guard.started() };
            let (response, ended) = endpoint.answer_in(context, &mut head, &mut body).await;
            guard.end(ended);
            Ok(response)
        }
    };
    serve_with(stream, &limits, stop, answer).await;
}

/// Answers 503 to every request of a connection for which there is no slot.
pub async fn serve_overloaded<S>(
    stream: S,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Such a connection must end soon: it may be idle only as long as it may send a head.
    let limits = endpoint.routing().limits.clone();
    let limits = Limits { keep_alive_idle: limits.header_timeout, ..limits };
    let answer = move |_request: Request<Incoming>, _guard: RequestGuard| {
        let id = endpoint.ids.next();
        let reply = Reply::Unavailable(Unavailable::Overloaded);
        endpoint.telemetry.emit(&crate::telemetry::RequestAnswered {
            id,
            connector: None,
            series: None,
            peer,
            status: reply.status(),
            reason: reply.reason(),
            detail: &|| {
                Some(format!(
                    "all of `limits.max_connections` ({}) are in use",
                    endpoint.limits.max_connections
                ))
            },
            received_at: endpoint.clock.unix_millis(),
            took: std::time::Duration::ZERO,
        });
        let mut response = reply.into_response(id);
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        std::future::ready(Ok(response))
    };
    serve_with(stream, &limits, stop, answer).await;
}

/// Serves a stream with the answers that `answer` returns, within the limits. A request counts as being answered until its guard
/// is dropped.
pub async fn serve_with<S, A, F>(stream: S, limits: &Limits, mut stop: watch::Receiver<bool>, answer: A)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>, RequestGuard) -> F,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let activity = Arc::new(Activity::new(limits.header_timeout, limits.keep_alive_idle));
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let service = service_fn(|request: Request<Incoming>| {
        let guard = activity.request(request.version());
        answer(request, guard)
    });
    // The window is also the most unread bytes that a client can make the server hold.
    let window = limits.window();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(limits.max_head.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_BY_PEER)
        .max_local_error_reset_streams(MAX_RESET_BY_US)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(MAX_SEND)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut timer = pin!(sleep(limits.keep_alive_idle));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // An error of a connection has no consequence here: the results of its requests are counted already.
            _ended = connection.as_mut() => return,
            () = activity.expired(timer.as_mut()) => return,
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until the server stops. If the server was dropped without a stop, waits for ever.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

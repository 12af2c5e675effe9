//! One connection: HTTP/1.1 or HTTP/2, whichever the client speaks, until it ends, stays too long in one phase, or the
//! server stops.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, RequestGuard, Watched};
use super::crowd::Place;
use super::endpoint::Endpoint;
use super::ingest::Way;
use super::intake::Unavailable;
use super::known_waker::KnownWaker;
use super::reply::Reply;
use crate::config::Limits;

/// How many requests an HTTP/2 connection may have open at once.
const MAX_STREAMS: u32 = 256;
/// How many of them a client may have opened and taken back that were not looked at yet (rapid reset, CVE-2023-44487).
const MAX_RESET_BY_PEER: usize = 20;
/// How many may have been reset for the client's errors (CVE-2024-2758 and the like) until the connection ends.
const MAX_RESET_BY_US: usize = 128;
/// The largest frame: the smallest that may be allowed.
const MAX_FRAME: u32 = 16 * 1024;
/// How much of an answer is buffered for a stream; answers are far smaller.
const MAX_SEND: usize = 16 * 1024;

/// Serves the Endpoint URL on one connection, for those who accept connections in their own way: behind TLS, on a Unix
/// socket, in memory.
///
/// Returns when the client has gone, stayed too long in one phase, or has its last answer after `stop` became true.
/// How many connections there are at once is the caller's affair; all other limits are those of the endpoint.
pub async fn serve_connection<S>(
    stream: S,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_at(None, stream, peer, endpoint, stop).await;
}

/// The same at a place, which may be needed for another.
pub(super) async fn serve_at<S>(
    place: Option<Arc<Place>>,
    stream: S,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = endpoint.routing().limits.clone();
    // In one, of which each request has a share.
    let shared = Arc::new((endpoint, place));
    let answer = move |request: Request<Incoming>, guard: RequestGuard| {
        let shared = Arc::clone(&shared);
        async move {
            let (endpoint, place) = (&shared.0, shared.1.as_deref());
            // Requests of HTTP/1 are a part of the connection's task: they have its timer, and end with it.
            if request.version() != Version::HTTP_2 {
                let way = Way { place, peer, alarm: Some(guard.activity()) };
                return Ok(endpoint.answer_on(way, request).await);
            }
            // Those of HTTP/2 are tasks of their own, and would wait on for a connection that is closed.
            let mut answered = Box::pin(endpoint.answer_on(Way { place, peer, alarm: None }, request));
            let Some(place) = place else { return Ok(answered.await) };
            Ok(place.while_it_stays(answered.as_mut()).await.unwrap_or_else(|| {
                Reply::Unavailable(Unavailable::Overloaded).into_response(endpoint.ids.next())
            }))
        }
    };
    serve_with(stream, &limits, stop, answer).await;
}

/// Answers whatever comes on a connection that is one too many with 503.
pub(super) async fn turn_away<S>(
    stream: S,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Such a connection must not stay: one header time, then it goes.
    let limits = endpoint.routing().limits.clone();
    let limits = Limits { keep_alive_idle: limits.header_timeout, ..limits };
    let answer = move |_request: Request<Incoming>, _guard: RequestGuard| {
        let id = endpoint.ids.next();
        let reply = Reply::Unavailable(Unavailable::Overloaded);
        endpoint.telemetry.emit(&crate::telemetry::Answered {
            id,
            connector: None,
            series: None,
            peer,
            status: reply.status(),
            code: reply.code(),
            detail: None,
            took: std::time::Duration::ZERO,
        });
        let mut response = reply.into_response(id);
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        std::future::ready(Ok(response))
    };
    serve_with(stream, &limits, stop, answer).await;
}

/// Serves any answers on a stream, within the limits. A request is being answered as long as its guard lives.
pub(super) async fn serve_with<S, A, F>(
    stream: S,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
    answer: A,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>, RequestGuard) -> F,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let activity = Arc::new(Activity::new(limits.header_timeout, limits.keep_alive_idle));
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let service = service_fn(|request| answer(request, activity.request()));
    // What a client has sent and nobody has read yet is held, so the window is also the most that it can make us hold.
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
    let mut timer = Timer::new(&activity);
    let stop_changes = stop.clone();
    let mut told_to_stop = pin!(wait_for_stop(&mut stop));
    let mut stop_waker = KnownWaker::default();
    let mut stopping = false;
    loop {
        let step = std::future::poll_fn(|cx| {
            loop {
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Step::Ended);
                }
                match timer.poll_rung(&activity, cx) {
                    Poll::Ready(Rung::ForConnection) => return Poll::Ready(Step::TimedOut),
                    // It is a part of the connection, and looks at the time itself.
                    Poll::Ready(Rung::ForRequest) => {}
                    Poll::Pending => break,
                }
            }
            let may_stop = stop_waker.is_new(cx.waker()) || stop_changes.has_changed().unwrap_or(false);
            if stopping || !may_stop {
                return Poll::Pending;
            }
            told_to_stop.as_mut().poll(cx).map(|()| Step::Stop)
        });
        match step.await {
            // Errors of a connection are the peer's affair, and its requests were answered or not.
            Step::Ended | Step::TimedOut => return,
            Step::Stop => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

enum Step {
    Ended,
    TimedOut,
    Stop,
}

/// Resolves when the server stops; never when the server is gone.
async fn wait_for_stop(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A timer that follows the deadlines of the connection and of its request, but is only set anew when the next of them has
/// come nearer: most requests move it away.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    waker: KnownWaker,
}

/// Whose time is over.
enum Rung {
    ForConnection,
    ForRequest,
}

impl Timer {
    fn new(activity: &Activity) -> Self {
        let deadline = activity.deadline().unwrap_or_else(Instant::now);
        Self { sleep: Box::pin(sleep_until(deadline)), waker: KnownWaker::default() }
    }

    fn poll_rung(&mut self, activity: &Activity, cx: &mut Context<'_>) -> Poll<Rung> {
        // While a request is being answered, its own deadline counts; the connection is polled when it ends.
        let (deadline, rung) = match activity.deadline() {
            Some(deadline) => (deadline, Rung::ForConnection),
            None => match activity.alarm() {
                Some(deadline) => (deadline, Rung::ForRequest),
                None => return Poll::Pending,
            },
        };
        let is_nearer = deadline < self.sleep.deadline();
        if is_nearer {
            self.sleep.as_mut().reset(deadline);
        }
        if !self.waker.is_new(cx.waker()) && !is_nearer && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                // Whoever has not noticed sets it again.
                activity.clear_alarm();
                return Poll::Ready(rung);
            }
            self.sleep.as_mut().reset(deadline);
        }
    }
}

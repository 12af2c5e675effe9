//! The listener: connections within limits, requests read whole, answers written.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::stream::StreamBody;
use super::{Answer, ApiError, Call, answer, is_stream};
use crate::cloud::Cloud;

/// How many connections there may be; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// How large a request's body may be.
const MAX_BODY: usize = 1 << 20;

/// How long the head and the body of a request may take, and how long the first request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many requests may be answered at once; more get 429.
const MAX_REQUESTS: usize = 128;

/// How long to wait after accepting failed, which means that the system has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Tells of what is allowed here and refused by the real DT.
const WARNING: HeaderName = HeaderName::from_static("x-emulator-warning");

type Reply = Response<Either<Full<Bytes>, StreamBody>>;

/// Serves until told to stop.
pub(crate) async fn serve(listener: TcpListener, cloud: Arc<Cloud>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (Ok(place), Ok((stream, _))) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (cloud, requests, stop) = (Arc::clone(&cloud), Arc::clone(&requests), stop.clone());
        connections.spawn(async move {
            connection(stream, cloud, requests, stop).await;
            drop(place);
        });
    }
    drop(listener);
    // Requests under way are short; streams end by themselves.
    let drained = async { while connections.join_next().await.is_some() {} };
    let _late = tokio::time::timeout(Duration::from_secs(1), drained).await;
}

async fn connection(
    stream: TcpStream,
    cloud: Arc<Cloud>,
    requests: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    // A socket that waits to fill its segments works too.
    let _delayed = stream.set_nodelay(true);
    let stopped = stop.clone();
    let begun = Arc::new(Notify::new());
    let first = Arc::clone(&begun);
    let service = service_fn(move |request| {
        first.notify_one();
        let (cloud, requests, stop) = (Arc::clone(&cloud), Arc::clone(&requests), stopped.clone());
        async move { Ok::<_, Infallible>(reply(&cloud, &requests, request, stop).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // No timer of hyper's runs before it knows the version of HTTP: whoever is silent, or stops within the preface of
    // HTTP/2, would keep its place for ever.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = begun.notified() => {}
        () = tokio::time::sleep(PATIENCE) => return,
        _ = stop.wait_for(|stop| *stop) => return,
    }
    tokio::select! {
        // Errors of a connection are the client's affair.
        _ended = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}

async fn reply(
    cloud: &Arc<Cloud>,
    requests: &Semaphore,
    request: Request<Incoming>,
    stop: watch::Receiver<bool>,
) -> Reply {
    let of_stream = is_stream(request.uri().path());
    let answered = match requests.try_acquire() {
        Ok(_permit) => match read(request).await {
            Ok(call) => answer(cloud, &call),
            Err(error) => Err(error),
        },
        Err(_) => Err(ApiError::too_many("too many requests at once")),
    };
    match answered {
        Ok(Answer::Json(value, warning)) => {
            let mut response = json(StatusCode::OK, &value);
            if let Some(warning) = warning {
                response.headers_mut().insert(WARNING, HeaderValue::from_static(warning));
            }
            response
        }
        Ok(Answer::Stream(stream)) => {
            let content_type = HeaderValue::from_static(stream.content_type());
            let mut response = Response::new(Either::Right(stream.start(Arc::clone(cloud), stop)));
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        Err(error) => refusal(&error, of_stream),
    }
}

/// Reads a request whole.
async fn read(request: Request<Incoming>) -> Result<Call, ApiError> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await;
    let body = match body.map_err(|_| ApiError::timeout())? {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(ApiError::too_large()),
        Err(_) => return Err(ApiError::bad_request("the body ended early")),
    };
    Ok(Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        authority: head.uri.authority().map(|authority| authority.as_str().to_owned()),
        headers: head.headers,
        body,
        trusted: false,
    })
}

fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refusal(error: &ApiError, of_stream: bool) -> Reply {
    let body = if of_stream { error.stream_body() } else { error.body() };
    let mut response = json(error.status, &body);
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = error.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 11.6.1.
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic realm=\"emulator\""));
    }
    response
}

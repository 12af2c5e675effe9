//! The HTTP server: limits connections, reads requests completely and writes responses.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
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

/// The largest number of open connections; further clients wait.
const MAX_CONNECTIONS: usize = 1_024;

/// The largest size of a request's body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The time limit of a connection for its first request, and of a request for its head and its body.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest number of requests in progress; further requests are answered 429.
const MAX_REQUESTS: usize = 128;

/// The pause after a failed accept, which means that the system lacks a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The header with a warning about what the emulator accepts and the real DT rejects.
const WARNING: HeaderName = HeaderName::from_static("x-emulator-warning");

type Reply = Response<Either<Full<Bytes>, StreamBody>>;

/// Accepts connections until `stop` is true.
pub async fn serve(listener: TcpListener, cloud: Arc<Cloud>, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        let (Ok(permit), Ok((stream, _))) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (cloud, requests, stop) = (Arc::clone(&cloud), Arc::clone(&requests), stop.clone());
        connections.spawn(async move {
            connection(stream, cloud, requests, stop).await;
            drop(permit);
        });
    }
    drop(listener);
    // Requests in progress are short, and streams end when `stop` is true.
    let drained = async { while connections.join_next().await.is_some() {} };
    let _late = tokio::time::timeout(Duration::from_secs(1), drained).await;
}

async fn connection(
    stream: TcpStream,
    cloud: Arc<Cloud>,
    requests: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    // A socket without this option works too, only slower.
    let _delayed = stream.set_nodelay(true);
    let stopped = stop.clone();
    let first_request = Arc::new(Notify::new());
    let notify = Arc::clone(&first_request);
    let service = service_fn(move |request| {
        notify.notify_one();
        let (cloud, requests, stop) = (Arc::clone(&cloud), Arc::clone(&requests), stopped.clone());
        async move { Ok::<_, Infallible>(reply(&cloud, &requests, request, stop).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // hyper starts no timer before it knows the version of HTTP: a client that sends nothing, or stops within the preface of
    // HTTP/2, would keep its connection for ever.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = first_request.notified() => {}
        () = tokio::time::sleep(TIMEOUT) => return,
        _ = stop.wait_for(|stop| *stop) => return,
    }
    tokio::select! {
        // An error of a connection concerns only its client.
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
    let mut response = match answered {
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
        Err(error) => error_reply(cloud, &error, of_stream),
    };
    // The emulator's own date, since its clock may be a test's.
    if let Ok(date) = HeaderValue::try_from(cloud.http_date(0)) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

/// Reads a request with its complete body.
async fn read(request: Request<Incoming>) -> Result<Call, ApiError> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
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

fn error_reply(cloud: &Cloud, error: &ApiError, of_stream: bool) -> Reply {
    let body = if of_stream { error.stream_body() } else { error.body() };
    let mut response = json(error.status, &body);
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after {
        let is_date = cloud.with_state(|state, _| state.faults.retry_after_date);
        let date = HeaderValue::try_from(cloud.http_date(seconds)).ok().filter(|_| is_date);
        headers.insert(RETRY_AFTER, date.unwrap_or_else(|| HeaderValue::from(seconds)));
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

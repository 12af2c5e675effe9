//! The network side of an attempt: one `POST` and its status or error.

use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;

/// The time limit for the response of a receiver (DT, "Best Practices").
const TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for the body of a response, after its head. A timeout does not change the result of the attempt.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest number of response bodies that are read at the same time; beyond it, connections are closed instead.
const MAX_DRAINS: usize = 512;

/// The largest size of a response body that is read and ignored, in bytes; beyond it, the connection is closed.
const MAX_RESPONSE: usize = 64 * 1024;

/// The largest number of idle connections to one receiver.
const MAX_IDLE: usize = 64;

/// The point at which the fault `drop` interrupts a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// After half of the request's body.
    Request,
    /// Before the response is read: the receiver has the event, but the sender has no acknowledgement.
    Answer,
}

/// The `POST` request of one attempt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttemptRequest {
    /// The connector's Endpoint URL.
    pub url: Arc<str>,
    /// All headers except those that HTTP itself needs.
    pub headers: HeaderMap,
    /// The body of the request.
    pub body: Bytes,
    /// The point at which the connection is interrupted; `None` if it is not.
    pub cut: Option<Cut>,
}

/// The result of a request: the status of the response, or a short stable name of the error, such as `timeout`.
pub type TransportFuture<'a> = Pin<Box<dyn Future<Output = Result<u16, &'static str>> + Send + 'a>>;

/// Sends requests to receivers. Tests implement their own transport.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends one request and waits at most 10 s for the status of its response.
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_>;
}

type TlsConnector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Sends requests by HTTP/1.1 over TCP, and over TLS to receivers with a certificate of a public authority.
#[derive(Debug)]
pub struct HttpTransport {
    client: Client<TlsConnector, AttemptBody>,
    drains: Arc<Semaphore>,
}

/// The error if the cryptographic back-end does not support the protocol versions of TLS.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsSetupError;

fn with_tls(mut connector: HttpConnector) -> Result<TlsConnector, TlsSetupError> {
    connector.enforce_http(false);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    Ok(builder.map_err(|_| TlsSetupError)?.https_or_http().enable_http1().wrap_connector(connector))
}

impl HttpTransport {
    pub fn new() -> Result<Self, TlsSetupError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(TIMEOUT));
        let connector = with_tls(connector)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_title_case_headers(true)
            .build(connector);
        Ok(Self { client, drains: Arc::new(Semaphore::new(MAX_DRAINS)) })
    }

    /// Reads the rest of a response in the background, so that its connection can be used again. The result of the attempt does
    /// not depend on it.
    fn drain(&self, body: Incoming) {
        if let Ok(permit) = Arc::clone(&self.drains).try_acquire_owned() {
            tokio::spawn(async move {
                let rest = Limited::new(body, MAX_RESPONSE).collect();
                let _read = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
                drop(permit);
            });
        }
    }

    async fn send(&self, request: AttemptRequest) -> Result<u16, &'static str> {
        let AttemptRequest { url, headers, body, cut } = request;
        let uri: Uri = url.parse().map_err(|_| "url_unusable")?;
        let mut request = Request::new(AttemptBody::new(body, cut == Some(Cut::Request)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| if cut.is_some() { "connection_cut_by_fault" } else { reason(&error) })?;
        if cut.is_some() {
            return Err("connection_cut_by_fault");
        }
        let status = response.status().as_u16();
        self.drain(response.into_body());
        Ok(status)
    }
}

impl Transport for HttpTransport {
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_> {
        Box::pin(
            async move { tokio::time::timeout(TIMEOUT, self.send(request)).await.unwrap_or(Err("timeout")) },
        )
    }
}

/// Returns whether TLS caused an I/O error. hyper-rustls wraps one I/O error in another.
fn is_of_tls(error: &std::io::Error) -> bool {
    let Some(inner) = error.get_ref() else { return false };
    inner.is::<rustls::Error>() || inner.downcast_ref::<std::io::Error>().is_some_and(is_of_tls)
}

/// Returns a short stable name of an error.
fn reason(error: &hyper_util::client::legacy::Error) -> &'static str {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            if is_of_tls(io) {
                return "tls_failed";
            }
            return match io.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection_refused",
                std::io::ErrorKind::TimedOut => "timeout",
                _ if error.is_connect() => "connection_failed",
                _ => "connection_lost",
            };
        }
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return "not_http";
        }
        cause = inner.source();
    }
    if error.is_connect() { "connection_failed" } else { "connection_lost" }
}

/// A body that is sent completely, or only its first half followed by an error, which makes hyper close the connection.
pub struct AttemptBody {
    rest: Option<Bytes>,
    length: u64,
    cut: bool,
}

impl AttemptBody {
    fn new(body: Bytes, cut: bool) -> Self {
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let half = body.len().checked_div(2).unwrap_or(0);
        let rest = if cut { body.slice(..half) } else { body };
        Self { rest: Some(rest), length, cut }
    }
}

/// The error by which the fault `drop` interrupts a request.
#[derive(Debug, thiserror::Error)]
#[error("cut by the fault drop")]
pub struct CutByFault;

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = CutByFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutByFault>>> {
        match self.rest.take() {
            Some(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ if self.cut => Poll::Ready(Some(Err(CutByFault))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

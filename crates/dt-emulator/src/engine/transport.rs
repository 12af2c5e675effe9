//! The network side of an attempt: one `POST`, and how it ended.

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

/// How long a receiver may take (DT, "Best Practices").
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the body of an answer may take after its head. The answer counts all the same.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// How many bodies of answers are read at once; the connections of more are given up.
const MAX_DRAINS: usize = 512;

/// How much of an answer is read before its connection is given up; it is not looked at.
const MAX_ANSWER: usize = 64 * 1024;

/// How many connections to one receiver are kept open.
const MAX_IDLE: usize = 64;

/// Where the fault `drop` cuts a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// After half of the body.
    Request,
    /// Before the answer is read: the receiver has the event, and the sender does not know.
    Answer,
}

/// One `POST`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttemptRequest {
    /// The connector's Endpoint URL.
    pub url: Arc<str>,
    /// All headers but those that HTTP itself needs.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Where to cut the connection, if at all.
    pub cut: Option<Cut>,
}

/// How an attempt ended: the status, or why there is none, as a short stable name such as `timeout`.
pub type TransportFuture<'a> = Pin<Box<dyn Future<Output = Result<u16, &'static str>> + Send + 'a>>;

/// Sends requests to receivers. Tests bring their own.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends one request and waits for the status of its answer, at most 10 s.
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_>;
}

type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// HTTP/1.1 over TCP, and over TLS to receivers whose certificate the usual authorities vouch for.
#[derive(Debug)]
pub(crate) struct HttpTransport {
    client: Client<Connector, AttemptBody>,
    drains: Arc<Semaphore>,
}

/// TLS cannot be set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoTls;

fn with_tls(mut connector: HttpConnector) -> Result<Connector, NoTls> {
    connector.enforce_http(false);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    Ok(builder.map_err(|_| NoTls)?.https_or_http().enable_http1().wrap_connector(connector))
}

impl HttpTransport {
    pub(crate) fn new() -> Result<Self, NoTls> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(PATIENCE));
        let connector = with_tls(connector)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_title_case_headers(true)
            .build(connector);
        Ok(Self { client, drains: Arc::new(Semaphore::new(MAX_DRAINS)) })
    }

    /// Reads the rest of an answer, so that its connection can be used again. Whether it can does not change how the attempt
    /// ended, so nobody waits for it.
    fn drain(&self, body: Incoming) {
        if let Ok(place) = Arc::clone(&self.drains).try_acquire_owned() {
            tokio::spawn(async move {
                let rest = Limited::new(body, MAX_ANSWER).collect();
                let _read = tokio::time::timeout(DRAIN_PATIENCE, rest).await;
                drop(place);
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
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| if cut.is_some() { "connection_cut_by_fault" } else { reason(&error) })?;
        if cut.is_some() {
            return Err("connection_cut_by_fault");
        }
        let status = answer.status().as_u16();
        self.drain(answer.into_body());
        Ok(status)
    }
}

impl Transport for HttpTransport {
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_> {
        Box::pin(
            async move { tokio::time::timeout(PATIENCE, self.send(request)).await.unwrap_or(Err("timeout")) },
        )
    }
}

/// Whether an I/O error is one of TLS; hyper-rustls wraps one I/O error in another.
fn is_of_tls(error: &std::io::Error) -> bool {
    let Some(inner) = error.get_ref() else { return false };
    inner.is::<rustls::Error>() || inner.downcast_ref::<std::io::Error>().is_some_and(is_of_tls)
}

/// A short name for what went wrong.
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

/// A body in one piece, or half of one and then an error, which makes hyper close the connection.
pub(crate) struct AttemptBody {
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

/// The request was cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
pub(crate) struct CutOnPurpose;

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = CutOnPurpose;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOnPurpose>>> {
        match self.rest.take() {
            Some(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ if self.cut => Poll::Ready(Some(Err(CutOnPurpose))),
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

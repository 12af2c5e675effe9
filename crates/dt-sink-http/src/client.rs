//! Sends single requests: the connections, the time limits, and the needed part of the response.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service;

/// The largest number of bytes of a response's body that are kept, for an error message.
const MAX_KEPT: usize = 1024;
/// The largest number of bytes of a response's body that are read. If the body is longer, its connection is closed.
const MAX_READ: usize = 64 * 1024;
/// The time limit for the body of a response, after its status line.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an unused connection is kept. Many servers close unused connections after 60 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// How long to wait for an error of the target after the TLS handshake, if no request is sent.
const ALERT_WAIT: Duration = Duration::from_millis(500);

type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Sends requests over a pool of kept connections.
#[derive(Debug)]
pub struct Client {
    inner: HyperClient<Connector, Full<Bytes>>,
    timeout: Duration,
}

/// A response of the target.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The first bytes of the body; empty for an accepted request.
    pub body: Vec<u8>,
}

impl Client {
    /// Creates a client, without opening a connection. `concurrency` is the number of unused connections that are kept.
    #[must_use]
    pub fn new(tls: ClientConfig, timeout: Duration, concurrency: usize) -> Self {
        // A request that times out leaves its connection of HTTP/2 in use. So pings detect a peer that is gone before the request
        // times out: the first after a quarter of that time without a byte, and its answer may take half of it.
        let part = |parts: u32| timeout.checked_div(parts).unwrap_or(timeout);
        let inner = HyperClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(part(4))
            .http2_keep_alive_timeout(part(2))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(concurrency)
            .build(connector(tls, timeout));
        Self { inner, timeout }
    }

    /// Sends a request, and waits for the response.
    ///
    /// # Errors
    ///
    /// A message that says why there is no response.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let answer = tokio::time::timeout(self.timeout, self.inner.request(request)).await;
        let answer = answer.map_err(|_| format!("no answer within {:?}", self.timeout))?;
        let (parts, body) = answer.map_err(|error| cause(&error))?.into_parts();
        let kept = read(body, if parts.status.is_success() { 0 } else { MAX_KEPT }).await;
        Ok(Answer { status: parts.status, headers: parts.headers, body: kept })
    }
}

/// Returns a connector that opens connections, each within `timeout`.
fn connector(tls: ClientConfig, timeout: Duration) -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeout));
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    connector.enable_all_versions().wrap_connector(tcp)
}

/// Connects to the host of a URL, with TLS for https, and closes the connection without a request.
///
/// # Errors
///
/// A message that says why the connection failed.
pub async fn connect(tls: ClientConfig, timeout: Duration, url: &Uri) -> Result<(), String> {
    let connecting = tokio::time::timeout(timeout, connector(tls, timeout).call(url.clone())).await;
    let connected = connecting.map_err(|_| format!("no connection within {timeout:?}"))?;
    let mut stream = TokioIo::new(connected.map_err(|error| chain("cannot connect", &*error))?);
    // In TLS 1.3 the server decides about the client certificate after the handshake of the client (RFC 8446, appendix E.1).
    let answer = tokio::time::timeout(ALERT_WAIT, stream.read(&mut [0])).await;
    match answer {
        Ok(Err(error)) => return Err(chain("the connection broke", &error)),
        Ok(Ok(0)) => return Err("the target closed the connection before a request".to_owned()),
        // Nothing, or the first byte of HTTP/2.
        Ok(Ok(_)) | Err(_) => {}
    }
    // The connection is dropped in any case.
    let _closed = tokio::time::timeout(ALERT_WAIT, stream.shutdown()).await;
    Ok(())
}

/// Reads a body, so that its connection can be used again, and returns its first `keep` bytes. A body that is too long, too slow
/// or broken is not read to its end, since the status is sufficient.
async fn read(mut body: Incoming, keep: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    if body.is_end_stream() {
        return kept;
    }
    let reading = async {
        let mut left = MAX_READ;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            kept.extend(data.iter().take(keep.saturating_sub(kept.len())));
            match left.checked_sub(data.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // The kept part is as good as the whole.
    let _late = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    kept
}

/// Returns why there is no response. Equal causes have equal messages, so that each is logged once.
fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let what = if error.is_connect() { "cannot connect" } else { "the connection broke" };
    match error.source() {
        Some(cause) => chain(what, cause),
        None => what.to_owned(),
    }
}

/// Returns an error with its causes, or only the TLS error if there is one among them.
fn chain(what: &str, error: &(dyn Error + 'static)) -> String {
    if let Some(text) = tls_error(error) {
        return text;
    }
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Returns a message for the TLS error that caused an error; `None` if it has another cause.
fn tls_error(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(format!("TLS failed: {}", tls_text(error)));
        }
        // The source of an I/O error is that of the error that it contains.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Returns the message of a TLS error without the current time, which the library's own message contains.
fn tls_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the certificate of the target has expired".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the certificate of the target is not valid yet".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "the certificate of the target is of an authority that is not trusted; check `tls.ca`".to_owned()
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied
            // What a server of TLS 1.2 answers without a client certificate.
            | AlertDescription::HandshakeFailure,
        ) => format!("{error}; does the target demand a client certificate? Check `tls.certificate`"),
        other => other.to_string(),
    }
}

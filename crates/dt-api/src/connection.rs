//! Connections: TLS by rustls, a pool of kept connections, and the causes of connection errors.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// How long an unused connection is kept. Many servers close unused connections after 60 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// An HTTP client with a pool of kept connections.
pub type HttpClient = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Creates an HTTP client, without opening a connection. The certificate authorities are those of Mozilla. `None` if the TLS
/// library does not accept its own defaults.
pub fn client(connect_timeout: Duration) -> Option<HttpClient> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider).ok()?;
    let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
    Some(builder.build(connector))
}

/// Returns `what`, followed by those causes of `error` that add information, since the outermost error is often too general.
pub fn causes(what: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(cause) = next {
        let part = cause.to_string();
        // Some errors repeat the text of their cause.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = cause.source();
    }
    text
}

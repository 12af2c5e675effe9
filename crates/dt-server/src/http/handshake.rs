//! Prepares a connection for HTTP: reads the PROXY header if one is required, then makes the TLS handshake, both within
//! `handshake_timeout`. A connection that fails is closed, counted and logged, with a limited number of log lines.
//!
//! A TLS handshake costs more than a rejected request, so it is charged to the client's rejection budget until a request on
//! the connection has verified.

use std::io;
use std::net::SocketAddr;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::endpoint::Endpoint;
use super::proxy_header::{ProxyHeaderError, read_proxy_header};
use super::stream::Stream;
use crate::config::Proxies;
use crate::telemetry::{HandshakeFailed, ProxyHeaderRefused};

/// Why a connection is closed before its first request.
enum OpenFailure {
    /// The PROXY header was not accepted. Contains the reason for the metrics, and the error.
    Proxy(&'static str, String),
    /// The TLS handshake failed. Contains the reason for the metrics, and the error.
    Handshake(&'static str, String),
    /// The peer closed the connection, or the server is stopping.
    Closed,
}

/// Prepares an accepted connection for HTTP. Returns the stream and the client's address; `None` if the connection is closed.
pub async fn open(
    stream: Stream,
    peer: Option<SocketAddr>,
    endpoint: &Endpoint,
    stop: &mut watch::Receiver<bool>,
) -> Option<(Stream, Option<SocketAddr>)> {
    let routing = endpoint.routing();
    if endpoint.tls.is_none() && !routing.proxies.protocol {
        return Some((stream, peer));
    }
    let limit = routing.limits.handshake_timeout;
    let mut phase = Phase::default();
    let opened = tokio::select! {
        opened = timeout(limit, negotiate(stream, peer, endpoint, &routing.proxies, &mut phase)) => opened,
        // No request has arrived yet, so the connection can be closed.
        _ = stop.wait_for(|stop| *stop) => Ok(Err(OpenFailure::Closed)),
    };
    let late = || format!("not done within {limit:?}");
    let failure = match opened {
        Ok(Ok(opened)) => {
            count_handshake(endpoint, opened.1);
            return Some(opened);
        }
        Ok(Err(failure)) => failure,
        Err(_) if phase == Phase::Proxy => OpenFailure::Proxy("timeout", late()),
        Err(_) => OpenFailure::Handshake("timeout", late()),
    };
    match failure {
        OpenFailure::Proxy(reason, error) => {
            endpoint.telemetry.emit(&ProxyHeaderRefused { peer, reason, error: &error });
        }
        OpenFailure::Handshake(reason, error) => {
            count_handshake(endpoint, peer);
            endpoint.telemetry.emit(&HandshakeFailed { peer, reason, error: &error });
        }
        OpenFailure::Closed => {}
    }
    None
}

/// Charges a TLS handshake to the client's rejection budget.
fn count_handshake(endpoint: &Endpoint, client: Option<SocketAddr>) {
    if endpoint.tls.is_some() {
        endpoint.rejections.take(client.map(|client| client.ip()), endpoint.clock.unix_millis());
    }
}

/// The current step of the preparation of a connection.
#[derive(Default, PartialEq)]
enum Phase {
    #[default]
    Proxy,
    Tls,
}

/// Reads the PROXY header and makes the TLS handshake, each if configured. Sets `phase` to the current step. The second value is
/// the client's address: the address in the PROXY header, or else that of the peer.
async fn negotiate(
    mut stream: Stream,
    peer: Option<SocketAddr>,
    endpoint: &Endpoint,
    proxies: &Proxies,
    phase: &mut Phase,
) -> Result<(Stream, Option<SocketAddr>), OpenFailure> {
    let mut client = peer;
    if proxies.protocol {
        if !proxies.trusts(peer.map(|peer| peer.ip())) {
            let text = "only `trusted_proxies` may connect, since `proxy_protocol` is on".to_owned();
            return Err(OpenFailure::Proxy("untrusted", text));
        }
        let named = read_proxy_header(&mut stream).await.map_err(|error| {
            let reason = match error {
                // A health check of the proxy connects and sends nothing.
                ProxyHeaderError::Ended(_) => return OpenFailure::Closed,
                ProxyHeaderError::Missing => "missing",
                ProxyHeaderError::Malformed => "malformed",
            };
            OpenFailure::Proxy(reason, error.to_string())
        })?;
        client = named.or(peer);
    }
    *phase = Phase::Tls;
    let Some(tls) = &endpoint.tls else { return Ok((stream, client)) };
    match TlsAcceptor::from(tls.server_config()).accept(stream).await {
        Ok(stream) => Ok((Stream::Tls(Box::new(stream)), client)),
        Err(error) => Err(OpenFailure::Handshake(reason(&error), error.to_string())),
    }
}

/// Returns why a handshake failed, as a label for the metrics.
fn reason(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => HandshakeFailed::CLOSED,
        Some(rustls::Error::NoCertificatesPresented) => "client_certificate_missing",
        Some(rustls::Error::InvalidCertificate(_)) => "client_certificate_refused",
        // Usually the client does not trust the server's certificate.
        Some(rustls::Error::AlertReceived(_)) => "refused_by_client",
        Some(rustls::Error::PeerIncompatible(_)) => "incompatible",
        Some(_) => "protocol",
    }
}

//! What happens to a connection before HTTP: the PROXY header where one is due, then the TLS handshake, both within
//! `handshake_timeout`. A connection that fails is closed, counted, and logged in a bounded number of lines.
//!
//! A TLS handshake costs more than a refused request: it counts against the client's rejection budget, until a request on
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

/// Why a connection does not get as far as HTTP.
enum OpenFailure {
    Proxy(&'static str, String),
    Handshake(&'static str, String),
    /// It went, or we do.
    Gone,
}

/// Makes an accepted connection ready for HTTP, and finds out whose it is. `None` when there is nothing to serve.
pub(super) async fn open(
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
        // Nothing was asked yet, so nobody waits for an answer.
        _ = stop.wait_for(|stop| *stop) => Ok(Err(OpenFailure::Gone)),
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
        OpenFailure::Gone => {}
    }
    None
}

fn count_handshake(endpoint: &Endpoint, client: Option<SocketAddr>) {
    if endpoint.tls.is_some() {
        endpoint.rejections.take(client.map(|client| client.ip()), endpoint.clock.unix_millis());
    }
}

#[derive(Default, PartialEq)]
enum Phase {
    #[default]
    Proxy,
    Tls,
}

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
                // A proxy that looks whether we are there.
                ProxyHeaderError::Ended(_) => return OpenFailure::Gone,
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

/// Why a handshake failed, as one of few.
fn reason(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => HandshakeFailed::CLOSED,
        Some(rustls::Error::NoCertificatesPresented) => "client_certificate_missing",
        Some(rustls::Error::InvalidCertificate(_)) => "client_certificate_refused",
        // The client does not like our certificate, above all.
        Some(rustls::Error::AlertReceived(_)) => "refused_by_client",
        Some(rustls::Error::PeerIncompatible(_)) => "incompatible",
        Some(_) => "protocol",
    }
}

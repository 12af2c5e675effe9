//! Internal events of connections, before their first request.

use std::net::SocketAddr;

use super::{InternalEvent, Telemetry};

/// A connection was refused.
#[derive(Debug)]
pub struct ConnectionRefused {
    /// The address of the peer; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Why the connection was refused.
    pub reason: ConnectionRefusedReason,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusedReason {
    /// Too many connections are open.
    TooMany,
    /// The peer's address is not in the allowed networks.
    NotAllowed,
}

impl ConnectionRefusedReason {
    pub(in crate::telemetry) const ALL: [Self; 2] = [Self::TooMany, Self::NotAllowed];

    /// Returns the stable name of the reason, for metrics.
    pub(in crate::telemetry) const fn code(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::NotAllowed => "not_allowed",
        }
    }
}

impl InternalEvent for ConnectionRefused {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, reason } = self;
        telemetry.metrics.connections_refused.with_label_values(&[reason.code()]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.connections) {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(peer, reason = reason.code(), suppressed, "a connection was refused");
        }
    }
}

/// An unauthenticated connection was closed to make room for another one.
#[derive(Debug)]
pub struct ConnectionEvicted {
    /// The address of the peer; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
}

impl InternalEvent for ConnectionEvicted {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.connections_evicted.inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.connections) {
            let peer = self.peer.map(tracing::field::display);
            tracing::warn!(peer, suppressed, "there are many connections; an unused one was closed");
        }
    }
}

/// A connection could not be accepted.
#[derive(Debug)]
pub struct AcceptFailed<'a> {
    /// The error of the operating system.
    pub error: &'a std::io::Error,
    /// Whether the previous accept succeeded. Only the first failure is logged.
    pub is_first: bool,
}

impl InternalEvent for AcceptFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.accepts_failed.inc();
        if !self.is_first {
            return;
        }
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.failures) {
            tracing::error!(error = %self.error, suppressed, "connections cannot be accepted");
        }
    }
}

/// A TLS handshake failed.
#[derive(Debug)]
pub struct HandshakeFailed<'a> {
    /// The address of the peer; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The reason for the metrics: one of few codes.
    pub reason: &'static str,
    /// The error, in words.
    pub error: &'a str,
}

impl HandshakeFailed<'_> {
    /// The reason for a peer that closed the connection, such as a health check that only tests whether the port is open.
    pub const CLOSED: &'static str = "closed";
}

impl InternalEvent for HandshakeFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, reason, error } = self;
        telemetry.metrics.handshakes_failed.with_label_values(&[reason]).inc();
        let peer = peer.map(tracing::field::display);
        if *reason == HandshakeFailed::CLOSED {
            tracing::debug!(peer, error, "a peer closed the connection before its TLS handshake ended");
            return;
        }
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.handshakes) {
            tracing::warn!(peer, reason, error, suppressed, "a TLS handshake failed");
        }
    }
}

/// A connection did not begin with a valid PROXY header, or came from a peer that may not send one.
#[derive(Debug)]
pub struct ProxyHeaderRefused<'a> {
    /// The address of the peer; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The reason for the metrics: one of few codes.
    pub reason: &'static str,
    /// The error, in words.
    pub error: &'a str,
}

impl InternalEvent for ProxyHeaderRefused<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, reason, error } = self;
        telemetry.metrics.proxy_headers_refused.with_label_values(&[reason]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.handshakes) {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(peer, reason, error, suppressed, "a connection was closed: PROXY protocol");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use dt_sink::clock::SystemClock;

    #[test]
    fn a_suppressed_line_is_counted_once() {
        let telemetry = Telemetry::new(Arc::new(SystemClock));
        for _ in 0..500 {
            telemetry.emit(&HandshakeFailed { peer: None, reason: "protocol", error: "x" });
            telemetry.emit(&ProxyHeaderRefused { peer: None, reason: "missing", error: "x" });
        }
        let counted = telemetry.metrics.log_suppressed.get();
        assert!((900..1000).contains(&counted), "{counted} of 1000");
    }
}

//! What can happen to a connection before HTTP, and to the certificate.

use std::net::SocketAddr;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::metrics::register;
use super::{Happening, Telemetry};

pub(super) struct ArrivalMetrics {
    /// Without a label, but also without a series until there is a certificate.
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
    handshakes_failed: IntCounterVec,
    proxy_headers_refused: IntCounterVec,
}

impl ArrivalMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, label: &str| {
            register(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let expiry = Opts::new(
            "dt_receiver_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in force ends, in Unix seconds; absent without TLS.",
        );
        Self {
            expiry: register(registry, IntGaugeVec::new(expiry, &[])),
            reloads: counters(
                "dt_receiver_tls_reloads_total",
                "Times that changed certificate files were read: put in force, or not good and the old one kept.",
                "outcome",
            ),
            handshakes_failed: counters(
                "dt_receiver_tls_handshakes_failed_total",
                "Connections closed because the TLS handshake failed.",
                "reason",
            ),
            proxy_headers_refused: counters(
                "dt_receiver_proxy_headers_refused_total",
                "Connections closed for want of a good PROXY header from a trusted proxy.",
                "reason",
            ),
        }
    }
}

/// A certificate is in force.
#[derive(Debug)]
pub struct CertificateInForce<'a> {
    /// Its file.
    pub path: &'a str,
    /// When it ends, in Unix seconds.
    pub until: i64,
    /// Whether another one was in force before.
    pub is_reloaded: bool,
}

impl Happening for CertificateInForce<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { path, until, is_reloaded } = self;
        let metrics = &telemetry.metrics.arrivals;
        let none: [&str; 0] = [];
        metrics.expiry.with_label_values(&none).set(*until);
        for outcome in ["changed", "failed"] {
            metrics.reloads.with_label_values(&[outcome]);
        }
        if *is_reloaded {
            metrics.reloads.with_label_values(&["changed"]).inc();
            tracing::info!(certificate = path, until, "another certificate is in force");
        }
    }
}

/// Changed certificate files are not good; the old certificate is still in force.
#[derive(Debug)]
pub struct CertificateRefused<'a> {
    /// What is wrong with which file.
    pub error: &'a str,
}

impl Happening for CertificateRefused<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.arrivals.reloads.with_label_values(&["failed"]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.failures) {
            let error = self.error;
            tracing::error!(error, suppressed, "the certificate was not reloaded; the old one is in force");
        }
    }
}

/// A TLS handshake failed.
#[derive(Debug)]
pub struct HandshakeFailed<'a> {
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// Why, as one of few.
    pub reason: &'static str,
    /// Why, in words.
    pub error: &'a str,
}

impl HandshakeFailed<'_> {
    /// The peer went, as health checks do that only look whether the port is open.
    pub const CLOSED: &'static str = "closed";
}

impl Happening for HandshakeFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, reason, error } = self;
        telemetry.metrics.arrivals.handshakes_failed.with_label_values(&[reason]).inc();
        let peer = peer.map(tracing::field::display);
        if *reason == HandshakeFailed::CLOSED {
            tracing::debug!(peer, error, "a peer went before its TLS handshake was done");
            return;
        }
        if let Some(suppressed) = telemetry.may_log(&telemetry.arrivals) {
            tracing::warn!(peer, reason, error, suppressed, "a TLS handshake failed");
        }
    }
}

/// A connection did not begin with a good PROXY header, or came from somebody who may not send one.
#[derive(Debug)]
pub struct ProxyHeaderRefused<'a> {
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// Why, as one of few.
    pub reason: &'static str,
    /// Why, in words.
    pub error: &'a str,
}

impl Happening for ProxyHeaderRefused<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, reason, error } = self;
        telemetry.metrics.arrivals.proxy_headers_refused.with_label_values(&[reason]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.arrivals) {
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
    fn a_line_that_is_held_back_is_counted_once() {
        let telemetry = Telemetry::new(Arc::new(SystemClock));
        let lines = |telemetry: &Telemetry| {
            for _ in 0..500 {
                telemetry.emit(&HandshakeFailed { peer: None, reason: "protocol", error: "x" });
                telemetry.emit(&ProxyHeaderRefused { peer: None, reason: "missing", error: "x" });
            }
        };
        lines(&telemetry);
        let counted = telemetry.metrics.log_suppressed.get();
        assert!((900..1000).contains(&counted), "{counted} of 1000");
    }
}

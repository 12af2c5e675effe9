//! The things that can happen, each with its log line and its metrics.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use super::{ConnectorSeries, Happening, Telemetry};
use dt_sink::record::RequestId;

/// A request to a connector was answered.
#[expect(missing_debug_implementations, reason = "it has a function, and lives as long as one call")]
pub struct Answered<'a> {
    /// The request's id.
    pub id: RequestId,
    /// The connector's name; none for a path without one.
    pub connector: Option<&'a str>,
    /// The connector's series, where they were looked up.
    pub series: Option<&'a ConnectorSeries>,
    /// Where the request came from.
    pub peer: Option<SocketAddr>,
    /// The reply's status.
    pub status: StatusCode,
    /// The reply's reason, as it is named in metrics and problem details.
    pub reason: &'static str,
    /// Asked for what the reason alone does not say; safe to show. Only if there is a line for it.
    pub detail: &'a dyn Fn() -> Option<String>,
    /// When it was received, in Unix milliseconds.
    pub received_at: i64,
    /// How long it took from the complete head.
    pub took: Duration,
}

impl Happening for Answered<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { id, connector, series, peer, status, reason, detail, received_at, took } = self;
        let connector = connector.unwrap_or("");
        telemetry.metrics.answered(connector, *series, *status, reason, *took, received_at.div_euclid(1000));
        let peer = peer.map(tracing::field::display);
        let failed = status.is_client_error() || status.is_server_error();
        let status_code = status.as_u16();
        if !failed {
            tracing::debug!(
                request_id = id.as_str(),
                connector,
                reason,
                status = status_code,
                peer,
                took_us = took.as_micros(),
                "accepted"
            );
            return;
        }
        let (budget, outcome) = if status.is_server_error() {
            (&telemetry.unavailable, "not stored; the sender has to try again")
        } else {
            (&telemetry.refusals, "refused")
        };
        if let Some(suppressed) = telemetry.may_log(budget) {
            tracing::warn!(
                request_id = id.as_str(),
                connector,
                reason,
                status = status_code,
                peer,
                detail = detail(),
                suppressed,
                "{outcome}"
            );
        }
    }
}

/// With policy `either`, one scheme held and the other was sent but did not.
#[derive(Debug)]
pub struct OtherSchemeFailed<'a> {
    /// The connector's name.
    pub connector: &'a str,
    /// Why the other one did not hold, as it is named in metrics.
    pub reason: &'static str,
}

impl Happening for OtherSchemeFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.other_scheme_failed(self.connector, self.reason);
        tracing::debug!(
            connector = self.connector,
            reason = self.reason,
            "one of two signatures did not hold"
        );
    }
}

/// A connection was refused.
#[derive(Debug)]
pub struct ConnectionRefused {
    /// Where it came from; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Why.
    pub reason: RefusedConnection,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedConnection {
    /// Too many are open.
    TooMany,
    /// Its address is not among those that may connect.
    NotAllowed,
}

impl RefusedConnection {
    pub(super) const ALL: [Self; 2] = [Self::TooMany, Self::NotAllowed];

    /// Stable name, for metrics.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::NotAllowed => "not_allowed",
        }
    }
}

impl Happening for ConnectionRefused {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, reason } = self;
        telemetry.metrics.connections_refused.with_label_values(&[reason.code()]).inc();
        let peer = peer.map(tracing::field::display);
        if let Some(suppressed) = telemetry.may_log(&telemetry.connections) {
            tracing::warn!(peer, reason = reason.code(), suppressed, "a connection was refused");
        }
    }
}

/// A connection on which no signature had held was closed, to make room for another.
#[derive(Debug)]
pub struct ConnectionEvicted {
    /// Where it came from.
    pub peer: Option<SocketAddr>,
}

impl Happening for ConnectionEvicted {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.connections_evicted.inc();
        let peer = self.peer.map(tracing::field::display);
        if let Some(suppressed) = telemetry.may_log(&telemetry.connections) {
            tracing::warn!(peer, suppressed, "there are many connections; an unused one was closed");
        }
    }
}

/// A sink did not take records, or could not be opened.
#[derive(Debug)]
pub struct SinkFailed<'a> {
    /// The sink's name.
    pub sink: &'a str,
    /// What it says.
    pub error: &'a str,
    /// How many records it did not take.
    pub records: u64,
}

impl Happening for SinkFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { sink, error, records } = self;
        telemetry.metrics.sink_failed(sink, *records);
        if let Some(suppressed) = telemetry.may_log(&telemetry.failures) {
            tracing::error!(sink, error, records, suppressed, "a sink failed");
        }
    }
}

/// A sink that had failed takes records again.
#[derive(Debug)]
pub struct SinkRecovered<'a> {
    /// The sink's name.
    pub sink: &'a str,
}

impl Happening for SinkRecovered<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.sink_up(self.sink);
        tracing::info!(sink = self.sink, "a sink works again");
    }
}

/// librdkafka said something.
#[derive(Debug)]
pub struct KafkaLogged<'a> {
    /// The sink's name.
    pub sink: &'a str,
    /// Whether it is an error or a warning.
    pub is_problem: bool,
    /// What part of librdkafka it comes from.
    pub facility: &'a str,
    /// Its words.
    pub message: &'a str,
}

impl Happening for KafkaLogged<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { sink, is_problem, facility, message } = self;
        if !is_problem {
            tracing::debug!(target: "librdkafka", sink, facility, message);
        } else if let Some(suppressed) = telemetry.may_log(&telemetry.kafka) {
            tracing::warn!(target: "librdkafka", sink, facility, message, suppressed);
        }
    }
}

/// An issuer of keys has others than were known.
#[derive(Debug)]
pub struct KeysFetched<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The ids of its keys.
    pub keys: &'a [&'a str],
}

impl Happening for KeysFetched<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { issuer, keys } = self;
        telemetry.metrics.keys_fetched.inc();
        tracing::info!(issuer, ?keys, "there is a new key set");
    }
}

/// An issuer of keys could not be asked.
#[derive(Debug)]
pub struct KeysFailed<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// What happened.
    pub error: &'a str,
}

impl Happening for KeysFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { issuer, error } = self;
        telemetry.metrics.keys_failed.inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.failures) {
            tracing::error!(
                issuer,
                error,
                suppressed,
                "the key set cannot be fetched; the last good one holds"
            );
        }
    }
}

/// A delivery was set aside.
#[derive(Debug)]
pub struct DeadLetterBuried<'a> {
    /// The code of the reason.
    pub reason: &'static str,
    /// The connector's name.
    pub connector: &'a str,
    /// What was wrong with it.
    pub error: &'a str,
    /// Whether its request is refused as well, and has its line for that.
    pub is_copy: bool,
}

impl Happening for DeadLetterBuried<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { reason, connector, error, is_copy } = self;
        telemetry.metrics.dead_letters.with_label_values(&[reason]).inc();
        if *is_copy {
            tracing::debug!(reason, connector, error, "a copy of a refused request was set aside");
        } else if let Some(suppressed) = telemetry.may_log(&telemetry.dead_letters) {
            tracing::warn!(
                reason,
                connector,
                error,
                suppressed,
                "a delivery was set aside in the dead letters"
            );
        }
    }
}

/// A delivery could not be set aside.
#[derive(Debug)]
pub struct DeadLetterFailed<'a> {
    /// The code of the reason.
    pub reason: &'static str,
    /// What happened.
    pub error: &'a str,
}

impl Happening for DeadLetterFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { reason, error } = self;
        telemetry.metrics.dead_letters_failed.with_label_values(&[reason]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.failures) {
            tracing::error!(reason, error, suppressed, "a delivery could not be set aside");
        }
    }
}

//! Internal events of requests.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ConnectorSeries, InternalEvent, StatusCode, Telemetry};
use dt_sink::record::RequestId;

/// A request was answered.
#[expect(missing_debug_implementations, reason = "it has a function, and lives as long as one call")]
pub struct RequestAnswered<'a> {
    /// The request's id.
    pub id: RequestId,
    /// The connector's name; `None` for a path that belongs to no connector.
    pub connector: Option<&'a str>,
    /// The connector's series; `None` if they were not looked up.
    pub series: Option<&'a ConnectorSeries>,
    /// The address of the sender; `None` if it is not known.
    pub peer: Option<SocketAddr>,
    /// The HTTP status of the reply.
    pub status: StatusCode,
    /// The reason of the reply, as in metrics and problem details.
    pub reason: &'static str,
    /// Returns details in addition to the reason, safe to show; `None` if there are none. Called only if a log line is written.
    pub detail: &'a dyn Fn() -> Option<String>,
    /// When the request was received, in Unix milliseconds.
    pub received_at: i64,
    /// The time from the complete head of the request to its reply.
    pub took: Duration,
}

impl InternalEvent for RequestAnswered<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { id, connector, series, peer, status, reason, detail, received_at, took } = self;
        let connector = connector.unwrap_or("");
        telemetry.count_answer((connector, *series), (*status, reason), *took, received_at.div_euclid(1000));
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
            (&telemetry.budgets.unavailable, "not stored; the sender has to try again")
        } else {
            (&telemetry.budgets.rejections, "refused")
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

/// With policy `either`, one of the two signatures is valid and the other one is not.
#[derive(Debug)]
pub struct OtherSchemeFailed<'a> {
    /// The connector's name.
    pub connector: &'a str,
    /// The code of the reason for which the other signature is invalid, as in metrics.
    pub reason: &'static str,
}

impl InternalEvent for OtherSchemeFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { connector, reason } = self;
        telemetry.if_registered(connector, || {
            telemetry.metrics.other_scheme_failed.with_label_values(&[*connector, *reason]).inc();
        });
        tracing::debug!(connector, reason, "one of two signatures is invalid");
    }
}

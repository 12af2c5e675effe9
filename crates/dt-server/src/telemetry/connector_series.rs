//! The series of one connector, looked up once and not by name for each request.

use std::sync::OnceLock;

use http::StatusCode;
use prometheus::{IntCounter, IntGauge};

/// What is counted of nearly all requests of a connector. All else is counted by name.
///
/// It belongs to a configuration. Once the connector is removed, its series are not shown any more, and what ends later
/// counts where nobody looks.
#[derive(Debug)]
pub struct ConnectorSeries {
    /// By reason; all with status 200.
    pub(super) taken: Vec<(&'static str, IntCounter)>,
    pub(super) last_accepted: IntGauge,
    /// There is none before the first event.
    pub(super) clock_skew: OnceLock<IntGauge>,
}

impl ConnectorSeries {
    /// Counts an answer, if it is one of these.
    pub(super) fn count(&self, status: StatusCode, reason: &str, now: i64) -> bool {
        if status != StatusCode::OK {
            return false;
        }
        let Some((_, counter)) = self.taken.iter().find(|(known, _)| *known == reason) else { return false };
        counter.inc();
        if reason == "accepted" {
            self.last_accepted.set(now);
        }
        true
    }
}

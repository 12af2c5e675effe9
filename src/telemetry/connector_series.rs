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
    /// By code; all with status 200.
    pub(super) taken: [(&'static str, IntCounter); 4],
    pub(super) last_accepted: IntGauge,
    /// There is none before the first event.
    pub(super) clock_skew: OnceLock<IntGauge>,
}

impl ConnectorSeries {
    /// The codes of what is taken.
    pub(super) const CODES: [&'static str; 4] = ["accepted", "duplicate", "ignored", "quarantined"];

    /// Counts an answer, if it is one of these.
    pub(super) fn count(&self, status: StatusCode, code: &str, now: i64) -> bool {
        if status != StatusCode::OK {
            return false;
        }
        let Some((_, counter)) = self.taken.iter().find(|(known, _)| *known == code) else { return false };
        counter.inc();
        if code == "accepted" {
            self.last_accepted.set(now);
        }
        true
    }
}

//! The interface by which a sink reports its own metrics, and the log lines of its client library.

use std::fmt;

use super::Metric;

/// Receives the reports of one sink. The server implements it, and passes it to the constructor of the sink.
///
/// A call looks up the metric by name, so a sink should report once per batch or less often, never once per record. Deliveries,
/// failures and recoveries need no report: the worker that drives the sink counts and logs them.
pub trait SinkReporter: fmt::Debug + Send + Sync {
    /// Returns the name of the sink in logs and metrics.
    fn sink(&self) -> &str;

    /// Sets a gauge of the sink. A metric that the sink's type does not declare is ignored.
    fn set(&self, metric: &Metric, value: f64);

    /// Adds `count` to a counter of the sink. A metric that the sink's type does not declare is ignored.
    fn add(&self, metric: &Metric, count: u64);

    /// Requests the permission to log a warning or an error of a client library, which may repeat it endlessly. Returns `None` if
    /// the line must not be written; it was then counted as suppressed.
    fn log_permit(&self) -> Option<LogPermit>;
}

/// The permission to write one line to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPermit {
    /// The number of lines that were suppressed before this one; `None` if there were none. The line should contain it as the
    /// field `suppressed`.
    pub suppressed: Option<u64>,
}

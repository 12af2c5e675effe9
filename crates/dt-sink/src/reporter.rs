//! Where a sink reports what only it knows: its own metrics, and what its client library logs.

use std::fmt;

use super::Metric;

/// Takes the reports of one sink. The server implements it, and gives it to the sink's constructor.
///
/// A call looks up the metric by name, so a sink reports once in a while or once a batch, never once a record. Deliveries,
/// failures and recoveries need no report: the worker that drives the sink counts and logs them.
pub trait SinkReporter: fmt::Debug + Send + Sync {
    /// Returns the name of the sink in logs and metrics.
    fn sink(&self) -> &str;

    /// Sets a gauge of the sink. The metric is one that the sink's type declares; others are ignored.
    fn set(&self, metric: &Metric, value: f64);

    /// Adds to a counter of the sink. The metric is one that the sink's type declares; others are ignored.
    fn add(&self, metric: &Metric, count: u64);

    /// Asks for the permission to log a warning or an error of a client library, which may repeat itself without end. `None`
    /// denies it: the line was counted as suppressed and must not be written.
    fn log_permit(&self) -> Option<LogPermit>;
}

/// The permission to write one line to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPermit {
    /// How many lines were suppressed before this one, if any were. It belongs in the line, as the field `suppressed`.
    pub suppressed: Option<u64>,
}

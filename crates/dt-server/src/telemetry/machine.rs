//! What the machine does to us: a wrong clock, and no more file descriptors.

use prometheus::{IntCounter, IntGauge, Registry};

use super::metrics::register;
use super::{Happening, Telemetry};

pub(super) struct MachineMetrics {
    suspected_skew: IntGauge,
    accepts_failed: IntCounter,
}

impl MachineMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            suspected_skew: register(
                registry,
                IntGauge::new(
                    "dt_receiver_clock_suspected_skew_seconds",
                    "DT's clock minus ours, as tokens say that are refused for their time alone; 0 if nothing is suspected.",
                ),
            ),
            accepts_failed: register(
                registry,
                IntCounter::new(
                    "dt_receiver_accepts_failed_total",
                    "Times that no connection could be accepted, as when file descriptors are used up.",
                ),
            ),
        }
    }
}

/// Several authentic requests were refused for their time alone, and agree that our clock is wrong.
#[derive(Debug)]
pub struct ClockDoubted {
    /// How many seconds DT's clock is ahead of ours; below 0 if it is behind.
    pub seconds: i64,
}

impl Happening for ClockDoubted {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { seconds } = self;
        telemetry.metrics.machine.suspected_skew.set(*seconds);
        tracing::error!(
            dt_ahead_seconds = seconds,
            "this machine's clock seems to be wrong: authentic events are refused for their time alone"
        );
    }
}

/// A request was valid again.
#[derive(Debug)]
pub struct ClockTrusted;

impl Happening for ClockTrusted {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.machine.suspected_skew.set(0);
        tracing::info!("this machine's clock agrees with DT's again");
    }
}

/// A connection could not be accepted.
#[derive(Debug)]
pub struct AcceptFailed<'a> {
    /// What the system says.
    pub error: &'a std::io::Error,
    /// Whether it is the first after one that was accepted; only that one is worth a line.
    pub is_first: bool,
}

impl Happening for AcceptFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.machine.accepts_failed.inc();
        if !self.is_first {
            return;
        }
        if let Some(suppressed) = telemetry.may_log(&telemetry.failures) {
            tracing::error!(error = %self.error, suppressed, "connections cannot be accepted");
        }
    }
}

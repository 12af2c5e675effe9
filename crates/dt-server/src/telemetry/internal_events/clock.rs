//! Internal events of the machine's clock.

use super::{InternalEvent, Telemetry};

/// Several authentic requests were rejected only because of their time, which suggests that the system clock is wrong.
#[derive(Debug)]
pub struct ClockSkewSuspected {
    /// The number of seconds by which DT's clock is ahead of the system clock; negative if it is behind.
    pub seconds: i64,
}

impl InternalEvent for ClockSkewSuspected {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { seconds } = self;
        telemetry.metrics.clock_suspected_skew.set(*seconds);
        tracing::error!(
            dt_ahead_seconds = seconds,
            "this machine's clock seems to be wrong: authentic events are refused for their time alone"
        );
    }
}

/// A request was valid after a clock skew was suspected.
#[derive(Debug)]
pub struct ClockSkewCleared;

impl InternalEvent for ClockSkewCleared {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.clock_suspected_skew.set(0);
        tracing::info!("this machine's clock agrees with DT's again");
    }
}

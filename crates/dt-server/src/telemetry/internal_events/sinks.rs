//! Internal events of sinks of any type.

use super::{InternalEvent, Telemetry};

/// A sink did not accept records, or could not be opened.
#[derive(Debug)]
pub struct SinkFailed<'a> {
    /// The sink's name.
    pub sink: &'a str,
    /// The error that the sink returned.
    pub error: &'a str,
    /// The number of records that the sink did not accept.
    pub records: u64,
}

impl InternalEvent for SinkFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { sink, error, records } = self;
        telemetry.sink_retries(sink, *records);
        telemetry.metrics.sink_up.with_label_values(&[sink]).set(0.0);
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.failures) {
            tracing::error!(sink, error, records, suppressed, "a sink failed");
        }
    }
}

/// A sink that had failed accepts records again.
#[derive(Debug)]
pub struct SinkRecovered<'a> {
    /// The sink's name.
    pub sink: &'a str,
}

impl InternalEvent for SinkRecovered<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { sink } = self;
        telemetry.metrics.sink_up.with_label_values(&[sink]).set(1.0);
        tracing::info!(sink, "a sink works again");
    }
}

//! Internal events of dead letters.

use super::{InternalEvent, Telemetry};

/// A delivery was moved to the dead letters.
#[derive(Debug)]
pub struct DeadLetterStored<'a> {
    /// The code of the dead letter's reason.
    pub reason: &'static str,
    /// The connector's name.
    pub connector: &'a str,
    /// The error of the delivery.
    pub error: &'a str,
    /// Whether the dead letter is a copy of a refused request, which has its own log line.
    pub is_copy: bool,
}

impl InternalEvent for DeadLetterStored<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { reason, connector, error, is_copy } = self;
        telemetry.metrics.dead_letters.with_label_values(&[reason]).inc();
        if *is_copy {
            tracing::debug!(reason, connector, error, "a copy of a refused request was stored");
        } else if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.dead_letters) {
            tracing::warn!(reason, connector, error, suppressed, "a delivery was moved to the dead letters");
        }
    }
}

/// A delivery could not be moved to the dead letters.
#[derive(Debug)]
pub struct DeadLetterFailed<'a> {
    /// The code of the dead letter's reason.
    pub reason: &'static str,
    /// Why the dead letter could not be stored.
    pub error: &'a str,
}

impl InternalEvent for DeadLetterFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { reason, error } = self;
        telemetry.metrics.dead_letters_failed.with_label_values(&[reason]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.failures) {
            tracing::error!(reason, error, suppressed, "a delivery could not be moved to the dead letters");
        }
    }
}

//! Internal events of the key sets of issuers.

use super::{InternalEvent, Telemetry};

/// An issuer returned a new key set.
#[derive(Debug)]
pub struct KeysFetched<'a> {
    /// The URL of the issuer, as configured.
    pub issuer: &'a str,
    /// The ids of the keys in the key set.
    pub keys: &'a [&'a str],
}

impl InternalEvent for KeysFetched<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { issuer, keys } = self;
        telemetry.metrics.keys_fetched.inc();
        tracing::info!(issuer, ?keys, "there is a new key set");
    }
}

/// A key set could not be fetched.
#[derive(Debug)]
pub struct KeysFailed<'a> {
    /// The URL of the issuer, as configured.
    pub issuer: &'a str,
    /// Why the key set could not be fetched.
    pub error: &'a str,
}

impl InternalEvent for KeysFailed<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { issuer, error } = self;
        telemetry.metrics.keys_failed.inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.failures) {
            tracing::error!(
                issuer,
                error,
                suppressed,
                "the key set cannot be fetched; the last valid one stays in use"
            );
        }
    }
}

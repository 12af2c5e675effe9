//! What becomes of a changed configuration, with its metrics. The audit, one line for each thing that changed, goes to the
//! log target `audit`.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::metrics::register;
use super::{Happening, Telemetry};

/// What can become of it, as the metric says.
const OUTCOMES: [&str; 5] = ["applied", "unchanged", "invalid", "needs_restart", "refused"];

pub(super) struct ReloadMetrics {
    reloads: IntCounterVec,
    succeeded_at: IntGauge,
    successful: IntGauge,
}

impl ReloadMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let reloads = Opts::new(
            "dt_receiver_config_reloads_total",
            "Times that the configuration was read again, by what became of it.",
        );
        let reloads = register(registry, IntCounterVec::new(reloads, &["outcome"]));
        for outcome in OUTCOMES {
            reloads.with_label_values(&[outcome]);
        }
        let successful = gauge(
            "dt_receiver_config_last_reload_successful",
            "1 if what was read last is in force, 0 if it was not taken.",
        );
        successful.set(1);
        Self {
            reloads,
            succeeded_at: gauge(
                "dt_receiver_config_last_reload_success_timestamp_seconds",
                "When a configuration was taken last, or found unchanged, in Unix seconds.",
            ),
            successful,
        }
    }

    pub(super) fn succeeded(&self, now: i64) {
        self.succeeded_at.set(now);
        self.successful.set(1);
    }
}

/// A configuration was read again, and is in force.
#[derive(Debug)]
pub struct ConfigReloaded<'a> {
    /// Who asked for it, such as `SIGHUP`.
    pub who: &'a str,
    /// How many things are different.
    pub changes: usize,
}

impl Happening for ConfigReloaded<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { who, changes } = self;
        let metrics = &telemetry.metrics.reloads;
        metrics.succeeded(telemetry.clock.unix_seconds());
        if *changes > 0 {
            metrics.reloads.with_label_values(&["applied"]).inc();
            tracing::info!(who, changes, "the changed configuration is in force");
            return;
        }
        metrics.reloads.with_label_values(&["unchanged"]).inc();
        // Signals can come in any number.
        if let Some(suppressed) = telemetry.may_log(&telemetry.reloads) {
            tracing::info!(who, suppressed, "the configuration was read again and has not changed");
        }
    }
}

/// One thing of the configuration is different now.
#[derive(Debug)]
pub struct ConfigChanged<'a> {
    /// Who asked for it.
    pub who: &'a str,
    /// The key's path.
    pub key: &'a str,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// The values before and after; none where they may be secret.
    pub values: Option<(&'a str, &'a str)>,
}

impl Happening for ConfigChanged<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { who, key, change, values } = self;
        let (from, to) = values.unzip();
        tracing::info!(target: "audit", who, key, change, from, to, "the configuration was changed");
    }
}

/// A configuration was read again, and was not taken: the old one stays in force.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    /// Who asked for it.
    pub who: &'a str,
    /// One of the outcomes: `invalid`, `needs_restart`, `refused`.
    pub outcome: &'static str,
    /// Why.
    pub error: &'a str,
}

impl Happening for ConfigRefused<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { who, outcome, error } = self;
        let metrics = &telemetry.metrics.reloads;
        metrics.reloads.with_label_values(&[outcome]).inc();
        metrics.successful.set(0);
        if let Some(suppressed) = telemetry.may_log(&telemetry.reloads) {
            tracing::error!(
                who,
                outcome,
                error,
                suppressed,
                "the configuration was not taken; the old one stays in force"
            );
        }
    }
}

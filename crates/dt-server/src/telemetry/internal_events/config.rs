//! Internal events of reloads of the configuration. The audit, one line for each change, has the log target `audit`.

use super::{InternalEvent, Telemetry};

/// The possible outcomes of a reload, as in the metric.
const OUTCOMES: [&str; 5] = ["applied", "unchanged", "invalid", "needs_restart", "refused"];

/// Registers all outcomes of reloads. The configuration at the start counts as a successful reload.
pub fn register_config_outcomes(telemetry: &Telemetry) {
    for outcome in OUTCOMES {
        telemetry.metrics.config_reloads.with_label_values(&[outcome]);
    }
    set_successful(telemetry);
}

fn set_successful(telemetry: &Telemetry) {
    telemetry.metrics.config_reloaded_at.set(telemetry.clock.unix_seconds() as f64);
    telemetry.metrics.config_reload_successful.set(1.0);
}

/// A configuration was read again, and is active.
#[derive(Debug)]
pub struct ConfigReloaded<'a> {
    /// The cause of the reload, such as `SIGHUP`.
    pub who: &'a str,
    /// The number of settings that changed.
    pub changes: usize,
}

impl InternalEvent for ConfigReloaded<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { who, changes } = self;
        set_successful(telemetry);
        let reloads = &telemetry.metrics.config_reloads;
        if *changes > 0 {
            reloads.with_label_values(&["applied"]).inc();
            tracing::info!(who, changes, "the changed configuration is active");
            return;
        }
        reloads.with_label_values(&["unchanged"]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.reloads) {
            tracing::info!(who, suppressed, "the configuration was read again and has not changed");
        }
    }
}

/// One setting of the configuration changed.
#[derive(Debug)]
pub struct ConfigChanged<'a> {
    /// The cause of the reload, such as `SIGHUP`.
    pub who: &'a str,
    /// The path of the key in the configuration, such as `limits.deadline`.
    pub key: &'a str,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// The values before and after the change; `None` if they may be secret.
    pub values: Option<(&'a str, &'a str)>,
}

impl InternalEvent for ConfigChanged<'_> {
    fn emit(&self, _: &Telemetry) {
        let Self { who, key, change, values } = self;
        let (from, to) = values.unzip();
        tracing::info!(target: "audit", who, key, change, from, to, "the configuration was changed");
    }
}

/// A configuration was read again and refused; the old one stays active.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    /// The cause of the reload, such as `SIGHUP`.
    pub who: &'a str,
    /// The outcome of the reload: `invalid`, `needs_restart` or `refused`.
    pub outcome: &'static str,
    /// Why the configuration was refused.
    pub error: &'a str,
}

impl InternalEvent for ConfigRefused<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { who, outcome, error } = self;
        telemetry.metrics.config_reloads.with_label_values(&[outcome]).inc();
        telemetry.metrics.config_reload_successful.set(0.0);
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.reloads) {
            tracing::error!(
                who,
                outcome,
                error,
                suppressed,
                "the configuration was rejected; the old one stays active"
            );
        }
    }
}

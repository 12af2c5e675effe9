//! Internal events of the server's certificate.

use super::{InternalEvent, Telemetry};

/// A certificate was activated.
#[derive(Debug)]
pub struct CertificateActivated<'a> {
    /// The path of the certificate's file.
    pub path: &'a str,
    /// When the certificate expires, in Unix seconds.
    pub until: i64,
    /// Whether the certificate replaces another one.
    pub is_reloaded: bool,
}

impl InternalEvent for CertificateActivated<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        let Self { path, until, is_reloaded } = self;
        let metrics = &telemetry.metrics;
        metrics.certificate_expiry.with_label_values::<&str>(&[]).set(*until as f64);
        for outcome in ["changed", "failed"] {
            metrics.certificate_reloads.with_label_values(&[outcome]);
        }
        if *is_reloaded {
            metrics.certificate_reloads.with_label_values(&["changed"]).inc();
            tracing::info!(certificate = path, until, "a new certificate is active");
        }
    }
}

/// Changed certificate files are invalid; the old certificate stays active.
#[derive(Debug)]
pub struct CertificateRefused<'a> {
    /// The error, with the path of the file.
    pub error: &'a str,
}

impl InternalEvent for CertificateRefused<'_> {
    fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.certificate_reloads.with_label_values(&["failed"]).inc();
        if let Some(suppressed) = telemetry.may_log(&telemetry.budgets.failures) {
            let error = self.error;
            tracing::error!(error, suppressed, "the certificate was not reloaded; the old one stays active");
        }
    }
}

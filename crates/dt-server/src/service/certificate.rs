//! Activates the certificate when its files change: checks them at an interval and reports the result.
//!
//! Each check opens the files by their names, so they may be rewritten, renamed over, or swapped as a folder behind a symbolic
//! link. While only one of the two files is replaced, the pair does not match: the old certificate stays active, and the next
//! check finds both.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{Sources, SystemSources};
use crate::telemetry::{CertificateActivated, CertificateRefused, Telemetry};
use crate::tls::{Prepared, Reloaded, TlsError, TlsIdentity, TlsSettings};
use dt_sink::clock::Clock;

/// The certificate of the listener, with the telemetry that reports its changes.
#[derive(Debug)]
pub(super) struct Certificate {
    identity: Arc<TlsIdentity>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Notified to check the files at once instead of at the next interval.
    check: Notify,
}

impl Certificate {
    /// Reads the files for the first time.
    pub(super) fn load(
        settings: TlsSettings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, TlsError> {
        let identity = Arc::new(TlsIdentity::load(settings, Arc::new(|path| SystemSources.file(path)))?);
        let (clock, telemetry) = (Arc::clone(clock), Arc::clone(telemetry));
        let this = Self { identity, clock, telemetry, check: Notify::new() };
        this.report_activation(false);
        Ok(this)
    }

    pub(super) fn identity(&self) -> Arc<TlsIdentity> {
        Arc::clone(&self.identity)
    }

    /// Reads the files of new settings, without activating them. Blocks.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the files cannot be read or used.
    pub(super) fn prepare(&self, settings: TlsSettings) -> Result<Prepared, TlsError> {
        self.identity.prepare(settings, self.clock.unix_seconds())
    }

    /// Activates a prepared certificate.
    pub(super) fn activate(&self, prepared: Prepared) {
        self.identity.activate(prepared);
        self.report_activation(true);
    }

    fn report_activation(&self, is_reloaded: bool) {
        let path = self.identity.settings().certificate.display().to_string();
        let until = self.identity.validity().until;
        self.telemetry.emit(&CertificateActivated { path: &path, until, is_reloaded });
    }

    /// Checks the files at the configured interval and at each request of [`check_soon`](Self::check_soon). Never ends.
    pub(super) async fn keep_fresh(&self) {
        let mut reported: Option<String> = None;
        loop {
            let pause = self.identity.settings().check_interval;
            let _timeout = tokio::time::timeout(pause, self.check.notified()).await;
            let (identity, now) = (Arc::clone(&self.identity), self.clock.unix_seconds());
            // Reading blocks. After a panic, which would be a bug, the old certificate stays active.
            let Ok(reloaded) = tokio::task::spawn_blocking(move || identity.reload(now)).await else {
                continue;
            };
            match reloaded {
                Ok(Reloaded::Changed) => {
                    reported = None;
                    self.report_activation(true);
                }
                Ok(Reloaded::Unchanged) => reported = None,
                Err(error) => {
                    // Every check repeats the error; one report is enough.
                    let error = error.to_string();
                    if reported.as_ref() != Some(&error) {
                        self.telemetry.emit(&CertificateRefused { error: &error });
                        reported = Some(error);
                    }
                }
            }
        }
    }

    /// Requests a check of the files now.
    pub(super) fn check_soon(&self) {
        self.check.notify_one();
    }
}

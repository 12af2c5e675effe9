//! Keeps the certificate in force that is in its files: looks at them now and then, and tells what became of it.
//!
//! The files are read through their names each time, so it does not matter how they are replaced: written anew, renamed
//! over, or swapped as a folder behind a symbolic link. When only one of two has been replaced yet, the pair does not
//! match; the old one holds, and the next look sees both.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{Sources, SystemSources};
use crate::telemetry::{CertificateActivated, CertificateRefused, Telemetry};
use crate::tls::{Prepared, Reloaded, TlsError, TlsIdentity, TlsSettings};
use dt_sink::clock::Clock;

/// A certificate with those who are told about it.
#[derive(Debug)]
pub(super) struct Certificate {
    identity: Arc<TlsIdentity>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Somebody wants the files looked at.
    asked: Notify,
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
        let this = Self { identity, clock, telemetry, asked: Notify::new() };
        this.tell_in_force(false);
        Ok(this)
    }

    pub(super) fn identity(&self) -> Arc<TlsIdentity> {
        Arc::clone(&self.identity)
    }

    /// Reads the files of other settings; nothing is put in force. It blocks.
    pub(super) fn prepare(&self, settings: TlsSettings) -> Result<Prepared, TlsError> {
        self.identity.prepare(settings, self.clock.unix_seconds())
    }

    /// Puts in force what was prepared.
    pub(super) fn put(&self, prepared: Prepared) {
        self.identity.activate(prepared);
        self.tell_in_force(true);
    }

    fn tell_in_force(&self, is_reloaded: bool) {
        let path = self.identity.settings().certificate.display().to_string();
        let until = self.identity.validity().until;
        self.telemetry.emit(&CertificateActivated { path: &path, until, is_reloaded });
    }

    /// Looks at the files for ever: now and then, and when it is asked to.
    pub(super) async fn keep_fresh(&self) {
        let mut told: Option<String> = None;
        loop {
            let pause = self.identity.settings().check_interval;
            let _asked = tokio::time::timeout(pause, self.asked.notified()).await;
            let (identity, now) = (Arc::clone(&self.identity), self.clock.unix_seconds());
            // A disk may take its time. A panic in there would be a bug; then the old certificate holds.
            let Ok(reloaded) = tokio::task::spawn_blocking(move || identity.reload(now)).await else {
                continue;
            };
            match reloaded {
                Ok(Reloaded::Changed) => {
                    told = None;
                    self.tell_in_force(true);
                }
                Ok(Reloaded::Unchanged) => told = None,
                Err(error) => {
                    // It is tried again at each look; once is enough to tell.
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        self.telemetry.emit(&CertificateRefused { error: &error });
                        told = Some(error);
                    }
                }
            }
        }
    }

    /// Has the files looked at soon.
    pub(super) fn look_soon(&self) {
        self.asked.notify_one();
    }
}

//! The active certificate, and its replacement while the server runs.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;

use super::load::{Files, Validity};
use super::{ReadFile, TlsError, TlsSettings};
use dt_verify::event::rfc3339_seconds;

/// How long before its expiry a certificate is reported as a problem, in seconds (72 h).
const EXPIRY_WARNING: i64 = 72 * 3600;

/// The result of a reload that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// New handshakes use the new files.
    Changed,
    /// The files have not changed since they were read.
    Unchanged,
}

/// The active certificate, its private key and the CAs for client certificates. A reload replaces all of them at once, for new
/// handshakes.
pub struct TlsIdentity {
    read: ReadFile,
    state: Mutex<State>,
}

/// New settings whose files were read and are valid, but not active yet.
pub struct Prepared(State);

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

struct State {
    settings: TlsSettings,
    files: Files,
    config: Arc<ServerConfig>,
    validity: Validity,
    /// Why the last reload failed; `None` if it succeeded.
    failed: Option<String>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("TlsIdentity")
            .field("settings", &state.settings)
            .field("validity", &state.validity)
            .finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads the files at the start. An expired certificate, or one that is not valid yet, is accepted, since no other
    /// certificate is available; [`problem`](Self::problem) reports it.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] if the files cannot be used.
    pub fn load(settings: TlsSettings, read: ReadFile) -> Result<Self, TlsError> {
        let files = Files::read(&settings, &*read)?;
        let (config, validity) = files.load()?;
        let state = State { settings, files, config, validity, failed: None };
        Ok(Self { read, state: Mutex::new(state) })
    }

    /// Returns the configuration for a new handshake.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state.lock().config)
    }

    /// Returns the active settings.
    #[must_use]
    pub fn settings(&self) -> TlsSettings {
        self.state.lock().settings.clone()
    }

    /// Returns the validity of the active certificate.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.state.lock().validity
    }

    /// Reads the files again, and activates them if they are valid at `now`, in Unix seconds. Reading files may block.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] if the files cannot be used. In this case, the old certificate stays active, and
    /// [`problem`](Self::problem) reports the error until a reload succeeds.
    pub fn reload(&self, now: i64) -> Result<Reloaded, TlsError> {
        let settings = self.settings();
        // Without the lock, so that handshakes do not wait for files.
        let read = Files::read(&settings, &*self.read);
        let mut state = self.state.lock();
        if state.settings != settings {
            // Other settings were activated meanwhile.
            return Ok(Reloaded::Unchanged);
        }
        let loaded = read.and_then(|files| {
            if files == state.files {
                return Ok(None);
            }
            let (config, validity) = files.load()?;
            validity.check(&settings.certificate, now)?;
            Ok(Some((files, config, validity)))
        });
        match loaded {
            Ok(None) => {
                state.failed = None;
                Ok(Reloaded::Unchanged)
            }
            Ok(Some((files, config, validity))) => {
                *state = State { settings, files, config, validity, failed: None };
                Ok(Reloaded::Changed)
            }
            Err(error) => {
                state.failed = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Reads the files of new settings, which must be valid at `now`, in Unix seconds, without activating them. Reading files may
    /// block.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] if the files cannot be used. [`problem`](Self::problem) does not report this error.
    pub fn prepare(&self, settings: TlsSettings, now: i64) -> Result<Prepared, TlsError> {
        let files = Files::read(&settings, &*self.read)?;
        let (config, validity) = files.load()?;
        validity.check(&settings.certificate, now)?;
        Ok(Prepared(State { settings, files, config, validity, failed: None }))
    }

    /// Activates settings that were prepared with [`prepare`](Self::prepare).
    pub fn activate(&self, prepared: Prepared) {
        let before = std::mem::replace(&mut *self.state.lock(), prepared.0);
        // After the lock is released.
        drop(before);
    }

    /// Returns the problem of the certificate at `now`, in Unix seconds: the last reload failed, or the certificate has expired
    /// or will expire within 72 h. `None` if there is no problem.
    #[must_use]
    pub fn problem(&self, now: i64) -> Option<String> {
        let state = self.state.lock();
        let path = state.settings.certificate.display();
        let until = state.validity.until;
        if let Some(failed) = &state.failed {
            return Some(format!(
                "certificate not reloaded, the old one (until {}) stays active: {failed}",
                rfc3339_seconds(until)
            ));
        }
        if let Err(error) = state.validity.check(&state.settings.certificate, now) {
            return Some(format!("certificate: {error}"));
        }
        (until.saturating_sub(now) <= EXPIRY_WARNING)
            .then(|| format!("certificate: {path}: ends at {}; renew it", rfc3339_seconds(until)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;

    use super::*;

    /// The day on which the certificates of these tests begin, and that on which they end, in Unix seconds.
    const BEGIN: i64 = 1_735_689_600;
    const END: i64 = BEGIN + 90 * 24 * 3600;

    /// Files that are only here.
    type Disk = Arc<Mutex<HashMap<String, Vec<u8>>>>;

    fn write(disk: &Disk) {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2025, 4, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        disk.lock().insert("cert".to_owned(), certificate.pem().into_bytes());
        disk.lock().insert("key".to_owned(), key.serialize_pem().into_bytes());
    }

    fn identity() -> (TlsIdentity, Disk) {
        let disk = Disk::default();
        write(&disk);
        let files = Arc::clone(&disk);
        let read: ReadFile = Arc::new(move |path| {
            files.lock().get(&path.display().to_string()).cloned().ok_or(io::ErrorKind::NotFound.into())
        });
        (TlsIdentity::load(TlsSettings::new("cert", "key"), read).expect("a good pair"), disk)
    }

    #[test]
    fn an_invalid_certificate_and_the_last_72_hours_are_reported() {
        let (identity, _) = identity();
        let validity = identity.validity();
        assert_eq!((validity.from, validity.until), (BEGIN, END));
        for (now, words) in [
            (BEGIN - 1, Some("certificate: cert: the certificate is not valid before 2025-01-01T00:00:00Z")),
            (BEGIN, None),
            (END - EXPIRY_WARNING - 1, None),
            (END - EXPIRY_WARNING, Some("certificate: cert: ends at 2025-04-01T00:00:00Z; renew it")),
            (END, Some("ends at")),
            (END + 1, Some("expired at 2025-04-01T00:00:00Z")),
            (i64::MAX, Some("expired")),
            (i64::MIN, Some("not valid before")),
        ] {
            match (identity.problem(now), words) {
                (None, None) => {}
                (Some(problem), Some(words)) => assert!(problem.contains(words), "{now}: {problem}"),
                (problem, words) => panic!("at {now}: {problem:?}, not {words:?}"),
            }
        }
    }

    #[test]
    fn only_changed_and_valid_files_are_activated() {
        let (identity, disk) = identity();
        let first = identity.server_config();
        assert_eq!(identity.reload(BEGIN).expect("as before"), Reloaded::Unchanged);
        // Also if the active certificate has expired, since the files are the same.
        assert_eq!(identity.reload(END + 1).expect("as before"), Reloaded::Unchanged);
        assert!(Arc::ptr_eq(&first, &identity.server_config()));
        write(&disk);
        assert!(matches!(identity.reload(END + 1), Err(TlsError::Expired { .. })));
        assert!(matches!(identity.reload(BEGIN - 1), Err(TlsError::NotYetValid { .. })));
        assert!(Arc::ptr_eq(&first, &identity.server_config()), "the old one stays active");
        assert!(identity.problem(BEGIN).is_some_and(|problem| problem.contains("not valid before")));
        // A clock that was wrong is right again.
        assert_eq!(identity.reload(BEGIN).expect("good"), Reloaded::Changed);
        assert!(!Arc::ptr_eq(&first, &identity.server_config()));
        assert_eq!(identity.problem(BEGIN), None);
    }

    #[test]
    fn other_settings_are_activated_only_if_they_are_valid() {
        let (identity, disk) = identity();
        let bad = TlsSettings::new("elsewhere", "key");
        assert!(matches!(identity.prepare(bad, BEGIN), Err(TlsError::Unreadable { .. })));
        assert_eq!(identity.settings(), TlsSettings::new("cert", "key"));
        for name in ["cert", "key"] {
            let content = disk.lock().get(name).cloned().expect("there");
            disk.lock().insert(format!("other-{name}"), content);
        }
        let good = TlsSettings::new("other-cert", "other-key");
        let prepared = identity.prepare(good.clone(), BEGIN).expect("good");
        assert_eq!(identity.settings(), TlsSettings::new("cert", "key"), "nothing is active yet");
        identity.activate(prepared);
        assert_eq!(identity.settings(), good);
    }
}

//! What is in force, and how it is swapped.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;

use super::load::{Files, Validity};
use super::{ReadFile, TlsError, TlsSettings};
use dt_verify::event::rfc3339_seconds;

/// How long before its end a certificate is something to talk about, in seconds: 72 h.
const SOON: i64 = 72 * 3600;

/// What a reload came to, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// What was read is now in force for new handshakes.
    Changed,
    /// It was in force already.
    Unchanged,
}

/// The certificate, its key and the clients' CAs that are in force. All of them change at once, for new handshakes.
pub struct TlsIdentity {
    read: ReadFile,
    state: Mutex<State>,
}

/// What was read of other settings, and is good.
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
    /// Why the last reload failed.
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
    /// Reads the files for the first time. A certificate whose time is over, or has not come, is taken: there is no
    /// better one, and the service has more to do than to be reached. [`problem`](Self::problem) tells.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the files cannot be used.
    pub fn load(settings: TlsSettings, read: ReadFile) -> Result<Self, TlsError> {
        let files = Files::read(&settings, &*read)?;
        let (config, validity) = files.load()?;
        let state = State { settings, files, config, validity, failed: None };
        Ok(Self { read, state: Mutex::new(state) })
    }

    /// What a handshake that begins now has to use.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state.lock().config)
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> TlsSettings {
        self.state.lock().settings.clone()
    }

    /// The time for which the certificate in force is good.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.state.lock().validity
    }

    /// Reads the files again and puts them in force if they are good at `now`, in Unix seconds. It reads files, so it
    /// may block.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; then what was in force stays so, and [`problem`](Self::problem) tells until a reload goes well.
    pub fn reload(&self, now: i64) -> Result<Reloaded, TlsError> {
        let settings = self.settings();
        // Handshakes go on while files are read.
        let read = Files::read(&settings, &*self.read);
        let mut state = self.state.lock();
        if state.settings != settings {
            // Others were put in force meanwhile.
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

    /// Reads the files of other settings, which must be good at `now`, without putting anything in force. It may block.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; nothing is changed, and nothing is told by [`problem`](Self::problem).
    pub fn prepare(&self, settings: TlsSettings, now: i64) -> Result<Prepared, TlsError> {
        let files = Files::read(&settings, &*self.read)?;
        let (config, validity) = files.load()?;
        validity.check(&settings.certificate, now)?;
        Ok(Prepared(State { settings, files, config, validity, failed: None }))
    }

    /// Puts in force what was prepared.
    pub fn put(&self, prepared: Prepared) {
        let before = std::mem::replace(&mut *self.state.lock(), prepared.0);
        // Outside of the lock.
        drop(before);
    }

    /// What an operator has to know at `now`: the last reload failed, or the certificate's time is over or nearly so.
    #[must_use]
    pub fn problem(&self, now: i64) -> Option<String> {
        let state = self.state.lock();
        let path = state.settings.certificate.display();
        let until = state.validity.until;
        if let Some(failed) = &state.failed {
            return Some(format!(
                "certificate not reloaded, the old one (until {}) is in force: {failed}",
                rfc3339_seconds(until)
            ));
        }
        if let Err(error) = state.validity.check(&state.settings.certificate, now) {
            return Some(format!("certificate: {error}"));
        }
        (until.saturating_sub(now) <= SOON)
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
    fn the_last_72_hours_and_what_is_out_of_its_time_are_told() {
        let (identity, _) = identity();
        let validity = identity.validity();
        assert_eq!((validity.from, validity.until), (BEGIN, END));
        for (now, words) in [
            (BEGIN - 1, Some("certificate: cert: the certificate is not valid before 2025-01-01T00:00:00Z")),
            (BEGIN, None),
            (END - SOON - 1, None),
            (END - SOON, Some("certificate: cert: ends at 2025-04-01T00:00:00Z; renew it")),
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
    fn only_what_changed_and_is_good_now_is_put_in_force() {
        let (identity, disk) = identity();
        let first = identity.server_config();
        assert_eq!(identity.reload(BEGIN).expect("as before"), Reloaded::Unchanged);
        // Even where it would not be taken any more: it is in force, and there is no other.
        assert_eq!(identity.reload(END + 1).expect("as before"), Reloaded::Unchanged);
        assert!(Arc::ptr_eq(&first, &identity.server_config()));
        write(&disk);
        assert!(matches!(identity.reload(END + 1), Err(TlsError::Expired { .. })));
        assert!(matches!(identity.reload(BEGIN - 1), Err(TlsError::NotYetValid { .. })));
        assert!(Arc::ptr_eq(&first, &identity.server_config()), "the old one is in force");
        assert!(identity.problem(BEGIN).is_some_and(|problem| problem.contains("not valid before")));
        // A clock that was wrong is right again.
        assert_eq!(identity.reload(BEGIN).expect("good"), Reloaded::Changed);
        assert!(!Arc::ptr_eq(&first, &identity.server_config()));
        assert_eq!(identity.problem(BEGIN), None);
    }

    #[test]
    fn other_settings_hold_only_if_they_are_good() {
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
        assert_eq!(identity.settings(), TlsSettings::new("cert", "key"), "nothing is in force yet");
        identity.put(prepared);
        assert_eq!(identity.settings(), good);
    }
}

//! Where secrets come from: environment variables and files, through a trait so that tests and fuzzers need neither.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dt_sink::clock::{Clock, SystemClock};
use dt_verify::Secret;

/// The largest file that is read for a secret or a key set.
const MAX_FILE: u64 = 1024 * 1024;

/// The outside world, as far as a configuration needs it.
pub trait Sources {
    /// The value of an environment variable.
    fn env(&self, name: &str) -> Option<OsString>;

    /// The content of a file, at most 1 MiB.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The content of a file of `[tls]`, at most 1 MiB. Whoever runs a service keeps an eye on these by other means.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path)
    }

    /// Whether the files of `[tls]` are looked at, and what is wrong with them is an error.
    fn looks_at_certificates(&self) -> bool {
        true
    }

    /// Whether secrets and keys are read. Without them, a configuration can say where things are, and nothing else: stand-ins
    /// take their place.
    fn reads_secrets(&self) -> bool {
        true
    }

    /// Whether everybody on this machine may read a file.
    fn is_world_readable(&self, _path: &Path) -> bool {
        false
    }

    /// Now, in Unix seconds; `None` where it shall not matter.
    fn unix_seconds(&self) -> Option<i64> {
        None
    }
}

/// This process's environment and file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSources;

impl Sources for SystemSources {
    fn env(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE.saturating_add(1)).read_to_end(&mut content)?;
        if u64::try_from(content.len()).is_ok_and(|len| len > MAX_FILE) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(content)
    }

    fn is_world_readable(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }

    fn unix_seconds(&self) -> Option<i64> {
        Some(SystemClock.unix_seconds())
    }
}

/// Sources without secrets and keys, for those who look at what a service has stored: they have neither its environment nor
/// its credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct WithoutSecrets<S>(pub S);

impl<S: Sources> Sources for WithoutSecrets<S> {
    fn env(&self, name: &str) -> Option<OsString> {
        self.0.env(name)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.file(path)
    }

    fn looks_at_certificates(&self) -> bool {
        false
    }

    fn reads_secrets(&self) -> bool {
        false
    }
}

/// A secret could not be had. The secret itself is never shown.
#[derive(Debug)]
pub struct SecretError(String);

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SecretError {}

/// Reads a secret from an environment variable (as it stands) or a file (without the line end that editors add).
/// The second value is what looks odd about it.
///
/// # Errors
///
/// [`SecretError`] when the variable is not set, the file cannot be read, or there is nothing in it.
pub fn read_secret(
    source: &super::SecretSource,
    sources: &dyn Sources,
) -> Result<(Secret, Option<String>), SecretError> {
    let bytes = match source {
        super::SecretSource::Env(name) => match sources.env(name) {
            Some(value) => value.into_encoded_bytes(),
            None => return Err(SecretError(format!("{source} is not set"))),
        },
        super::SecretSource::File(path) => match sources.file(path) {
            Ok(mut content) => {
                if content.last() == Some(&b'\n') {
                    content.pop();
                    if content.last() == Some(&b'\r') {
                        content.pop();
                    }
                }
                content
            }
            Err(error) => return Err(SecretError(format!("{source}: {error}"))),
        },
    };
    let odd = (bytes.trim_ascii().len() != bytes.len())
        .then(|| format!("the secret in {source} begins or ends with white space; is that meant?"));
    match Secret::new(bytes) {
        Ok(secret) => Ok((secret, odd)),
        Err(_) => Err(SecretError(format!("{source} is empty"))),
    }
}

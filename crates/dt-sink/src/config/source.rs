//! Where a configuration reads secrets and files: environment variables and paths, through a trait so that tests and
//! fuzzers need neither.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::clock::{Clock, SystemClock};

/// The largest file that is read for a secret or a key set.
const MAX_FILE: u64 = 1024 * 1024;

/// The outside world, as far as a configuration needs it.
pub trait Sources {
    /// Returns the value of an environment variable; `None` if it is not set.
    fn env(&self, name: &str) -> Option<OsString>;

    /// Returns the content of a file, at most 1 MiB.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns the content of a file of `[tls]`, at most 1 MiB. A running service watches these by other means.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path)
    }

    /// Returns whether the files of `[tls]` are looked at, and what is wrong with them is an error.
    fn looks_at_certificates(&self) -> bool {
        true
    }

    /// Returns whether secrets and keys are read. Without them, a configuration can say where things are, and nothing else:
    /// stand-ins take their place.
    fn reads_secrets(&self) -> bool {
        true
    }

    /// Returns whether everybody on this machine may read a file.
    fn is_world_readable(&self, _path: &Path) -> bool {
        false
    }

    /// Returns the current time, in Unix seconds; `None` where it shall not matter.
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

//! The source from which a configuration reads secrets and files. It is a trait, so that tests and fuzzers need no environment
//! variables and no files.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::clock::{Clock, SystemClock};

/// The largest size of a file that is read for a secret or a key set, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Provides the environment variables, the files and the time that a configuration needs.
pub trait Sources {
    /// Returns the value of an environment variable; `None` if it is not set.
    fn env(&self, name: &str) -> Option<OsString>;

    /// Returns the content of a file, at most 1 MiB.
    ///
    /// # Errors
    ///
    /// The error of the operating system, or [`io::ErrorKind::FileTooLarge`].
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns the content of a file that `[tls]` names, at most 1 MiB. The default is [`file`](Self::file). A running service
    /// overrides it, since it watches these files by other means.
    ///
    /// # Errors
    ///
    /// The error of the operating system, or [`io::ErrorKind::FileTooLarge`].
    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path)
    }

    /// Returns whether the files that `[tls]` names are read and checked, so that an unusable one is an error. The default is
    /// `true`.
    fn looks_at_certificates(&self) -> bool {
        true
    }

    /// Returns whether secrets and keys are read. If not, stand-ins take their place, and the configuration serves only for its
    /// other values, such as paths. The default is `true`.
    fn reads_secrets(&self) -> bool {
        true
    }

    /// Returns whether all users of this machine may read a file. The default is `false`.
    fn is_world_readable(&self, _path: &Path) -> bool {
        false
    }

    /// Returns the current time in Unix seconds, or `None` if results must not depend on it. The default is `None`.
    fn unix_seconds(&self) -> Option<i64> {
        None
    }
}

/// The environment and the file system of this process.
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

//! Reads, checks and replaces TLS certificates while the server runs.
//!
//! [`TlsSettings`] are the names of files in a configuration. [`TlsIdentity`] is made from the files and used for new
//! handshakes; open connections keep the certificate with which they began. A certificate that cannot be used never replaces
//! an older one. This module does no I/O and reads no clock: a function reads the files, and the time is an argument.

mod error;
mod identity;
mod load;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dt_sink::config::{Section, config_keys, custom, duration, word};

pub use error::TlsError;
pub use identity::{Prepared, Reloaded, TlsIdentity};
pub use load::{Validity, problems};

/// A function that reads a whole file of limited size.
pub type ReadFile = Arc<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

config_keys! {
    /// The files of the certificate and its key, and the requirements for clients.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct TlsSettings {
        needed {
            /// The certificate with its chain (PEM).
            certificate: PathBuf = custom("path", read_path)
                .needed("is missing; name the file of the certificate with its chain, in PEM")
                .sample("\"/etc/dt-receiver/fullchain.pem\""),
            /// Its private key (PEM).
            key: PathBuf = custom("path", read_path)
                .needed("is missing; name the file of the certificate's private key, in PEM")
                .sample("\"/etc/dt-receiver/privkey.pem\""),
        }
        /// The certificate authorities of client certificates (PEM). With it, clients without a certificate are
        /// refused.
        client_ca: Option<PathBuf> = custom("path", read_path)
            .or_none("clients need none")
            .sample("\"/etc/dt-receiver/clients.pem\""),
        /// The oldest TLS version that is accepted.
        min_version: TlsVersion = word(&["1.2", "1.3"]).or(TlsVersion::Tls12),
        /// How often the files are checked for changes.
        check_interval: Duration = duration(Duration::from_millis(10)..=Duration::from_secs(3600)).or(Duration::from_secs(5)),
    }
}

/// Reads a path. Error messages do not contain the value, which may be a private key by mistake.
fn read_path(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    let path = section.private_string(key)?;
    if path.is_empty() || path.contains(char::is_control) {
        section.complain(key, "is not a path; expected the path of a file in PEM");
        return None;
    }
    Some(PathBuf::from(path))
}

impl TlsSettings {
    /// Creates settings for TLS 1.2 or newer, without client certificates.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::with_defaults(certificate.into(), key.into())
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl FromStr for TlsVersion {
    type Err = UnknownTlsVersion;

    fn from_str(text: &str) -> Result<Self, UnknownTlsVersion> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(UnknownTlsVersion),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

/// The error for a text that is not a supported version of TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown version; expected 1.2 or 1.3")]
pub struct UnknownTlsVersion;

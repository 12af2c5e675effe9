//! TLS certificates: read, checked, and swapped while the server runs.
//!
//! [`TlsSettings`] are the names of files, as a configuration has them. [`TlsIdentity`] is what was made of the files
//! and is in force for new handshakes; connections that are open keep what they began with. A pair that is not good is
//! never put in force while there is an older one. Files are read through a function and the time is an argument, so
//! this module touches neither.

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

/// Reads a whole file, of bounded size.
pub type ReadFile = Arc<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

config_keys! {
    /// Which files hold the certificate, and what is asked of clients.
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

/// Reads a path. A key itself may stand there by mistake; it is not shown.
fn read_path(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    let path = section.private_string(key)?;
    if path.is_empty() || path.contains(char::is_control) {
        section.complain(key, "is no path; allowed is the path of a file in PEM");
        return None;
    }
    Some(PathBuf::from(path))
}

impl TlsSettings {
    /// The settings with TLS 1.2 or newer and no certificates of clients.
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

/// Not a version of TLS that can be spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown version; allowed are 1.2, 1.3")]
pub struct UnknownTlsVersion;

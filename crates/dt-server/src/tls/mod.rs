//! TLS certificates: read, checked, and swapped while the server runs.
//!
//! [`TlsSettings`] are the names of files, as a configuration has them. [`TlsIdentity`] is what was made of the files
//! and is in force for new handshakes; connections that are open keep what they began with. A pair that is not good is
//! never put in force while there is an older one. Files are read through a function and the time is an argument, so
//! this module touches neither.

mod error;
mod identity;
mod load;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use error::TlsError;
pub use identity::{Prepared, Reloaded, TlsIdentity};
pub use load::{Validity, problems};

/// Reads a whole file, of bounded size.
pub type ReadFile = Arc<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

/// How often the files are looked at, unless set.
pub const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Which files hold the certificate, and what is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSettings {
    /// The certificate and the chain up to its issuer, in PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, in PEM.
    pub key: PathBuf,
    /// The CAs that sign the certificates of clients, in PEM; with it, clients without one are refused.
    pub client_ca: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How often the files are looked at.
    pub check_interval: Duration,
}

impl TlsSettings {
    /// The settings with TLS 1.2 or newer and no certificates of clients.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: None,
            min_version: TlsVersion::Tls12,
            check_interval: DEFAULT_CHECK_INTERVAL,
        }
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

/// Not a version of TLS that can be spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown version; allowed are 1.2, 1.3")]
pub struct UnknownTlsVersion;

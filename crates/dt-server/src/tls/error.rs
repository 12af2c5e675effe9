//! Why a certificate cannot be used: what is wrong with which file, and what to do.

use std::io;
use std::path::PathBuf;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{path}: not PEM: {text}")]
    NotPem {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A file has no certificate.
    #[error("{path}: there is no certificate in it; expected \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be understood.
    #[error("{path}: certificate {number} cannot be used: {text}")]
    BadCertificate {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Which one of the file, from 1.
        number: usize,
        /// What is wrong.
        text: String,
    },
    /// The key's file has no key.
    #[error("{path}: there is no private key in it; expected \"-----BEGIN PRIVATE KEY-----\"")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted.
    #[error("{path}: the private key is encrypted; decrypt it with `openssl pkey -in FILE -out PLAIN`")]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key cannot be understood.
    #[error("{path}: the private key cannot be used: {text}")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The key is not that of the certificate.
    #[error("{key}: is not the private key of the certificate in {certificate}")]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("{path}: the certificate expired at {at}; renew it")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When, as RFC 3339.
        at: String,
    },
    /// The certificate's time has not come.
    #[error("{path}: the certificate is not valid before {at}; is the clock right?")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When, as RFC 3339.
        at: String,
    },
    /// The TLS library refuses the versions of TLS that are asked for.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

impl TlsError {
    /// The key in `[tls]` whose value is at fault.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. }
            | Self::NotPem { key, .. }
            | Self::NoCertificate { key, .. }
            | Self::BadCertificate { key, .. } => key,
            Self::NoKey { .. }
            | Self::EncryptedKey { .. }
            | Self::BadKey { .. }
            | Self::KeyMismatch { .. } => "key",
            Self::Expired { .. } | Self::NotYetValid { .. } | Self::Unusable(_) => "certificate",
        }
    }
}

//! The errors of certificates and keys, with the file and the remedy.

use std::io;
use std::path::PathBuf;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The key in the configuration that names the file.
        key: &'static str,
        /// The path of the file that cannot be read.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A PEM file is damaged: a begin or end line is wrong or missing, or the content is not base64. A file without any PEM is
    /// [`NoCertificate`](Self::NoCertificate) or [`NoKey`](Self::NoKey).
    #[error("{path}: damaged PEM: {text}")]
    NotPem {
        /// The key in the configuration that names the file.
        key: &'static str,
        /// The damaged file.
        path: PathBuf,
        /// The violation of the PEM format.
        text: String,
    },
    /// A file contains no certificate.
    #[error("{path}: there is no certificate in it; expected \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate {
        /// The key in the configuration that names the file.
        key: &'static str,
        /// The path of the file without a certificate.
        path: PathBuf,
    },
    /// A certificate is malformed, or unusable.
    #[error("{path}: certificate {number} cannot be used: {text}")]
    BadCertificate {
        /// The key in the configuration that names the file.
        key: &'static str,
        /// The path of the file that contains the certificate.
        path: PathBuf,
        /// The number of the certificate in the file, from 1.
        number: usize,
        /// Why the certificate cannot be used.
        text: String,
    },
    /// The file for the private key contains no private key.
    #[error("{path}: there is no private key in it; expected \"-----BEGIN PRIVATE KEY-----\"")]
    NoKey {
        /// The path of the file that should contain the private key.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error("{path}: the private key is encrypted; decrypt it with `openssl pkey -in FILE -out PLAIN`")]
    EncryptedKey {
        /// The path of the private key's file.
        path: PathBuf,
    },
    /// The private key is malformed, or unusable.
    #[error("{path}: the private key cannot be used: {text}")]
    BadKey {
        /// The path of the private key's file.
        path: PathBuf,
        /// Why the private key cannot be used.
        text: String,
    },
    /// The private key does not belong to the certificate.
    #[error("{key}: is not the private key of the certificate in {certificate}")]
    KeyMismatch {
        /// The path of the certificate's file.
        certificate: PathBuf,
        /// The path of the private key's file.
        key: PathBuf,
    },
    /// The certificate has expired.
    #[error("{path}: the certificate expired at {at}; renew it")]
    Expired {
        /// The path of the certificate's file.
        path: PathBuf,
        /// When the certificate expired, in RFC 3339.
        at: String,
    },
    /// The certificate is not valid yet.
    #[error("{path}: the certificate is not valid before {at}; is the clock right?")]
    NotYetValid {
        /// The path of the certificate's file.
        path: PathBuf,
        /// When the certificate becomes valid, in RFC 3339.
        at: String,
    },
    /// The TLS library does not support the configured versions of TLS.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

impl TlsError {
    /// Returns the key in `[tls]` whose value causes the error.
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

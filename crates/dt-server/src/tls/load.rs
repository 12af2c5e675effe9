//! Reads and checks certificates and keys, and makes the configuration of handshakes from them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use super::{TlsError, TlsSettings, TlsVersion};
use dt_verify::event::rfc3339_seconds;

/// The protocols that clients may choose by ALPN, in the order of preference.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The period in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validity {
    /// The first second of the period, in Unix time.
    pub from: i64,
    /// The last second of the period, in Unix time.
    pub until: i64,
}

impl Validity {
    /// Checks that the certificate in the file `path` is valid at `now`, in Unix seconds.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError::NotYetValid`] or [`TlsError::Expired`].
    pub(super) fn check(self, path: &Path, now: i64) -> Result<(), TlsError> {
        let path = path.to_owned();
        if now < self.from {
            return Err(TlsError::NotYetValid { path, at: rfc3339_seconds(self.from) });
        }
        if now > self.until {
            return Err(TlsError::Expired { path, at: rfc3339_seconds(self.until) });
        }
        Ok(())
    }
}

/// The content of the files that the settings name.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    settings: TlsSettings,
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError::Unreadable`] for the first file that cannot be read.
    pub fn read(
        settings: &TlsSettings,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        let file = |key: &'static str, path: &Path| {
            read(path).map_err(|source| TlsError::Unreadable { key, path: path.to_owned(), source })
        };
        Ok(Self {
            certificate: file("certificate", &settings.certificate)?,
            key: file("key", &settings.key)?,
            client_ca: settings.client_ca.as_deref().map(|path| file("client_ca", path)).transpose()?,
            settings: settings.clone(),
        })
    }

    /// Creates the configuration of handshakes. The second value is the validity of the certificate.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] for the first file that cannot be used.
    pub fn load(&self) -> Result<(Arc<ServerConfig>, Validity), TlsError> {
        let provider = provider();
        let TlsSettings { certificate: path, key: key_path, client_ca: ca_path, min_version, .. } =
            &self.settings;
        let chain = certificates("certificate", path, &self.certificate)?;
        let validity = validity("certificate", path, &chain)?;
        let key = private_key(key_path, &self.key)?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::KeyMismatch { certificate: path.clone(), key: key_path.clone() }
            }
            rustls::Error::InvalidCertificate(error) => TlsError::BadCertificate {
                key: "certificate",
                path: path.clone(),
                number: 1,
                text: error.to_string(),
            },
            other => TlsError::BadKey { path: key_path.clone(), text: other.to_string() },
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(*min_version))
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let builder = match (ca_path, &self.client_ca) {
            (Some(path), Some(ca)) => {
                builder.with_client_cert_verifier(client_verifier(path, ca, &provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        Ok((Arc::new(config), validity))
    }
}

/// Checks the files that the settings name, for `config check`. Returns the errors and the warnings. There is a warning if a
/// certificate is not valid at `now`, in Unix seconds; `None` omits this check.
#[must_use]
pub fn problems(
    settings: &TlsSettings,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    now: Option<i64>,
) -> (Vec<TlsError>, Vec<TlsError>) {
    let mut errors: Vec<TlsError> = Vec::new();
    let mut file = |key: &'static str, path: &Path, check: &dyn Fn(&[u8]) -> Result<(), TlsError>| {
        let content =
            read(path).map_err(|source| TlsError::Unreadable { key, path: path.to_owned(), source });
        if let Err(error) = content.and_then(|content| check(&content)) {
            errors.push(error);
        }
    };
    let path = &settings.certificate;
    file("certificate", path, &|content| {
        let chain = certificates("certificate", path, content)?;
        validity("certificate", path, &chain).map(drop)
    });
    file("key", &settings.key, &|content| private_key(&settings.key, content).map(drop));
    if let Some(path) = &settings.client_ca {
        file("client_ca", path, &|content| {
            let provider = provider();
            client_verifier(path, content, &provider).map(drop)
        });
    }
    if !errors.is_empty() {
        return (errors, Vec::new());
    }
    match Files::read(settings, read).and_then(|files| files.load()) {
        Ok((_, validity)) => {
            let warning = now.and_then(|now| validity.check(&settings.certificate, now).err());
            (errors, warning.into_iter().collect())
        }
        Err(error) => (vec![error], Vec::new()),
    }
}

const fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    const NEW: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match least {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &NEW,
    }
}

fn certificates(
    key: &'static str,
    path: &Path,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let found =
        found.map_err(|error| TlsError::NotPem { key, path: path.to_owned(), text: pem_error(&error) })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { key, path: path.to_owned() });
    }
    Ok(found)
}

/// Returns a message for an error in PEM. The library's own message shows the line, which may contain a part of a key.
fn pem_error(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "the line \"-----END …-----\" is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a line \"-----BEGIN …-----\" is damaged".to_owned(),
        pem::Error::Base64Decode(_) => "it is damaged (not base64)".to_owned(),
        _ => "it is damaged".to_owned(),
    }
}

/// Returns the validity of the first certificate of the chain, which is the server's certificate.
fn validity(key: &'static str, path: &Path, chain: &[CertificateDer<'_>]) -> Result<Validity, TlsError> {
    let bad = |text: String| TlsError::BadCertificate { key, path: path.to_owned(), number: 1, text };
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate { key, path: path.to_owned() })?;
    // `Raw` accepts serial numbers that do not conform to RFC 5280.
    let certificate =
        CertificateInner::<Raw>::from_der(first).map_err(|error| bad(format!("not X.509: {error}")))?;
    let seconds =
        |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.tbs_certificate().validity();
    Ok(Validity { from: seconds(validity.not_before), until: seconds(validity.not_after) })
}

fn private_key(path: &Path, content: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let path = path.to_owned();
    if has(content, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(content, b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey { path });
    }
    PrivateKeyDer::from_pem_slice(content).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path },
        other => TlsError::NotPem { key: "key", path, text: pem_error(&other) },
    })
}

fn has(content: &[u8], text: &[u8]) -> bool {
    content.windows(text.len()).any(|window| window == text)
}

fn client_verifier(
    path: &Path,
    content: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let bad = |number: usize, text: String| TlsError::BadCertificate {
        key: "client_ca",
        path: path.to_owned(),
        number,
        text,
    };
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates("client_ca", path, content)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| bad(index.saturating_add(1), error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| bad(1, error.to_string()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

//! TLS to the target: whose certificates are trusted, and the client certificate.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use dt_sink::config::{Section, Table, config_keys, path};
use dt_verify::Secret;

use crate::tables::TableEntry;

/// The TLS settings for connections to the target: the content of the files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HttpTls {
    /// The trusted certificate authorities (PEM); `None` for Mozilla's list.
    pub ca: Option<Vec<u8>>,
    /// The client certificate (PEM) and its private key (PEM).
    pub client: Option<(Vec<u8>, Secret)>,
}

/// Why the files of `tls` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTls {
    /// The file of `ca`.
    #[error("{0}")]
    Ca(String),
    /// The file of `certificate`.
    #[error("{0}")]
    Certificate(String),
    /// The file of `key`.
    #[error("{0}")]
    Key(String),
    /// The TLS library does not accept its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Library(String),
}

impl BadTls {
    /// Returns the key that names the file.
    const fn key(&self) -> &'static str {
        match self {
            Self::Ca(_) => "ca",
            Self::Key(_) => "key",
            Self::Certificate(_) | Self::Library(_) => "certificate",
        }
    }
}

impl HttpTls {
    /// Makes the configuration of handshakes. The target's certificate chain and its host name are always verified.
    ///
    /// # Errors
    ///
    /// [`BadTls`] for the first file that cannot be used.
    pub fn client_config(&self) -> Result<ClientConfig, BadTls> {
        let roots = match &self.ca {
            Some(pem) => authorities(pem)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| BadTls::Library(error.to_string()))?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate).map_err(BadTls::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| {
            BadTls::Key("has no private key; expected \"-----BEGIN PRIVATE KEY-----\"".to_owned())
        })?;
        builder.with_client_auth_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                BadTls::Key("is not the private key of `certificate`".to_owned())
            }
            rustls::Error::InvalidCertificate(error) => BadTls::Certificate(error.to_string()),
            other => BadTls::Key(other.to_string()),
        })
    }
}

/// Reads certificates of a PEM file, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err("has no certificate; expected \"-----BEGIN CERTIFICATE-----\"".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is not PEM: {error}")),
    }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, BadTls> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(BadTls::Ca)? {
        roots.add(certificate).map_err(|error| BadTls::Ca(error.to_string()))?;
    }
    Ok(roots)
}

config_keys! {
    /// The keys of `[sink.tls]`.
    struct TlsKeys {
        /// The certificate authorities of the target's certificate (PEM).
        ca: Option<PathBuf> = path("path").or_none("Mozilla's list").sample("\"/etc/dt-receiver/http-ca.pem\""),
        /// The client certificate (PEM), with `key`.
        certificate: Option<PathBuf> = path("path").or_none("").sample("\"/etc/dt-receiver/http.pem\""),
        /// The private key of the client certificate (PEM).
        key: Option<PathBuf> = path("path").or_none("").sample("\"/etc/dt-receiver/http.key\""),
    }
}

/// Returns the entry of the table `tls`.
pub const fn entry() -> TableEntry<Option<HttpTls>> {
    TableEntry {
        read,
        tables: |field, meaning| vec![Table::new(format!("[{field}]"), meaning, TlsKeys::rows())],
    }
}

fn read(mut section: Section<'_>) -> Option<Option<HttpTls>> {
    let keys = TlsKeys::read_keys(&mut section)?;
    let mut is_complete = true;
    if keys.certificate.is_some() != keys.key.is_some() {
        let missing = if keys.certificate.is_some() { "key" } else { "certificate" };
        section.complain(missing, "is missing; a client certificate needs both `certificate` and `key`");
        is_complete = false;
    }
    let mut content = |key: &str, path: Option<PathBuf>| -> Option<Vec<u8>> {
        let path = path.filter(|_| section.sources().reads_secrets())?;
        let read = section.sources().file(&path);
        let wrong = |error| section.complain(key, format!("{}: {error}", path.display()));
        let read = read.map_err(wrong).ok();
        is_complete &= read.is_some();
        read
    };
    let ca = content("ca", keys.ca);
    let certificate = content("certificate", keys.certificate);
    let key = content("key", keys.key).and_then(|key| Secret::new(key).ok());
    let tls = HttpTls { ca, client: certificate.zip(key) };
    // During a reload the pair of files may be half replaced; the new sink reports it then, and the old one stays in use.
    let is_checked = section.sources().looks_at_certificates() && section.sources().reads_secrets();
    if let (true, Err(error)) = (is_complete && is_checked, tls.client_config()) {
        section.complain(error.key(), error.to_string());
        is_complete = false;
    }
    section.finish();
    // Without them the sink would trust others, so an unreadable file makes the whole sink invalid.
    is_complete.then_some(Some(tls))
}

//! TLS connections to the receiver: the trusted certificate authorities, and the handshake.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::{Failure, read_input, usage};
use super::client::{SendError, SendErrorKind};

/// The configuration of TLS connections to the receiver.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Creates a configuration that trusts the authorities in a PEM file or, without a file, the public ones of Mozilla's list.
    pub fn new(host: &str, ca: Option<&Path>) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| usage("--url: the host is not a name that a certificate can have"))?;
        let roots = match ca {
            Some(path) => authorities(path)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(anyhow::Error::from)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // The only protocol of `send`.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), name })
    }

    /// Makes the TLS handshake on a new connection.
    pub async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, SendError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(self.name.clone(), stream).await;
        connected.map_err(|error| SendError::new(SendErrorKind::Tls, error.to_string()))
    }
}

/// Reads the certificate authorities in a PEM file.
fn authorities(path: &Path) -> Result<RootCertStore, Failure> {
    let bad = |why: String| usage(format!("--ca: {}: {why}", path.display()));
    let pem = read_input(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(
            bad("the file has no certificate; expected \"-----BEGIN CERTIFICATE-----\"".to_owned()),
        );
    }
    Ok(roots)
}

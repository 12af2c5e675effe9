//! TLS connections of sinks to a server, by rustls: the trusted certificate authorities, and the client certificate.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{BadTlsFile, ClientTls, PemFile, TlsEntry};

/// The default certificate authorities, in words for the reference.
const MOZILLA: &str = "those of Mozilla";

/// Returns the entry of a table `tls` whose files are checked by rustls. `certificate` names the certificate that `ca` verifies,
/// `sample` is the prefix of the file names in the sample.
#[must_use]
pub const fn entry(certificate: &'static str, sample: &'static str) -> TlsEntry {
    TlsEntry { certificate, default_ca: MOZILLA, sample, check: |tls| client_config(tls).map(|_| ()) }
}

/// Creates the configuration of TLS handshakes. The certificate chain and the host name of the server are always verified.
/// Without `ca`, the trusted authorities are those of Mozilla.
///
/// # Errors
///
/// [`BadTlsFile`] for the first file that cannot be used.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, BadTlsFile> {
    let roots = match &tls.ca {
        Some(PemFile { content, .. }) => {
            authorities(content.expose()).map_err(|error| BadTlsFile::new("ca", error))?
        }
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BadTlsFile::new("certificate", format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let chain =
        certificates(certificate.content.expose()).map_err(|error| BadTlsFile::new("certificate", error))?;
    let key = PrivateKeyDer::from_pem_slice(key.content.expose()).map_err(|_| {
        BadTlsFile::new("key", "has no private key; expected \"-----BEGIN PRIVATE KEY-----\"")
    })?;
    builder.with_client_auth_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            BadTlsFile::new("key", "is not the private key of `certificate`")
        }
        rustls::Error::InvalidCertificate(error) => BadTlsFile::new("certificate", error.to_string()),
        other => BadTlsFile::new("key", other.to_string()),
    })
}

/// Reads the certificate authorities of a PEM file.
///
/// # Errors
///
/// A message that says why the file cannot be used, without its content.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Reads the certificates of a PEM file. It is an error if there are none.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    // The library's own text shows the line.
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err("has no certificate; expected \"-----BEGIN CERTIFICATE-----\"".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err("is damaged, or not PEM".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_verify::Secret;

    fn file(content: &str) -> PemFile {
        PemFile::new("/file", Secret::new(content).expect("not empty"))
    }

    #[test]
    fn the_default_authorities_make_a_configuration_and_a_file_without_certificates_does_not() {
        assert!(client_config(&ClientTls::default()).is_ok());
        for content in ["nothing", "-----BEGIN CERTIFICATE-----\n?hunter2\n-----END CERTIFICATE-----\n"] {
            let wrong = client_config(&ClientTls::new(Some(file(content)))).expect_err("no certificate");
            assert_eq!(wrong.key, "ca");
            assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
        }
        let client = ClientTls::default().with_client(file("no certificate"), file("no key"));
        assert_eq!(client_config(&client).expect_err("no certificate").key, "certificate");
    }
}

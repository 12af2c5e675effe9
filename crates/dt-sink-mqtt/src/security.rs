//! The settings for TLS and the password of the sink `mqtt`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dt_sink::config::{
    Changes, Entry, Key, OptionalEntry, Reload, Section, Table, config_keys, path, read_source, secret_keys,
};
use dt_verify::{Difference, Secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The TLS settings for the connection to the broker, with the content of the files, so that a reload detects renewed files.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MqttTls {
    /// The certificate authorities of the broker's certificate (PEM); `None` for those of Mozilla.
    ca: Option<Vec<u8>>,
    /// The client certificate and its private key (PEM).
    client: Option<(Vec<u8>, Secret)>,
}

impl fmt::Debug for MqttTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttTls")
            .field("has_ca", &self.ca.is_some())
            .field("has_client", &self.client.is_some())
            .finish()
    }
}

config_keys! {
    /// The keys of `[sink.tls]`.
    struct TlsKeys {
        /// The certificate authorities of the broker's certificate (PEM).
        ca: Option<PathBuf> = path("path").or_none("those of Mozilla").sample("\"/etc/dt-receiver/mqtt-ca.pem\""),
        /// The client certificate (PEM), with `key`.
        certificate: Option<PathBuf> = path("path").or_none("").sample("\"/etc/dt-receiver/mqtt.pem\""),
        /// The private key of the client certificate (PEM).
        key: Option<PathBuf> = path("path").or_none("").sample("\"/etc/dt-receiver/mqtt.key\""),
    }
}

impl MqttTls {
    /// Makes the configuration of handshakes: chain and host name of the broker are verified.
    ///
    /// # Errors
    ///
    /// Returns the key with the file that cannot be used, and why.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, (&'static str, String)> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in certificates(pem).map_err(|error| ("ca", error))? {
                    roots.add(certificate).map_err(|error| ("ca", error.to_string()))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ("ca", error.to_string()))?
            .with_root_certificates(roots);
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(|error| ("certificate", error))?;
                let key = PrivateKeyDer::from_pem_slice(key.expose())
                    .map_err(|error| ("key", format!("no private key in the file: {error}")))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| ("key", error.to_string()))?
            }
        };
        Ok(Arc::new(config))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err("no certificate in the file".to_owned()),
        Err(error) => Err(format!("no certificate in the file: {error}")),
    }
}

/// The table `tls`.
pub struct Tls;

impl Entry<Option<MqttTls>> for Tls {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<MqttTls>> {
        // `None` marks the whole sink as invalid: without TLS it would connect in plain text.
        section
            .section(field)
            .map_or_else(|| (!section.has_errors_at(field)).then_some(None), |tls| read_tls(tls).map(Some))
    }

    fn compare(
        self,
        field: &'static str,
        values: (&Option<MqttTls>, &Option<MqttTls>),
        changes: &mut Changes,
    ) {
        note(field, values.0 != values.1, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        vec![Table::new(format!("[{field}]"), meaning, TlsKeys::rows())]
    }
}

impl OptionalEntry<Option<MqttTls>> for Tls {
    fn default(self) -> Option<MqttTls> {
        None
    }
}

/// The table `password`.
pub struct Password;

impl Entry<Option<Secret>> for Password {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<Secret>> {
        let Some(mut password) = section.secret_section(field) else {
            return (!section.has_errors_at(field)).then_some(None);
        };
        let secret = read_source(&mut password);
        password.finish();
        let secret = secret?;
        // The password of MQTT is binary, but the codec takes a text.
        if std::str::from_utf8(secret.expose()).is_err() || secret.expose().len() > crate::packet::MAX_TEXT {
            section.complain(field, "the password must be UTF-8, and at most 65,535 bytes");
            return None;
        }
        Some(Some(secret))
    }

    fn compare(self, field: &'static str, values: (&Option<Secret>, &Option<Secret>), changes: &mut Changes) {
        note(field, values.0 != values.1, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        let keys = secret_keys("MQTT_PASSWORD", "/etc/dt-receiver/mqtt-password");
        vec![Table::new(format!("[{field}]"), meaning, keys)]
    }
}

impl OptionalEntry<Option<Secret>> for Password {
    fn default(self) -> Option<Secret> {
        None
    }
}

/// Reports that a table differs, without its values: they may be secrets.
fn note(field: &str, differs: bool, changes: &mut Changes) {
    if differs {
        changes.note(field, Difference::Changed, Reload::Yes);
    }
}

fn read_tls(mut section: Section<'_>) -> Option<MqttTls> {
    let keys = TlsKeys::read_keys(&mut section)?;
    let mut is_complete = true;
    let mut read = |key: &'static str, path: &Option<PathBuf>| {
        let path = path.as_ref().filter(|_| section.sources().reads_secrets())?;
        match section.sources().file(path) {
            Ok(content) => Some(content),
            Err(error) => {
                section.complain(key, format!("{}: {error}", path.display()));
                is_complete = false;
                None
            }
        }
    };
    let (ca, certificate) = (read("ca", &keys.ca), read("certificate", &keys.certificate));
    let key = read("key", &keys.key).and_then(|key| Secret::new(key).ok());
    if keys.certificate.is_some() != keys.key.is_some() {
        let missing = if keys.certificate.is_some() { "key" } else { "certificate" };
        section.complain(missing, "is missing; a client certificate needs both `certificate` and `key`");
        is_complete = false;
    }
    let tls = MqttTls { ca, client: certificate.zip(key) };
    let sources = section.sources();
    if is_complete
        && sources.reads_secrets()
        && sources.looks_at_certificates()
        && let Err((key, error)) = tls.client_config()
    {
        section.complain(key, error);
        is_complete = false;
    }
    section.finish();
    is_complete.then_some(tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_sink::config::{Problems, Sources};

    /// Returns this content for every file.
    struct Holding(&'static str);

    impl Sources for Holding {
        fn env(&self, _: &str) -> Option<std::ffi::OsString> {
            None
        }

        fn file(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_owned())
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error_at_its_key() {
        for (keys, wrong) in [
            ("ca = '/ca'", "tls.ca"),
            ("certificate = '/c'\nkey = '/k'", "tls.certificate"),
            ("certificate = '/c'", "tls.key"),
            ("key = '/k'", "tls.certificate"),
        ] {
            let problems = Problems::default();
            let table = format!("[tls]\n{keys}").parse().expect("TOML");
            let mut root = Section::root(table, &problems, &Holding("nothing"));
            assert_eq!(Tls.read("tls", &mut root), None, "{keys}");
            let (errors, _) = problems.into_parts();
            assert!(errors.iter().any(|error| error.key == wrong), "{keys}: {errors:?}");
        }
    }

    #[test]
    fn an_empty_table_means_the_authorities_of_mozilla() {
        let problems = Problems::default();
        let mut root = Section::root("[tls]".parse().expect("TOML"), &problems, &Holding(""));
        let tls = Tls.read("tls", &mut root).flatten().expect("TLS");
        assert!(tls.client_config().is_ok());
        let mut root = Section::root("".parse().expect("TOML"), &problems, &Holding(""));
        assert_eq!(Tls.read("tls", &mut root), Some(None));
    }
}

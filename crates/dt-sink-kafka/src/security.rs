//! The settings for TLS and SASL of the sink `kafka`.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use dt_sink::config::{
    Changes, Entry, Key, OptionalEntry, Reload, Section, Table, config_keys, custom, path, read_source,
    secret_keys,
};
use dt_verify::{Difference, Secret};

/// The SASL mechanisms with user name and password.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
/// The error of a build without TLS for Kafka.
const NO_TLS: &str = "this build has no TLS and no SCRAM for Kafka; build with the feature `kafka-tls` (or `kafka-tls-vendored`)";

/// Returns whether librdkafka was built with OpenSSL.
const fn has_tls() -> bool {
    cfg!(feature = "tls")
}

/// The TLS settings for connections to the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KafkaTls {
    /// The certificate authorities of the brokers' certificates; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The client certificate and its private key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The password of the private key.
    pub key_password: Option<Secret>,
    /// The SHA-256 digest of the files' contents: a reload detects renewed files under the same names by it.
    content: [u8; 32],
}

/// The user and password for SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaSasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user name with which the sink logs in to the brokers.
    pub username: String,
    /// The password with which the sink logs in to the brokers.
    pub password: Secret,
}

config_keys! {
    /// The keys of `[sink.tls]`.
    struct TlsKeys {
        /// The certificate authorities of the brokers' certificates (PEM).
        ca: Option<PathBuf> = path("path").or_none("those of the system").sample("\"/etc/dt-receiver/kafka-ca.pem\""),
        /// The client certificate (PEM), with `key`.
        certificate: Option<PathBuf> = path("path").or_none("").sample("\"/etc/dt-receiver/kafka.pem\""),
        /// The private key of the client certificate (PEM).
        key: Option<PathBuf> = path("path").or_none("").sample("\"/etc/dt-receiver/kafka.key\""),
    }
}

config_keys! {
    /// The keys of `[sink.sasl]`.
    struct SaslKeys {
        needed {
            /// The user name.
            username: String = custom("text", read_username)
                .needed("is missing")
                .sample("\"dt-receiver\""),
        }
        /// The SASL mechanism.
        mechanism: String = custom("`\"PLAIN\"`, `\"SCRAM-SHA-256\"`, `\"SCRAM-SHA-512\"`", read_mechanism)
            .or("SCRAM-SHA-512".to_owned())
            .default_shown("\"SCRAM-SHA-512\""),
    }
}

fn read_username(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    section.private_string(key)
}

fn read_mechanism(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let name = section.private_string(key)?;
    if !MECHANISMS.contains(&&*name) {
        section.no_choice(key, &name, &MECHANISMS);
    }
    Some(name)
}

/// The table `tls`.
pub struct Tls;

impl Entry<Option<KafkaTls>> for Tls {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<KafkaTls>> {
        let Some(tls) = section.section(field) else { return Some(None) };
        let read = read_tls(tls);
        if !has_tls() {
            section.complain(field, NO_TLS);
            return None;
        }
        // `None` marks the whole sink as invalid: without TLS it would connect in plain text.
        read.map(Some)
    }

    fn compare(
        self,
        field: &'static str,
        values: (&Option<KafkaTls>, &Option<KafkaTls>),
        changes: &mut Changes,
    ) {
        note(field, values.0 != values.1, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        let password = secret_keys("KAFKA_KEY_PASSWORD", "/etc/dt-receiver/kafka-key-password");
        let password = Table::new("[key_password]", "The password of that key, if it has one.", password);
        vec![Table::new(format!("[{field}]"), meaning, TlsKeys::rows()), password.below(field)]
    }
}

impl OptionalEntry<Option<KafkaTls>> for Tls {
    fn default(self) -> Option<KafkaTls> {
        None
    }
}

/// The table `sasl`.
pub struct Sasl;

impl Entry<Option<KafkaSasl>> for Sasl {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<KafkaSasl>> {
        let Some(sasl) = section.section(field) else { return Some(None) };
        let read = read_sasl(sasl)?;
        if !has_tls() && read.mechanism != "PLAIN" {
            section.complain(field, NO_TLS);
            return None;
        }
        Some(Some(read))
    }

    fn compare(
        self,
        field: &'static str,
        values: (&Option<KafkaSasl>, &Option<KafkaSasl>),
        changes: &mut Changes,
    ) {
        note(field, values.0 != values.1, changes);
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        let password = secret_keys("KAFKA_PASSWORD", "/etc/dt-receiver/kafka-password");
        let password = Table::new("[password]", "The user's password.", password);
        vec![Table::new(format!("[{field}]"), meaning, SaslKeys::rows()), password.below(field)]
    }
}

impl OptionalEntry<Option<KafkaSasl>> for Sasl {
    fn default(self) -> Option<KafkaSasl> {
        None
    }
}

/// Reports that a table differs, without its values: they may be passwords.
fn note(field: &str, differs: bool, changes: &mut Changes) {
    if differs {
        changes.note(field, Difference::Changed, Reload::Yes);
    }
}

fn read_tls(mut section: Section<'_>) -> Option<KafkaTls> {
    let keys = TlsKeys::read_keys(&mut section)?;
    let (mut complete, mut content) = (true, Sha256::new());
    for (key, path) in [("ca", &keys.ca), ("certificate", &keys.certificate), ("key", &keys.key)] {
        let Some(path) = path.as_ref().filter(|_| section.sources().reads_secrets()) else { continue };
        match section.sources().file(path) {
            // A digest per file, so that moving bytes between files changes the result.
            Ok(bytes) => content.update(Sha256::digest(bytes)),
            Err(error) => {
                section.complain(key, format!("{}: {error}", path.display()));
                complete = false;
            }
        }
    }
    let client = match (keys.certificate, keys.key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let key = if certificate.is_some() { "key" } else { "certificate" };
            section.complain(key, "is missing; a client certificate needs both `certificate` and `key`");
            complete = false;
            None
        }
    };
    let key_password = section.secret_section("key_password").and_then(|mut section| {
        let secret = read_source(&mut section);
        section.finish();
        complete &= secret.is_some();
        secret
    });
    section.finish();
    complete.then_some(KafkaTls { ca: keys.ca, client, key_password, content: content.finalize().into() })
}

fn read_sasl(mut section: Section<'_>) -> Option<KafkaSasl> {
    let keys = SaslKeys::read_keys(&mut section);
    let password = match section.secret_section("password") {
        Some(mut password) => {
            let secret = read_source(&mut password);
            password.finish();
            secret
        }
        None => {
            section.missing("password", "is missing; give { env = \"NAME\" } or { file = \"PATH\" }");
            None
        }
    };
    section.finish();
    let SaslKeys { mechanism, username } = keys?;
    Some(KafkaSasl { mechanism, username, password: password? })
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
    fn renewed_certificates_under_the_same_names_change_the_settings() {
        let read = |content| {
            let problems = Problems::default();
            let table = "ca = '/ca'\ncertificate = '/certificate'\nkey = '/key'".parse().expect("TOML");
            read_tls(Section::root(table, &problems, &Holding(content))).expect("complete")
        };
        assert_eq!(read("old"), read("old"));
        assert_ne!(read("old"), read("renewed"));
    }
}

//! The settings for TLS and SASL of the sink `kafka`.

use dt_sink::config::{
    ClientTls, Section, Table, TableEntry, TlsEntry, config_keys, custom, needed_secret, optional_secret,
    secret_keys,
};
use dt_verify::Secret;

/// The SASL mechanisms with user name and password.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
/// The error message of a build without TLS for Kafka.
const NO_TLS: &str = "this build has no TLS and no SCRAM for Kafka; build with the feature `kafka-tls` (or `kafka-tls-vendored`)";

/// Returns whether librdkafka was built with OpenSSL.
const fn has_tls() -> bool {
    cfg!(feature = "tls")
}

/// The keys of `[sink.tls]`. librdkafka checks the files.
const TLS: TlsEntry = TlsEntry {
    certificate: "the brokers' certificates",
    default_ca: "those of the system",
    sample: "kafka",
    check: |_| Ok(()),
};

/// The TLS settings for connections to the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KafkaTls {
    /// The certificate authorities of the brokers' certificates, and the client certificate. Without `ca`, the authorities of the
    /// operating system are trusted.
    pub files: ClientTls,
    /// The password of the private key of the client certificate; `None` if it has none.
    pub key_password: Option<Secret>,
}

/// The user and password for SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaSasl {
    /// The SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user name with which the sink logs in to the brokers.
    pub username: String,
    /// The password with which the sink logs in to the brokers.
    pub password: Secret,
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

/// Returns the entry of the table `tls`.
pub const fn tls() -> TableEntry<Option<KafkaTls>> {
    TableEntry {
        read: read_tls,
        tables: |field, meaning| {
            let password = secret_keys("KAFKA_KEY_PASSWORD", "/etc/dt-receiver/kafka-key-password");
            let password = Table::new("[key_password]", "The password of that key, if it has one.", password);
            vec![Table::new(format!("[{field}]"), meaning, TLS.keys()), password.below(field)]
        },
    }
}

/// Returns the entry of the table `sasl`.
pub const fn sasl() -> TableEntry<Option<KafkaSasl>> {
    TableEntry {
        read: read_sasl,
        tables: |field, meaning| {
            let password = secret_keys("KAFKA_PASSWORD", "/etc/dt-receiver/kafka-password");
            let password = Table::new("[password]", "The user's password.", password);
            vec![Table::new(format!("[{field}]"), meaning, SaslKeys::rows()), password.below(field)]
        },
    }
}

fn read_tls(mut section: Section<'_>) -> Option<Option<KafkaTls>> {
    let files = TLS.read_files(&mut section);
    let key_password = optional_secret(&mut section, "key_password");
    section.finish();
    files.map(|files| Some(KafkaTls { files, key_password }))
}

fn read_sasl(mut section: Section<'_>) -> Option<Option<KafkaSasl>> {
    let keys = SaslKeys::read_keys(&mut section);
    let password = needed_secret(&mut section, "password");
    section.finish();
    let SaslKeys { mechanism, username } = keys?;
    Some(Some(KafkaSasl { mechanism, username, password: password? }))
}

/// Reports the settings that need a librdkafka with OpenSSL, in a build without it.
pub fn check(tls: Option<&KafkaTls>, sasl: Option<&KafkaSasl>, section: &Section<'_>) {
    if has_tls() {
        return;
    }
    if tls.is_some() {
        section.complain("tls", NO_TLS);
    }
    if sasl.is_some_and(|sasl| sasl.mechanism != "PLAIN") {
        section.complain("sasl", NO_TLS);
    }
}

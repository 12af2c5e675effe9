//! The part of the configuration that is about Kafka: where the brokers are, how to get in, and what is written where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::connector::read_source;
use super::reader::{FlagOrSection, Section};
use super::source::Sources;
use dt_sink::record::TopicTemplate;
use dt_verify::Secret;

/// Properties of librdkafka that are ours, each with the reason or the key that sets it.
const OURS: [(&str, &str); 25] = [
    ("bootstrap.servers", "set `brokers`"),
    ("metadata.broker.list", "set `brokers`"),
    ("acks", "all in-sync replicas always acknowledge, or records could be lost"),
    ("request.required.acks", "all in-sync replicas always acknowledge, or records could be lost"),
    ("enable.idempotence", "it is always on, or records could come twice or out of order"),
    ("enable.gapless.guarantee", "it is always on, or records could come out of order"),
    (
        "message.timeout.ms",
        "a record is tried for as long as it takes (mode direct: within `limits.deadline`)",
    ),
    (
        "delivery.timeout.ms",
        "a record is tried for as long as it takes (mode direct: within `limits.deadline`)",
    ),
    ("retries", "a record is tried for as long as it takes"),
    ("message.send.max.retries", "a record is tried for as long as it takes"),
    ("transactional.id", "records are not written in transactions"),
    ("partitioner", "records of a key go where Java's producer would put them (murmur2_random)"),
    ("allow.auto.create.topics", "set `create_topic`"),
    ("queuing.strategy", "order per device needs `fifo`"),
    ("delivery.report.only.error", "every record's report counts"),
    ("enabled_events", "events are handled by this program"),
    ("log_level", "set RUST_LOG"),
    ("debug", "set RUST_LOG=librdkafka=debug"),
    ("test.mock.num.brokers", "it is for tests of librdkafka"),
    ("sasl.mechanism", "set [sink.sasl]"),
    ("sasl.mechanisms", "set [sink.sasl]"),
    ("sasl.username", "set [sink.sasl]"),
    ("ssl.ca.location", "set [sink.tls]"),
    ("ssl.certificate.location", "set [sink.tls]"),
    ("ssl.key.location", "set [sink.tls]"),
];

/// The mechanisms that work with a user and a password.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Where the sink `kafka` writes, and how it gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// `HOST:PORT` of some brokers, with commas between them; they name the others.
    pub brokers: String,
    /// The topic of a record.
    pub topic: TopicTemplate,
    /// The key of a record.
    pub key: RecordKey,
    /// How a topic is created that does not exist; `None`: it is not.
    pub create_topic: Option<CreateTopic>,
    /// TLS, if it is used.
    pub tls: Option<KafkaTls>,
    /// User and password, if they are asked for.
    pub sasl: Option<KafkaSasl>,
    /// Other properties of librdkafka.
    pub properties: BTreeMap<String, String>,
}

/// What a record's key is. Records of one key go to one partition, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordKey {
    /// The device's id.
    #[default]
    Device,
    /// The project's id.
    Project,
    /// The connector's name.
    Connector,
    /// None: any partition, in no order.
    None,
}

/// How a topic is created. What is not given is as the brokers have it by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CreateTopic {
    /// How many partitions.
    pub partitions: Option<i32>,
    /// On how many brokers each is.
    pub replication: Option<i32>,
}

/// TLS to the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KafkaTls {
    /// The certificates of the authorities that vouch for the brokers; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The password of the key.
    pub key_password: Option<Secret>,
    /// What was in the files: the sink reads them once, so that others under the same names need another sink.
    content: [u8; 32],
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaSasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl FromStr for RecordKey {
    type Err = UnknownKey;

    fn from_str(name: &str) -> Result<Self, UnknownKey> {
        match name {
            "device" => Ok(Self::Device),
            "project" => Ok(Self::Project),
            "connector" => Ok(Self::Connector),
            "none" => Ok(Self::None),
            _ => Err(UnknownKey),
        }
    }
}

/// Not a key of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown key; allowed are device, project, connector, none")]
pub struct UnknownKey;

impl KafkaConfig {
    /// Plain text to these brokers, keyed by device, topics created as the brokers have it by default.
    #[must_use]
    pub const fn new(brokers: String, topic: TopicTemplate) -> Self {
        Self {
            brokers,
            topic,
            key: RecordKey::Device,
            create_topic: Some(CreateTopic { partitions: None, replication: None }),
            tls: None,
            sasl: None,
            properties: BTreeMap::new(),
        }
    }

    /// Reads `HOST:PORT[,HOST:PORT]/TOPIC`.
    pub(super) fn from_command_line(text: &str) -> Result<Self, String> {
        let (brokers, topic) = text.rsplit_once('/').unwrap_or((text, ""));
        if let Some(bad) = brokers.split(',').find(|broker| !is_broker(broker)) {
            return Err(format!("\"{}\" is no HOST:PORT", bad.escape_debug()));
        }
        let topic =
            topic.parse().map_err(|error| format!("the topic \"{}\": {error}", topic.escape_debug()))?;
        Ok(Self::new(brokers.to_owned(), topic))
    }

    pub(super) fn read(section: &mut Section<'_>, sources: &dyn Sources) -> Option<Self> {
        // Every key is read, whatever is wrong with the others, so that all problems are reported at once.
        let brokers = read_brokers(section);
        let topic = match section.string("topic") {
            None => {
                section.complain("topic", "is missing; name the topic, such as \"dt.events\"".to_owned());
                None
            }
            Some(text) => match text.parse::<TopicTemplate>() {
                Ok(topic) => Some(topic),
                Err(error) => {
                    section.complain("topic", format!("found \"{}\": {error}", text.escape_debug()));
                    None
                }
            },
        };
        let mut key = RecordKey::Device;
        section.choice_into("key", &["device", "project", "connector", "none"], &mut key);
        let create_topic = read_create_topic(section);
        let tls = section.section("tls").map(|tls| read_tls(tls, sources));
        let sasl = section.section("sasl").map(|sasl| read_sasl(sasl, sources));
        let properties = section.section("properties").map(read_properties).unwrap_or_default();
        let missing = if cfg!(feature = "kafka-tls") || cfg!(feature = "kafka-tls-vendored") {
            None
        } else if tls.is_some() {
            Some("tls")
        } else if sasl
            .as_ref()
            .is_some_and(|sasl| sasl.as_ref().is_some_and(|sasl| sasl.mechanism != "PLAIN"))
        {
            Some("sasl")
        } else {
            None
        };
        if let Some(key) = missing {
            let text = "this build has no TLS and no SCRAM for Kafka; build with the feature `kafka-tls` (or `kafka-tls-vendored`)";
            section.complain(key, text.to_owned());
            return None;
        }
        // A table that could not be read was complained of.
        let (tls, sasl) =
            (tls.map_or(Some(None), |tls| tls.map(Some))?, sasl.map_or(Some(None), |sasl| sasl.map(Some))?);
        let config = Self { brokers: brokers?, topic: topic?, key, create_topic, tls, sasl, properties };
        config.try_properties(section);
        Some(config)
    }

    /// Names a property that librdkafka does not know, or a value that it does not take.
    #[cfg(feature = "kafka")]
    fn try_properties(&self, section: &Section<'_>) {
        for (key, value) in &self.properties {
            let mut config = rdkafka::ClientConfig::new();
            config.set(key, value);
            if let Err(rdkafka::error::KafkaError::ClientConfig(_, text, _, _)) =
                config.create_native_config()
            {
                section.complain(&format!("properties.\"{key}\""), text);
            }
        }
    }

    #[cfg(not(feature = "kafka"))]
    fn try_properties(&self, _: &Section<'_>) {}

    /// The properties of librdkafka that this asks for, with secrets.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> =
            self.properties.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut set = |key: &str, value: &str| settings.push((key.to_owned(), value.to_owned()));
        set("bootstrap.servers", &self.brokers);
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        set("security.protocol", protocol);
        if let Some(KafkaTls { ca, client, key_password, content: _ }) = &self.tls {
            if let Some(ca) = ca {
                set("ssl.ca.location", &ca.to_string_lossy());
            }
            if let Some((certificate, key)) = client {
                set("ssl.certificate.location", &certificate.to_string_lossy());
                set("ssl.key.location", &key.to_string_lossy());
            }
            if let Some(password) = key_password {
                set("ssl.key.password", &String::from_utf8_lossy(password.expose()));
            }
        }
        if let Some(KafkaSasl { mechanism, username, password }) = &self.sasl {
            set("sasl.mechanism", mechanism);
            set("sasl.username", username);
            set("sasl.password", &String::from_utf8_lossy(password.expose()));
        }
        settings
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Project => "project",
            Self::Connector => "connector",
            Self::None => "none",
        })
    }
}

/// Whether a text is `HOST:PORT`; an IPv6 address stands in brackets.
fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map_or_else(
        || {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        },
        |host| host.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn read_brokers(section: &mut Section<'_>) -> Option<String> {
    let Some(brokers) = section.strings_or_string("brokers") else {
        section.complain("brokers", "is missing; give [\"HOST:PORT\"]".to_owned());
        return None;
    };
    let brokers: Vec<&str> = brokers.iter().flat_map(|brokers| brokers.split(',')).map(str::trim).collect();
    match brokers.iter().find(|broker| !is_broker(broker)) {
        None if !brokers.is_empty() => Some(brokers.join(",")),
        None => {
            section.complain("brokers", "the list is empty; give [\"HOST:PORT\"]".to_owned());
            None
        }
        Some(bad) => {
            section.problem(
                "brokers",
                bad,
                "a list of HOST:PORT such as [\"kafka-1:9092\", \"kafka-2:9092\"]",
            );
            None
        }
    }
}

fn read_create_topic(section: &mut Section<'_>) -> Option<CreateTopic> {
    match section.flag_or_section("create_topic")? {
        FlagOrSection::Flag(create) => create.then(CreateTopic::default),
        FlagOrSection::Section(mut section) => {
            let mut count = |key, most| {
                let mut count = 0;
                section.count_into(key, 1..=most, &mut count);
                i32::try_from(count).ok().filter(|count| *count > 0)
            };
            let (partitions, replication) = (count("partitions", 10_000), count("replication", 100));
            section.finish();
            Some(CreateTopic { partitions, replication })
        }
    }
}

fn read_tls(mut section: Section<'_>, sources: &dyn Sources) -> Option<KafkaTls> {
    let (mut complete, mut content) = (true, Sha256::new());
    let mut path = |key| {
        let path = PathBuf::from(section.string(key)?);
        if !sources.reads_secrets() {
            return Some(path);
        }
        match sources.file(&path) {
            // The digest of each keeps their borders apart.
            Ok(bytes) => content.update(Sha256::digest(bytes)),
            Err(error) => {
                section.complain(key, format!("{}: {error}", path.display()));
                complete = false;
            }
        }
        Some(path)
    };
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let key = if certificate.is_some() { "key" } else { "certificate" };
            section.complain(
                key,
                "is missing; a client certificate needs both `certificate` and `key`".to_owned(),
            );
            complete = false;
            None
        }
    };
    let key_password = section.section("key_password").and_then(|mut section| {
        let secret = read_source(&mut section, sources);
        section.finish();
        complete &= secret.is_some();
        secret
    });
    section.finish();
    complete.then_some(KafkaTls { ca, client, key_password, content: content.finalize().into() })
}

fn read_sasl(mut section: Section<'_>, sources: &dyn Sources) -> Option<KafkaSasl> {
    let mechanism = section.private_string("mechanism").unwrap_or_else(|| "SCRAM-SHA-512".to_owned());
    let known = MECHANISMS.contains(&&*mechanism);
    if !known {
        section.no_choice("mechanism", &mechanism, &MECHANISMS);
    }
    let username = section.private_string("username");
    if username.is_none() && !section.has_errors_at("username") {
        section.complain("username", "is missing".to_owned());
    }
    let password = match section.section("password") {
        Some(mut password) => {
            let secret = read_source(&mut password, sources);
            password.finish();
            secret
        }
        None => {
            if !section.has_errors_at("password") {
                let text = "is missing; give { env = \"NAME\" } or { file = \"PATH\" }";
                section.complain("password", text.to_owned());
            }
            None
        }
    };
    section.finish();
    known.then_some(KafkaSasl { mechanism, username: username?, password: password? })
}

fn read_properties(section: Section<'_>) -> BTreeMap<String, String> {
    let (pairs, section) = section.into_pairs();
    let mut properties = BTreeMap::new();
    for (key, value) in pairs {
        let quoted = format!("\"{key}\"");
        if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == key) {
            section.complain(&quoted, format!("cannot be set: {why}"));
        } else if key.starts_with("plugin.") {
            section.complain(&quoted, "cannot be set: plugins are not loaded".to_owned());
        } else if key == "security.protocol" {
            section.complain(
                &quoted,
                "cannot be set: give [sink.tls] for TLS, [sink.sasl] for a password".to_owned(),
            );
        } else if ["password", "secret", ".pem", "jaas"].iter().any(|part| key.contains(part)) {
            let cure =
                "cannot be set: secrets stand in the environment or in files; see [sink.sasl] and [sink.tls]";
            section.complain(&quoted, cure.to_owned());
        } else if key.starts_with("max.in.flight") && value.parse::<u32>().map_or(true, |count| count > 5) {
            section.problem(&quoted, &value, "1 to 5, or records could come out of order");
        } else {
            properties.insert(key, value);
        }
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::super::reader::Problems;
    use super::*;

    /// Files that all hold this.
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
    fn other_certificates_under_the_same_names_are_other_settings() {
        let read = |content| {
            let problems = Problems::default();
            let table = "ca = '/ca'\ncertificate = '/certificate'\nkey = '/key'".parse().expect("TOML");
            read_tls(Section::root(table, &problems), &Holding(content)).expect("complete")
        };
        assert_eq!(read("old"), read("old"));
        assert_ne!(read("old"), read("renewed"));
    }
}

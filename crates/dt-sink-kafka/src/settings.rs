//! The settings of the sink `kafka`: brokers, security, topic, key and properties.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{DeliveryTimeout, KafkaDeadLetters, KafkaSink};
use dt_sink::config::{
    Changes, Entry, FlagOrSection, Key, OptionalEntry, Reload, Section, Table, config_keys, custom, number,
    word,
};
use dt_sink::record::{Format, TopicTemplate};
use dt_sink::{BadPlace, DeadLetterSink, Metric, OpenError, Sink, SinkContext, SinkError, SinkSettings};
use dt_verify::Difference;

use crate::security::{self, KafkaSasl, KafkaTls};

/// The properties of librdkafka that the table `properties` must not set, each with the reason or the key to set instead.
const RESERVED: [(&str, &str); 25] = [
    ("bootstrap.servers", "set `brokers`"),
    ("metadata.broker.list", "set `brokers`"),
    ("acks", "all in-sync replicas always acknowledge, or records could be lost"),
    ("request.required.acks", "all in-sync replicas always acknowledge, or records could be lost"),
    ("enable.idempotence", "it is always on, or records could be duplicated or reordered"),
    ("enable.gapless.guarantee", "it is always on, or records could be reordered"),
    (
        "message.timeout.ms",
        "a record is retried without a time limit (mode direct: within `limits.deadline`)",
    ),
    (
        "delivery.timeout.ms",
        "a record is retried without a time limit (mode direct: within `limits.deadline`)",
    ),
    ("retries", "a record is retried without a time limit"),
    ("message.send.max.retries", "a record is retried without a time limit"),
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

config_keys! {
    /// The settings of a sink of type `kafka`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct KafkaConfig {
        needed {
            /// Some of the brokers; the others are discovered.
            brokers: String = custom("list of `HOST:PORT`", read_brokers)
                .needed("is missing; give [\"HOST:PORT\"]")
                .sample("[\"127.0.0.1:9092\"]"),
            /// The topic.
            topic: TopicTemplate = custom("name with `{connector}`, `{project}`, `{eventType}`", read_topic)
                .shown_as(|topic| format!("{:?}", topic.to_string()))
                .needed("is missing; name the topic, such as \"dt.events\"")
                .sample("\"dt.events\""),
        }
        /// The key of each record; records with the same key stay in order.
        key: RecordKey = word(&["device", "project", "connector", "none"]).or(RecordKey::Device),
        /// Of a sink of type `kafka`: how missing topics are created. `create_topic = true` leaves both keys to the
        /// brokers; without it, no topic is created.
        create_topic: Option<CreateTopic> = CreateTopicEntry,
        /// Of a sink of type `kafka`: TLS to the brokers. Needs a build with the feature `kafka-tls`, as the Debian package
        /// and the image are.
        tls: Option<KafkaTls> = security::tls(),
        /// Of a sink of type `kafka`: authentication by user name and password. All mechanisms but `PLAIN` need a
        /// build with the feature `kafka-tls`.
        sasl: Option<KafkaSasl> = security::sasl(),
        /// Of a sink of type `kafka`: any other property of librdkafka. `check` reports unknown properties, and those
        /// that the receiver sets itself.
        properties: BTreeMap<String, String> = Properties,
    }
}

/// The source of the key of a Kafka record. Records with the same key go to one partition, in order.
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
    /// No key: a record goes to any partition, in no order.
    None,
}

config_keys! {
    /// How a topic is created. `None` selects the brokers' default.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct CreateTopic {
        /// The number of partitions.
        partitions: Option<i32> = number(1..=10_000).or_none("the brokers' own").sample("12"),
        /// The number of replicas of each partition.
        replication: Option<i32> = number(1..=100).or_none("the brokers' own").sample("3"),
    }
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

/// The error for a text that is not a source of record keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown key; expected device, project, connector, none")]
pub struct UnknownKey;

impl KafkaConfig {
    /// Creates settings for plain-text connections to these brokers, with the device as the record key. Missing topics are
    /// created with the brokers' defaults.
    #[must_use]
    pub fn new(brokers: String, topic: TopicTemplate) -> Self {
        Self { create_topic: Some(CreateTopic::default()), ..Self::with_defaults(brokers, topic) }
    }

    /// Returns the properties for librdkafka as pairs of name and value, including secrets.
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
        if let Some(KafkaTls { files, key_password }) = &self.tls {
            if let Some(ca) = &files.ca {
                set("ssl.ca.location", &ca.path.to_string_lossy());
            }
            if let Some((certificate, key)) = &files.client {
                set("ssl.certificate.location", &certificate.path.to_string_lossy());
                set("ssl.key.location", &key.path.to_string_lossy());
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

impl SinkSettings for KafkaConfig {
    const NAME: &'static str = "kafka";
    const PLACE: Option<&'static str> = Some("HOST:PORT[,HOST:PORT]/TOPIC");
    const ABOUT: &'static str = "Topics of Kafka. Details: [kafka.md](kafka.md).";
    const DEAD_LETTERS: Option<&'static str> = Some("TOPIC");
    const METRICS: &'static [Metric] = KafkaSink::METRICS;
    // No line protocol: an event without readings would be an empty value, which is no point.
    const FORMATS: &'static [Format] = &[Format::Body, Format::Envelope, Format::CloudEvents];

    fn from_place(place: &str) -> Result<Self, BadPlace> {
        let (brokers, topic) = place.rsplit_once('/').unwrap_or((place, ""));
        if let Some(bad) = brokers.split(',').find(|broker| !is_broker(broker)) {
            return Err(BadPlace::new(format_args!("\"{}\" is not HOST:PORT", bad.escape_debug())));
        }
        let wrong = |error| BadPlace::new(format_args!("the topic \"{}\": {error}", topic.escape_debug()));
        Ok(Self::new(brokers.to_owned(), topic.parse().map_err(wrong)?))
    }

    /// Reports settings that this build does not support, and each property whose name or value librdkafka does not accept.
    fn check(&self, section: &Section<'_>) {
        security::check(self.tls.as_ref(), self.sasl.as_ref(), section);
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

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        let timeout = context.give_up_after.map_or(DeliveryTimeout::Unlimited, DeliveryTimeout::After);
        Ok(Box::new(KafkaSink::new(self.clone(), context.format, timeout, context.reporter)))
    }

    fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>> {
        let timeout = context.give_up_after.map_or(DeliveryTimeout::Unlimited, DeliveryTimeout::After);
        let sink = KafkaSink::new(self.clone(), context.format, timeout, context.reporter);
        Some(sink.probe().map_err(SinkError::from))
    }

    fn is_dead_letter_place(place: &str) -> bool {
        place.parse::<TopicTemplate>().is_ok_and(|topic| topic.fixed().is_some())
    }

    fn open_dead_letters(
        &self,
        place: &str,
        context: SinkContext,
    ) -> Result<Arc<dyn DeadLetterSink>, OpenError> {
        let limit = context.give_up_after.unwrap_or(std::time::Duration::MAX);
        let opened = KafkaDeadLetters::new(self, place.to_owned(), limit, context.reporter);
        Ok(Arc::new(opened?))
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

/// Returns whether a text is `HOST:PORT`; an IPv6 address must be in brackets.
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

fn read_brokers(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let brokers = section.strings_or_string(key)?;
    let brokers: Vec<&str> = brokers.iter().flat_map(|brokers| brokers.split(',')).map(str::trim).collect();
    match brokers.iter().find(|broker| !is_broker(broker)) {
        None if !brokers.is_empty() => Some(brokers.join(",")),
        None => {
            section.complain(key, "the list is empty; give [\"HOST:PORT\"]");
            None
        }
        Some(bad) => {
            let expected = "a list of HOST:PORT such as [\"kafka-1:9092\", \"kafka-2:9092\"]";
            section.problem(key, bad, expected);
            None
        }
    }
}

fn read_topic(section: &mut Section<'_>, key: &'static str) -> Option<TopicTemplate> {
    let text = section.string(key)?;
    let wrong = |error| section.complain(key, format!("found \"{}\": {error}", text.escape_debug()));
    text.parse().map_err(wrong).ok()
}

/// The entry of the key `create_topic`, whose value is `true`, `false` or a table.
struct CreateTopicEntry;

impl Entry<Option<CreateTopic>> for CreateTopicEntry {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Option<CreateTopic>> {
        match section.flag_or_section(field) {
            None => Some(None),
            Some(FlagOrSection::Flag(create)) => Some(create.then(CreateTopic::default)),
            Some(FlagOrSection::Section(mut section)) => {
                let read = CreateTopic::read_keys(&mut section);
                section.finish();
                Some(read)
            }
        }
    }

    fn compare(
        self,
        field: &'static str,
        (before, after): (&Option<CreateTopic>, &Option<CreateTopic>),
        changes: &mut Changes,
    ) {
        if before != after {
            changes.value(field, (format!("{before:?}"), format!("{after:?}")), Reload::Yes);
        }
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        vec![Table::new(format!("[{field}]"), meaning, CreateTopic::rows())]
    }
}

impl OptionalEntry<Option<CreateTopic>> for CreateTopicEntry {
    fn default(self) -> Option<CreateTopic> {
        None
    }
}

/// The entry of the table `properties`, whose keys are those of librdkafka.
struct Properties;

impl Entry<BTreeMap<String, String>> for Properties {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
        Some(section.section(field).map(read_properties).unwrap_or_default())
    }

    fn compare(
        self,
        field: &'static str,
        (before, after): (&BTreeMap<String, String>, &BTreeMap<String, String>),
        changes: &mut Changes,
    ) {
        for (property, how) in Difference::between(before, after) {
            changes.note(&format!("{field}.{property}"), how, Reload::Yes);
        }
    }

    fn rows(self, _: &'static str, _: &str) -> Vec<Key> {
        Vec::new()
    }

    fn tables(self, field: &'static str, meaning: &str) -> Vec<Table> {
        vec![Table::new(format!("[{field}]"), meaning, Vec::new()).given("\"linger.ms\" = 20")]
    }
}

impl OptionalEntry<BTreeMap<String, String>> for Properties {
    fn default(self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

fn read_properties(section: Section<'_>) -> BTreeMap<String, String> {
    let (pairs, section) = section.into_pairs();
    let mut properties = BTreeMap::new();
    for (key, value) in pairs {
        let quoted = format!("\"{key}\"");
        if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == key) {
            section.complain(&quoted, format!("cannot be set: {why}"));
        } else if key.starts_with("plugin.") {
            section.complain(&quoted, "cannot be set: plugins are not loaded");
        } else if key == "security.protocol" {
            let text = "cannot be set: give [sink.tls] for TLS, [sink.sasl] for a password";
            section.complain(&quoted, text);
        } else if ["password", "secret", ".pem", "jaas"].iter().any(|part| key.contains(part)) {
            let text = "cannot be set: secrets are read from the environment or from files; see [sink.sasl] and [sink.tls]";
            section.complain(&quoted, text);
        } else if key.starts_with("max.in.flight") && value.parse::<u32>().map_or(true, |count| count > 5) {
            section.problem(&quoted, &value, "1 to 5, or records could be reordered");
        } else {
            properties.insert(key, value);
        }
    }
    properties
}

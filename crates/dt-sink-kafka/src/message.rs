//! Encodes a record for Kafka: topic, key, headers and value, in reused buffers.

use crate::settings::{KafkaConfig, RecordKey};
use dt_sink::record::{CloudEvent, Format, Record};
use dt_verify::event::rfc3339_millis;

/// The prefix of a CloudEvent's attributes in headers (CloudEvents, Kafka protocol binding 1.0, section 3.2.3).
const CE_PREFIX: &str = "ce_";

/// Returns the key of a record, as selected by `key` in the configuration; `None` if the record has none.
pub fn key<'a>(record: &'a Record, config: &KafkaConfig) -> Option<&'a str> {
    match config.key {
        RecordKey::Device => record.device.as_deref(),
        RecordKey::Project => record.project.as_deref(),
        RecordKey::Connector => Some(&record.connector),
        RecordKey::None => None,
    }
}

/// The encoded form of a record. The same value is filled again for each record.
#[derive(Debug, Default)]
pub struct Message {
    pub topic: String,
    key: Option<String>,
    value: Vec<u8>,
    /// The headers, as pairs of name and value.
    headers: Vec<(String, String)>,
}

impl Message {
    /// Creates a message from its parts.
    pub const fn new(
        topic: String,
        key: Option<String>,
        value: Vec<u8>,
        headers: Vec<(String, String)>,
    ) -> Self {
        Self { topic, key, value, headers }
    }

    /// Replaces the content by a record in the given format.
    pub fn fill(&mut self, record: &Record, config: &KafkaConfig, format: Format) {
        config.topic.render(record, &mut self.topic);
        self.key = key(record, config).map(str::to_owned);
        self.value.clear();
        format.write_value(record, &mut self.value);
        self.headers.clear();
        for (name, value) in [
            ("dt-event-id", &*record.event_id),
            ("dt-event-type", &*record.event_type),
            ("dt-connector", &*record.connector),
            ("dt-received-at", &*rfc3339_millis(record.received_at)),
        ] {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        if let Some(id) = &record.request_id {
            self.headers.push(("dt-request-id".to_owned(), id.as_str().to_owned()));
        }
        if let Some(source) = record.provenance.source() {
            self.headers.push(("dt-source".to_owned(), source.name().to_owned()));
        }
        if format == Format::CloudEvents {
            for (name, value) in CloudEvent::of(record).attributes() {
                // The protocol binding maps this one attribute to a header without the prefix.
                let name = match name {
                    "datacontenttype" => "content-type".to_owned(),
                    name => format!("{CE_PREFIX}{name}"),
                };
                self.headers.push((name, value.to_owned()));
            }
        }
    }

    /// Returns the approximate size of the message in a batch, in bytes.
    pub fn size(&self) -> usize {
        /// The size of a record's fixed fields in bytes, rounded up.
        const OVERHEAD: usize = 70;
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
        let key = self.key.as_ref().map_or(0, String::len);
        self.value.len().saturating_add(headers).saturating_add(key).saturating_add(OVERHEAD)
    }

    /// Returns the key of the message; `None` if it has none.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref().map(str::as_bytes)
    }

    /// Returns the value of the message.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Returns the headers as pairs of name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the number of headers.
    pub fn header_count(&self) -> usize {
        self.headers.len()
    }
}

//! A record as Kafka gets it: topic, key, headers and value, in buffers that are used again.

use crate::settings::{KafkaConfig, RecordKey};
use dt_sink::record::{CloudEvent, Format, Record};
use dt_verify::event::rfc3339_millis;

/// What stands before the attributes of a CloudEvent (CloudEvents, Kafka protocol binding 1.0, section 3.2.3).
const CE_PREFIX: &str = "ce_";

/// The key of a record.
pub(super) fn key<'a>(record: &'a Record, config: &KafkaConfig) -> Option<&'a str> {
    match config.key {
        RecordKey::Device => record.device.as_deref(),
        RecordKey::Project => record.project.as_deref(),
        RecordKey::Connector => Some(&record.connector),
        RecordKey::None => None,
    }
}

/// A message that is filled with one record after the other.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) topic: String,
    key: Option<String>,
    value: Vec<u8>,
    /// Names and values, one after the other.
    headers: Vec<(String, String)>,
}

impl Message {
    pub(super) const fn new(
        topic: String,
        key: Option<String>,
        value: Vec<u8>,
        headers: Vec<(String, String)>,
    ) -> Self {
        Self { topic, key, value, headers }
    }

    pub(super) fn fill(&mut self, record: &Record, config: &KafkaConfig, format: Format) {
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
        if format == Format::CloudEvents {
            for (name, value) in CloudEvent::of(record).attributes() {
                // The media type is the one attribute with a name of Kafka's own.
                let name = match name {
                    "datacontenttype" => "content-type".to_owned(),
                    name => format!("{CE_PREFIX}{name}"),
                };
                self.headers.push((name, value.to_owned()));
            }
        }
    }

    /// About how many bytes it takes in a batch.
    pub(super) fn size(&self) -> usize {
        /// What each record of a batch takes besides.
        const OVERHEAD: usize = 70;
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
        let key = self.key.as_ref().map_or(0, String::len);
        self.value.len().saturating_add(headers).saturating_add(key).saturating_add(OVERHEAD)
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.as_deref().map(str::as_bytes)
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many headers there are.
    pub(super) fn header_count(&self) -> usize {
        self.headers.len()
    }
}

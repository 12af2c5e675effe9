//! Encodes records as the body of a request: a single record, or a batch as lines or as a JSON array.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use dt_sink::Record;
use dt_sink::record::{CloudEvent, Format};

use crate::fields::Fields;

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain; charset=utf-8";
const CLOUD_EVENT: &str = "application/cloudevents+json";
const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// The largest length in bytes of an event id that becomes an idempotency key unchanged; a longer one is replaced by its digest.
const MAX_KEY: usize = 255;

/// The form in which a CloudEvent is sent (CloudEvents HTTP protocol binding 1.0, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CloudEventsMode {
    /// The attributes are sent as headers, and the body is the received one.
    #[default]
    Binary,
    /// The attributes and the body are sent as one JSON object.
    Structured,
}

/// The form in which the records of a batch are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchFormat {
    /// One line for each record.
    Ndjson,
    /// One JSON array of all records.
    JsonArray,
}

/// The error for a text that is not the name of a mode or of a batch format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownWord;

impl FromStr for CloudEventsMode {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "binary" => Ok(Self::Binary),
            "structured" => Ok(Self::Structured),
            _ => Err(UnknownWord),
        }
    }
}

impl fmt::Display for CloudEventsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "binary",
            Self::Structured => "structured",
        })
    }
}

impl FromStr for BatchFormat {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "ndjson" => Ok(Self::Ndjson),
            "json-array" => Ok(Self::JsonArray),
            _ => Err(UnknownWord),
        }
    }
}

impl fmt::Display for BatchFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ndjson => "ndjson",
            Self::JsonArray => "json-array",
        })
    }
}

/// Encodes the records of a request as its body, its content type, and for a CloudEvent in binary mode its headers.
#[derive(Debug, Clone)]
pub struct Encoder {
    pub format: Format,
    /// The members of each record's JSON object, in place of `format`; `None` if `format` applies.
    pub fields: Option<Fields>,
    pub cloud_events: CloudEventsMode,
    /// The form in which the records of a batch are joined; `None` if each request has one record.
    pub batch: Option<BatchFormat>,
}

/// An encoded request.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    pub body: Bytes,
    pub content_type: HeaderValue,
    /// The headers of a CloudEvent in binary mode; empty in any other case.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Encoder {
    /// Encodes the records of one request. They may be several only if the sink has batches.
    #[must_use]
    pub fn encode(&self, records: &[Arc<Record>]) -> Encoded {
        match (self.batch, records) {
            (None, [record]) => self.encode_one(record),
            (batch, _) => self.encode_batch(batch.unwrap_or(BatchFormat::Ndjson), records),
        }
    }

    fn encode_one(&self, record: &Record) -> Encoded {
        let encoded = |body: Bytes, content_type| Encoded {
            body,
            content_type: HeaderValue::from_static(content_type),
            headers: Vec::new(),
        };
        let mut out = Vec::new();
        if let Some(fields) = &self.fields {
            fields.write(record, &mut out);
            return encoded(out.into(), JSON);
        }
        match (self.format, self.cloud_events) {
            (Format::Body, _) => encoded(record.body.clone(), JSON),
            (Format::CloudEvents, CloudEventsMode::Binary) => {
                Encoded { headers: attributes(record), ..encoded(record.body.clone(), JSON) }
            }
            (Format::CloudEvents, CloudEventsMode::Structured) => {
                self.format.write_line(record, &mut out);
                out.pop();
                encoded(out.into(), CLOUD_EVENT)
            }
            (Format::Envelope, _) => {
                self.format.write_value(record, &mut out);
                encoded(out.into(), JSON)
            }
            _ => {
                self.format.write_line(record, &mut out);
                encoded(out.into(), TEXT)
            }
        }
    }

    fn encode_batch(&self, batch: BatchFormat, records: &[Arc<Record>]) -> Encoded {
        let mut out =
            Vec::with_capacity(records.iter().map(|record| record.body.len().saturating_add(256)).sum());
        for record in records {
            if batch == BatchFormat::JsonArray {
                out.push(if out.is_empty() { b'[' } else { b',' });
            }
            self.write_line(record, &mut out);
            if batch == BatchFormat::JsonArray {
                // The line feed.
                out.pop();
            }
        }
        if batch == BatchFormat::JsonArray {
            out.push(b']');
        }
        let (is_json, is_cloud_event) = match (&self.fields, self.format) {
            (Some(_), _) | (None, Format::Body | Format::Envelope) => (true, false),
            (None, Format::CloudEvents) => (true, true),
            (None, _) => (false, false),
        };
        let content_type = match batch {
            _ if !is_json => TEXT,
            BatchFormat::Ndjson => LINES,
            BatchFormat::JsonArray if is_cloud_event => CLOUD_EVENTS,
            BatchFormat::JsonArray => JSON,
        };
        Encoded {
            body: out.into(),
            content_type: HeaderValue::from_static(content_type),
            headers: Vec::new(),
        }
    }

    /// Appends a record as one line, with a line feed.
    fn write_line(&self, record: &Record, out: &mut Vec<u8>) {
        match &self.fields {
            Some(fields) => {
                fields.write(record, out);
                out.push(b'\n');
            }
            None => self.format.write_line(record, out),
        }
    }
}

/// Returns a digest of the event ids of a request. It is equal for another attempt with the same records, and different for any
/// other request.
#[must_use]
pub fn digest(records: &[Arc<Record>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for record in records {
        // The length keeps ids apart whatever they contain.
        digest.update(record.event_id.len().to_be_bytes());
        digest.update(record.event_id.as_bytes());
    }
    digest.finalize().into()
}

/// Returns the idempotency key of a request: the event id of a single record, or else `digest` in hexadecimal. `None` if it
/// cannot be part of a header.
///
/// The key of a batch must not be the id of one of its records: the next attempt may contain further records, which a target that
/// knows the key would drop.
#[must_use]
pub fn idempotency_key(records: &[Arc<Record>], digest: &[u8; 32]) -> Option<HeaderValue> {
    if let [record] = records
        && record.event_id.len() <= MAX_KEY
        && record.event_id.is_ascii()
        && let Ok(id) = HeaderValue::from_str(&record.event_id)
    {
        return Some(id);
    }
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&hex).ok()
}

/// Returns the attributes of a record as headers. The media type of the data is the content type of the request.
fn attributes(record: &Record) -> Vec<(HeaderName, HeaderValue)> {
    let event = CloudEvent::of(record);
    let attributes = event.attributes().filter(|(name, _)| *name != "datacontenttype");
    let header = |(name, value): (&'static str, &str)| {
        let name = HeaderName::try_from(format!("ce-{name}")).ok()?;
        Some((name, HeaderValue::from_str(&percent_encoded(value)).ok()?))
    };
    attributes.filter_map(header).collect()
}

/// Encodes a value as the HTTP binding of CloudEvents does (section 3.1.3.2): printable ASCII is unchanged, except for the space,
/// the double quote and the percent sign.
fn percent_encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "{\"event\":{\"eventId\":\"a\",\r\n\"v\":1.50e+1}}";

    fn record(id: &str) -> Arc<Record> {
        Arc::new(Record { body: Bytes::from_static(ODD.as_bytes()), ..Record::sample(id) })
    }

    fn encode(
        format: Format,
        cloud_events: CloudEventsMode,
        batch: Option<BatchFormat>,
        count: usize,
    ) -> (String, String) {
        let records: Vec<_> = (0..count).map(|number| record(&format!("id{number}"))).collect();
        let encoded = Encoder { format, fields: None, cloud_events, batch }.encode(&records);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        (text(&encoded.body), text(encoded.content_type.as_bytes()))
    }

    #[test]
    fn a_single_record_is_exact() {
        let (binary, structured) = (CloudEventsMode::Binary, CloudEventsMode::Structured);
        assert_eq!(encode(Format::Body, binary, None, 1), (ODD.to_owned(), JSON.to_owned()));
        assert_eq!(encode(Format::CloudEvents, binary, None, 1), (ODD.to_owned(), JSON.to_owned()));
        let (body, content_type) = encode(Format::Envelope, binary, None, 1);
        assert!(body.ends_with(&ODD[1..]) && content_type == JSON, "{body}");
        let (body, content_type) = encode(Format::CloudEvents, structured, None, 1);
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((value["id"].as_str(), content_type.as_str()), (Some("id0"), CLOUD_EVENT));
        assert!(!body.ends_with('\n'));
    }

    #[test]
    fn a_batch_is_lines_or_an_array_also_with_one_record() {
        let binary = CloudEventsMode::Binary;
        for count in [1, 3] {
            let (lines, content_type) = encode(Format::Body, binary, Some(BatchFormat::Ndjson), count);
            assert_eq!((lines.lines().count(), content_type.as_str()), (count, LINES));
            assert!(lines.ends_with('\n'));
            for (format, expected) in
                [(Format::Body, JSON), (Format::Envelope, JSON), (Format::CloudEvents, CLOUD_EVENTS)]
            {
                let (array, content_type) = encode(format, binary, Some(BatchFormat::JsonArray), count);
                let values: Vec<serde_json::Value> = serde_json::from_str(&array).expect("an array");
                assert_eq!((values.len(), content_type.as_str()), (count, expected));
            }
        }
    }

    #[test]
    fn attributes_are_headers_that_no_value_can_break() {
        let odd = Record { event_type: "a b\r\nX-Evil: 1\"%\u{e6}".into(), ..Record::sample("x") };
        let headers = attributes(&odd);
        let get = |name: &str| {
            headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str().expect("text"))
        };
        assert_eq!(get("ce-type"), Some("com.disruptive-technologies.a%20b%0D%0AX-Evil:%201%22%25%C3%A6"));
        assert_eq!(get("ce-id"), Some("x"));
        assert_eq!(get("ce-specversion"), Some("1.0"));
        assert_eq!(get("ce-datacontenttype"), None);
    }

    #[test]
    fn the_idempotency_key_is_the_event_id_or_a_digest_of_all_ids() {
        let key = |ids: &[&str]| {
            let records: Vec<_> = ids.iter().map(|id| record(id)).collect();
            let key = idempotency_key(&records, &digest(&records)).expect("a key");
            key.to_str().expect("text").to_owned()
        };
        assert_eq!(key(&["c82gg9catj3vmh4248og"]), "c82gg9catj3vmh4248og");
        let long = "x".repeat(256);
        for ids in [&["a", "b"][..], &["a\nb"], &["\u{e6}"], &[&*long]] {
            assert!(key(ids).len() == 64 && key(ids).bytes().all(|byte| byte.is_ascii_hexdigit()), "{ids:?}");
        }
        // Other records, another key: a longer batch, another order, other borders.
        let keys: std::collections::BTreeSet<String> =
            [&["a", "b"][..], &["a", "b", "c"], &["b", "a"], &["ab", ""], &["", "ab"]]
                .iter()
                .map(|ids| key(ids))
                .collect();
        assert_eq!(keys.len(), 5);
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    }
}

//! The representation of a record in line-based output: one JSON object a line, or lines of InfluxDB line protocol.

use std::fmt;
use std::str::FromStr;

use serde::Serializer as _;

use super::{CloudEvent, Record, line_protocol, write_on_one_line};
use dt_verify::event::append_rfc3339_millis;

/// The format in which a sink writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// The received body, unchanged.
    Body,
    /// The received JSON object, with the members `receivedAt` (RFC 3339, milliseconds), `connector`, `verifiedBy`,
    /// `source` (only of DT's API) and `requestId` (only of a request) inserted before its own members, which follow byte for byte.
    #[default]
    Envelope,
    /// A CloudEvent: a JSON object in line-based output; on Kafka, headers and the received bytes.
    CloudEvents,
    /// InfluxDB line protocol: a line for each time of the event's readings, none for an event without readings. See
    /// [`line_protocol`].
    LineProtocol,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Body, Self::Envelope, Self::CloudEvents, Self::LineProtocol];

    /// Returns the name of the format in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Envelope => "envelope",
            Self::CloudEvents => "cloudevents",
            Self::LineProtocol => "line-protocol",
        }
    }

    /// Appends the record as a single value, such as the value of a Kafka record: the received part is byte for byte the same. In
    /// line protocol, nothing is appended for an event without readings.
    pub fn write_value(self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::Body | Self::CloudEvents => out.extend_from_slice(&record.body),
            Self::Envelope => {
                write_head(record, out);
                out.extend_from_slice(members(&record.body));
            }
            Self::LineProtocol => {
                let start = out.len();
                line_protocol::write_lines(record, out);
                // Line feeds separate the lines.
                out.truncate(out.len().saturating_sub(1).max(start));
            }
        }
    }

    /// Appends the record as one line, with a line feed. In line protocol, an event can be several lines, or none.
    pub fn write_line(self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::LineProtocol => return line_protocol::write_lines(record, out),
            Self::Body => write_on_one_line(&record.body, out),
            Self::Envelope => {
                write_head(record, out);
                write_on_one_line(members(&record.body), out);
            }
            Self::CloudEvents => {
                let event = CloudEvent::of(record);
                for (place, (name, value)) in event.attributes().enumerate() {
                    out.push(if place == 0 { b'{' } else { b',' });
                    write_json_string(name, out);
                    out.push(b':');
                    write_json_string(value, out);
                }
                out.extend_from_slice(br#","data":"#);
                write_on_one_line(&record.body, out);
                out.push(b'}');
            }
        }
        out.push(b'\n');
    }
}

/// Writes the opening brace and the inserted members of the envelope, up to the received members.
fn write_head(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"receivedAt":""#);
    append_rfc3339_millis(record.received_at, out);
    out.extend_from_slice(br#"","connector":"#);
    write_json_string(&record.connector, out);
    out.extend_from_slice(br#","verifiedBy":"#);
    write_json_string(&record.provenance.verified_by(), out);
    if let Some(source) = record.provenance.source() {
        out.extend_from_slice(br#","source":"#);
        write_json_string(source.name(), out);
    }
    if let Some(id) = &record.request_id {
        out.extend_from_slice(br#","requestId":""#);
        // Digits and letters only, so nothing is escaped.
        out.extend_from_slice(id.as_str().as_bytes());
        out.push(b'"');
    }
    out.push(b',');
}

/// Returns the part of a body after the opening brace. The body of a record is a JSON object with at least the member `event`.
fn members(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii_start();
    body.strip_prefix(b"{").unwrap_or(body)
}

fn write_json_string(text: &(impl fmt::Display + ?Sized), out: &mut Vec<u8>) {
    // Writing text to a vector cannot fail.
    let _written = serde_json::Serializer::new(out).collect_str(text);
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a text that is not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format; expected body, envelope, cloudevents or line-protocol")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or(UnknownFormat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ApiSource, Provenance};
    use bytes::Bytes;

    #[test]
    fn an_envelope_names_the_source_of_an_event_of_the_api() {
        let pushed = Record { body: Bytes::from_static(br#" {"event":{}}"#), ..Record::sample("e1") };
        let fetched =
            |source| Record { provenance: Provenance::Api(source), received_at: 0, ..pushed.clone() };
        for (record, expected) in [
            (
                &pushed,
                r#""receivedAt":"1970-01-01T00:00:01.000Z","connector":"default","verifiedBy":"secret:a""#,
            ),
            (
                &fetched(ApiSource::Backfill),
                r#""receivedAt":"1970-01-01T00:00:00.000Z","connector":"default","verifiedBy":"api","source":"backfill""#,
            ),
            (
                &fetched(ApiSource::Stream),
                r#""receivedAt":"1970-01-01T00:00:00.000Z","connector":"default","verifiedBy":"api","source":"stream""#,
            ),
        ] {
            let mut out = Vec::new();
            Format::Envelope.write_line(record, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("{{{expected},\"event\":{{}}}}\n"));
        }
    }

    #[test]
    fn strings_are_escaped_as_json_wants_it() {
        for text in ["", "plant", "\"\\\u{1}\n", "\u{e6}\u{1f600}"] {
            let mut out = Vec::new();
            write_json_string(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).expect("a string"), text);
        }
    }
}

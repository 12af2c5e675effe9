//! How a record looks in line-based output: one JSON object, one line.

use std::fmt;
use std::str::FromStr;

use super::Record;
use crate::event::rfc3339_millis;

/// What a sink writes for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// The received bytes.
    Body,
    /// The received object, with `receivedAt` (RFC 3339, milliseconds), `connector` and `verifiedBy` put before its own
    /// members, which follow byte for byte.
    #[default]
    Envelope,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Body, Self::Envelope];

    /// The name used in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Envelope => "envelope",
        }
    }

    /// Appends the record as one line, with its line feed.
    pub fn write_line(self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::Body => write_on_one_line(&record.body, out),
            Self::Envelope => {
                out.extend_from_slice(br#"{"receivedAt":""#);
                out.extend_from_slice(rfc3339_millis(record.received_at).as_bytes());
                out.extend_from_slice(br#"","connector":"#);
                write_json_string(&record.connector, out);
                out.extend_from_slice(br#","verifiedBy":"#);
                write_json_string(&record.verified_by.to_string(), out);
                out.push(b',');
                write_on_one_line(members(&record.body), out);
            }
        }
        out.push(b'\n');
    }
}

/// What follows the opening brace. A record's body is a JSON object with at least the member `event`.
fn members(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii_start();
    body.strip_prefix(b"{").unwrap_or(body)
}

/// Raw CR and LF are legal only between JSON tokens, where a space means the same.
fn write_on_one_line(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json.trim_ascii());
    for byte in out.iter_mut().skip(start) {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

fn write_json_string(text: &str, out: &mut Vec<u8>) {
    let string = serde_json::Value::from(text).to_string();
    out.extend_from_slice(string.as_bytes());
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format; allowed are body, envelope")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or(UnknownFormat)
    }
}

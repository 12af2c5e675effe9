//! The row of an event: the values for the columns of `dt_events` and the parameters of `insert`, and the samples of the event.

use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use tokio_postgres::types::{Json, ToSql};

use dt_sink::Record;
use dt_verify::event::{ReadingValue, Timestamp};

use crate::statement::Parameter;

/// A part of the received body, for a column of type `jsonb`.
type JsonPart<'a> = Option<Json<&'a RawValue>>;

/// The row of one event.
#[derive(Debug)]
pub struct Row<'a> {
    pub event_id: &'a str,
    pub connector: &'a str,
    pub project: Option<&'a str>,
    pub device: Option<&'a str>,
    pub event_type: &'a str,
    pub timestamp: Option<SystemTime>,
    pub received_at: SystemTime,
    pub labels: JsonPart<'a>,
    pub data: JsonPart<'a>,
    pub body: &'a [u8],
    /// The values that the event reports, in DT's order.
    pub samples: Vec<Sample>,
    /// Why a column or a sample is missing; `None` if the row is complete.
    pub incomplete: Option<String>,
}

/// A value that an event reports, with the time at which it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub quantity: &'static str,
    pub unit: Option<&'static str>,
    pub time: SystemTime,
    pub value: Option<f64>,
    pub text: Option<String>,
}

/// Collects the reasons why a row is incomplete.
#[derive(Default)]
struct Reasons(Option<String>);

impl Reasons {
    fn add(&mut self, what: &str, why: &str) {
        let text = self.0.get_or_insert_default();
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(what);
        text.push_str(": ");
        text.push_str(why);
    }
}

/// The reason for a sample without a valid time.
const NO_TIME: &str = "no valid time";
/// The end of the year 9999, in Unix milliseconds.
const YEAR_9999: i64 = 253_402_300_799_999;
/// The reason for a value with the character U+0000, which neither `text` nor `jsonb` can hold.
const HAS_NUL: &str = "PostgreSQL cannot store the character U+0000";

impl<'a> Row<'a> {
    /// Makes the row of a record.
    ///
    /// # Errors
    ///
    /// The reason why the event can never be stored, in words fit for a log line.
    pub fn of(record: &'a Record) -> Result<Self, String> {
        for (name, text) in [("event id", &*record.event_id), ("event type", &*record.event_type)] {
            if text.contains('\0') {
                return Err(format!("{name}: {HAS_NUL}"));
            }
        }
        let mut reasons = Reasons::default();
        let mut text = |name: &str, text: Option<&'a str>| {
            let valid = text.filter(|text| !text.contains('\0'));
            if valid.is_none() && text.is_some() {
                reasons.add(name, HAS_NUL);
            }
            valid
        };
        let project = text("project", record.project.as_deref());
        let device = text("device", record.device.as_deref());
        let parts = record.json_parts();
        let labels = storable("labels", parts.labels, &mut reasons);
        let data = storable("data", parts.data, &mut reasons);
        let (mut timestamp, mut samples) = (None, Vec::new());
        match record.delivery() {
            Ok(delivery) => {
                if let Some(time) = &delivery.event.timestamp {
                    timestamp = system_time(time);
                    if timestamp.is_none() {
                        reasons.add("timestamp", NO_TIME);
                    }
                }
                for reading in delivery.readings() {
                    let time = reading.time.and_then(system_time);
                    let (value, text) = match reading.value {
                        ReadingValue::Number(value) => (Some(value), None),
                        ReadingValue::Text(text) => (None, Some(text)),
                        _ => continue,
                    };
                    match time {
                        None => reasons.add(reading.quantity, NO_TIME),
                        Some(_) if text.is_some_and(|text| text.contains('\0')) => {
                            reasons.add(reading.quantity, HAS_NUL);
                        }
                        Some(time) => samples.push(Sample {
                            quantity: reading.quantity,
                            unit: reading.unit,
                            time,
                            value,
                            text: text.map(str::to_owned),
                        }),
                    }
                }
            }
            Err(error) => reasons.add("body", &error.to_string()),
        }
        let received_at = Duration::from_millis(record.received_at.clamp(0, YEAR_9999).unsigned_abs());
        Ok(Self {
            event_id: &record.event_id,
            connector: &record.connector,
            project,
            device,
            event_type: &record.event_type,
            timestamp,
            received_at: SystemTime::UNIX_EPOCH.checked_add(received_at).unwrap_or(SystemTime::UNIX_EPOCH),
            labels,
            data,
            body: &record.body,
            samples,
            incomplete: reasons.0,
        })
    }

    /// Removes the columns `labels` and `data`, and adds the reason. Returns whether the row had any of them.
    pub fn drop_json(&mut self, error: &str) -> bool {
        let had_any = self.labels.take().is_some() | self.data.take().is_some();
        if had_any {
            let mut reasons = Reasons(self.incomplete.take());
            reasons.add("labels and data", error);
            self.incomplete = reasons.0;
        }
        had_any
    }

    /// Returns the value of a parameter of the statement `insert`.
    pub fn value(&self, parameter: Parameter) -> &(dyn ToSql + Sync) {
        match parameter {
            Parameter::EventId => &self.event_id,
            Parameter::Connector => &self.connector,
            Parameter::Project => &self.project,
            Parameter::Device => &self.device,
            Parameter::EventType => &self.event_type,
            Parameter::Timestamp => &self.timestamp,
            Parameter::ReceivedAt => &self.received_at,
            Parameter::Labels => &self.labels,
            Parameter::Data => &self.data,
            Parameter::Body => &self.body,
        }
    }
}

/// Converts a time; `None` if it is not RFC 3339. `timestamptz` can hold all years of RFC 3339.
fn system_time(time: &Timestamp) -> Option<SystemTime> {
    let (seconds, nanos) = (time.unix_seconds()?, time.subsec_nanos()?);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    whole?.checked_add(Duration::from_nanos(nanos.into()))
}

/// Returns a part of the body if `jsonb` can hold it; otherwise adds the reason and returns `None`.
fn storable<'a>(name: &str, part: Option<&'a RawValue>, reasons: &mut Reasons) -> JsonPart<'a> {
    let part = part?;
    if has_escaped_nul(part.get()) {
        reasons.add(name, HAS_NUL);
        return None;
    }
    Some(Json(part))
}

/// Returns whether a valid JSON text contains the escape `\u0000`.
fn has_escaped_nul(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let escape = rest.get(at.saturating_add(1)..).unwrap_or_default();
        if escape.starts_with("u0000") {
            return true;
        }
        // The character after the backslash may be another backslash.
        let escaped = escape.chars().next().map_or(0, char::len_utf8);
        rest = escape.get(escaped..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(body: &str) -> Record {
        Record {
            body: Bytes::copy_from_slice(body.as_bytes()),
            device: Some("d".into()),
            ..Record::sample("a")
        }
    }

    #[test]
    fn only_the_escape_of_u0000_is_found() {
        for (json, found) in [
            (r#""\u0000""#, true),
            (r#""a\\\u0000""#, true),
            (r#"{"\u0000":1}"#, true),
            (r#""\\u0000""#, false),
            (r#""\u00001""#, true),
            (r#""\u000a\é u0000""#, false),
            (r#""u0000""#, false),
        ] {
            assert_eq!(has_escaped_nul(json), found, "{json}");
        }
    }

    #[test]
    fn what_a_column_cannot_hold_is_null_with_the_reason() {
        let body = r#"{"event":{"eventId":"a","eventType":"temperature","timestamp":"soon","data":{"temperature":
            {"value":1.5,"updateTime":"never"}}},"labels":{"a":"\u0000"}}"#;
        let record = record(body);
        let row = Row::of(&record).expect("a row");
        assert!(row.labels.is_none() && row.timestamp.is_none() && row.data.is_some());
        assert_eq!(row.samples, []);
        assert_eq!(
            row.incomplete.as_deref(),
            Some(
                "labels: PostgreSQL cannot store the character U+0000; timestamp: no valid time; temperature: no valid time"
            )
        );
        let nul = Record { event_id: "a\0".into(), ..Record::sample("") };
        assert_eq!(
            Row::of(&nul).expect_err("no row"),
            "event id: PostgreSQL cannot store the character U+0000"
        );
    }

    #[test]
    fn times_keep_their_microseconds_on_both_sides_of_1970() {
        for (text, seconds, nanos) in [
            ("2022-02-10T11:22:13.123456Z", 1_644_492_133, 123_456_000),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("9999-12-30T21:59:59.999999Z", 253_402_207_199, 999_999_000),
        ] {
            let time = system_time(&Timestamp::new(text)).expect(text);
            assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos), "{text}");
        }
        let before = system_time(&Timestamp::new("1969-12-31T23:59:59.5Z")).expect("a time");
        assert_eq!(before, SystemTime::UNIX_EPOCH - Duration::from_millis(500));
        assert!(system_time(&Timestamp::new("0000-01-01T00:00:00Z")).is_some());
        assert_eq!(system_time(&Timestamp::new("soon")), None);
    }
}

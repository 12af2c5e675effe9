//! A record in InfluxDB line protocol, which InfluxDB, QuestDB, VictoriaMetrics, Telegraf and GreptimeDB read.
//!
//! An event is one line for each time of its [readings](dt_verify::event::Delivery::readings):
//!
//! ```text
//! temperature,device=b6roh6d7rihmn9oji86g,label_room=2.31,project=b5rj9ed7rihk942p48og,type=temperature temperature=24.9 1644492133123456000
//! ```
//!
//! | part | content |
//! |---|---|
//! | measurement | the event type |
//! | tags | `device`, `project`, `type` (the device's type), and `label_KEY` for each label in the body. DT sends the labels that the Data Connector lists, so they are chosen there. The prefix keeps a label apart from the other tags and from the fields |
//! | fields | the quantities: numbers always as floats, states as strings |
//! | time | Unix nanoseconds; the time of receipt, if the event has no time or one that 64 bits cannot hold |
//!
//! An event without readings is no line at all: `labelsChanged`, an unknown event type, an unreadable payload.
//!
//! # Escaping
//!
//! The specification is the page "Line protocol" of the InfluxDB documentation. In tags, comma, equals sign and space get a
//! backslash; in strings, quotation mark and backslash do. What it cannot express is replaced: a control character, such as a
//! line feed, by a space, and in tags a backslash by a slash, since readers disagree on backslashes there and none reads one at
//! the end. A tag without text is left out. So each line is one point, whatever a label contains.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::Record;
use dt_verify::event::{Delivery, Reading, ReadingValue};

/// The time of the readings of one line, in Unix nanoseconds.
type Nanos = i64;

/// Nanoseconds in a millisecond.
const PER_MILLI: i64 = 1_000_000;

/// Appends the lines of a record, each with its line feed.
pub fn write_lines(record: &Record, out: &mut Vec<u8>) {
    // A record is a delivery. One that is made by hand, without a body, has no readings either.
    let Ok(delivery) = record.delivery() else { return };
    let readings = delivery.readings();
    if readings.is_empty() {
        return;
    }
    let series = series(record, &delivery);
    let received = record.received_at.saturating_mul(PER_MILLI);
    let mut rest = readings.as_slice();
    while let Some(first) = rest.first() {
        let time = nanos(first).unwrap_or(received);
        // No field may be twice on a line.
        let ends = |(at, next): (usize, &Reading<'_>)| {
            nanos(next).unwrap_or(received) != time
                || rest.iter().take(at).any(|before| before.quantity == next.quantity)
        };
        let count = rest.iter().enumerate().position(|(at, next)| ends((at, next))).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        write_line(&series, line, time, out);
        rest = after;
    }
}

fn write_line(series: &[u8], readings: &[Reading<'_>], time: Nanos, out: &mut Vec<u8>) {
    out.extend_from_slice(series);
    for (place, reading) in readings.iter().enumerate() {
        out.push(if place == 0 { b' ' } else { b',' });
        // The names of quantities are ASCII, without special characters.
        out.extend_from_slice(reading.quantity.as_bytes());
        out.push(b'=');
        match reading.value {
            ReadingValue::Text(text) => write_string(text, out),
            // `Debug` writes a point or an exponent also for a whole number. Writing to a vector cannot fail.
            ReadingValue::Number(number) => drop(write!(out, "{number:?}")),
            _ => out.extend_from_slice(br#""""#),
        }
    }
    drop(writeln!(out, " {time}"));
}

/// Returns the time of a reading in Unix nanoseconds; `None` if the reading has no time, or one that 64 bits cannot hold.
/// InfluxDB reserves the two smallest numbers and the largest.
fn nanos(reading: &Reading<'_>) -> Option<Nanos> {
    let nanos = i64::try_from(reading.time?.unix_nanos()?).ok()?;
    (i64::MIN.saturating_add(2)..i64::MAX).contains(&nanos).then_some(nanos)
}

/// Returns the measurement and the tags, which all lines of a record share. The tags are sorted, as the specification recommends.
fn series(record: &Record, delivery: &Delivery) -> Vec<u8> {
    let device_type = delivery.metadata.as_ref().and_then(|metadata| metadata.device_type.as_deref());
    let mut tags = BTreeMap::new();
    for (key, text) in &delivery.labels {
        // Two keys may be the same once they are cleaned. The first one stays.
        tags.entry(format!("label_{}", cleaned(key))).or_insert(cleaned(text));
    }
    for (key, text) in
        [("device", record.device.as_deref()), ("project", record.project.as_deref()), ("type", device_type)]
    {
        tags.extend(text.map(|text| (key.to_owned(), cleaned(text))));
    }
    // An event with readings has a known type, whose name has no special characters.
    let mut out = delivery.event.event_type.as_str().as_bytes().to_vec();
    for (key, text) in tags.iter().filter(|(_, text)| !text.is_empty()) {
        out.push(b',');
        write_escaped(key, b", =", &mut out);
        out.push(b'=');
        write_escaped(text, b", =", &mut out);
    }
    out
}

/// Replaces the characters that a tag cannot contain.
fn cleaned(text: &str) -> String {
    let clean = |c: char| if c == '\\' { '/' } else { without_control(c) };
    text.chars().map(clean).collect()
}

/// Returns a space for a control character such as a line feed, and any other character unchanged.
fn without_control(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Appends a string in quotation marks.
fn write_string(text: &str, out: &mut Vec<u8>) {
    let text: String = text.chars().map(without_control).collect();
    out.push(b'"');
    write_escaped(&text, br#""\"#, out);
    out.push(b'"');
}

/// Appends a text with a backslash before each of these characters, which are ASCII.
fn write_escaped(text: &str, special: &[u8], out: &mut Vec<u8>) {
    for byte in text.bytes() {
        if special.contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests may fail loudly")]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use bytes::Bytes;
    use dt_verify::event::{EventType, Sample};
    use dt_verify::{Secret, Signer, Verifier};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::record::Format;

    /// Made by `line_protocol.py` beside it, whose lines an independent parser has read.
    const VECTORS: &str = include_str!("../../../../tests/vectors/line_protocol.json");

    fn record(body: &str, received_at: i64) -> Record {
        let secret = Secret::new("some-good-secret").unwrap();
        let token = Signer::secret(secret.clone()).sign(body.as_bytes(), 1_700_000_000, "jti").unwrap();
        let verifier = Verifier::builder().secret("a", secret).build().unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let verified = verifier.verify(&[("X-Dt-Signature", token)], body, 1_700_000_000).unwrap();
        Record::read(&verified, Arc::from("plant"), received_at).unwrap()
    }

    fn lines(record: &Record) -> String {
        let mut out = Vec::new();
        Format::LineProtocol.write_line(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_lines_are_the_known_answers() {
        let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
        assert!(vectors.len() > 30);
        for vector in vectors {
            let record = record(vector["body"].as_str().unwrap(), vector["received_at"].as_i64().unwrap());
            let expected: Vec<_> =
                vector["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
            let written = lines(&record);
            assert_eq!(written.lines().collect::<Vec<_>>(), expected, "{}", vector["name"]);
            assert!(written.is_empty() || written.ends_with('\n'));
            let mut value = b"before".to_vec();
            Format::LineProtocol.write_value(&record, &mut value);
            assert_eq!(String::from_utf8(value).unwrap(), format!("before{}", expected.join("\n")));
        }
    }

    #[test]
    fn a_record_without_a_delivery_has_no_lines() {
        assert_eq!(lines(&Record::sample("1")), "");
    }

    /// Splits a text at the first separator that no backslash precedes.
    fn split(text: &str, separator: char) -> (&str, &str) {
        let mut is_escaped = false;
        for (at, c) in text.char_indices() {
            if c == separator && !is_escaped {
                return (&text[..at], &text[at + c.len_utf8()..]);
            }
            is_escaped = c == '\\' && !is_escaped;
        }
        (text, "")
    }

    proptest! {
        /// Whatever the labels contain, each line is one point of this device with one tag for each of them.
        #[test]
        fn no_label_changes_what_a_line_means(
            labels in prop::collection::btree_map(r#"[a-c,= \\"\r\n\x00#]{0,4}"#, r#"[a-c,= \\"\r\n\x00\u{85}é#]{0,6}"#, 0..5),
            at in 0..EventType::KNOWN.len(),
            seed: u64,
        ) {
            let event_type = EventType::KNOWN[at].clone();
            let sample = Sample { event_type, event_id: "e", project: "p", device: "d", unix_millis: 1_700_000_000_000, seed };
            let mut body: Value = serde_json::from_str(&sample.body()).unwrap();
            body["labels"] = json!(labels);
            let record = record(&body.to_string(), 0);
            let keys: BTreeSet<_> = labels.keys().map(|key| cleaned(key)).collect();
            let mut count = 0;
            let text = lines(&record);
            for line in text.split_terminator('\n') {
                let (series, rest) = split(line, ' ');
                let (fields, time) = rest.rsplit_once(' ').unwrap();
                prop_assert!(!fields.is_empty() && time.parse::<i64>().is_ok(), "{}", line);
                let (measurement, mut tags) = split(series, ',');
                prop_assert_eq!(measurement, sample.event_type.as_str());
                let mut names = Vec::new();
                while !tags.is_empty() {
                    let (tag, after) = split(tags, ',');
                    let (name, value) = split(tag, '=');
                    prop_assert!(!value.is_empty() && !value.ends_with('\\'), "{}", line);
                    names.push(name);
                    tags = after;
                }
                prop_assert!(names.iter().filter(|name| name.starts_with("label_")).count() <= keys.len());
                prop_assert_eq!(names.iter().filter(|name| !name.starts_with("label_")).count(), 3, "{}", line);
                count += 1;
            }
            prop_assert!(count <= record.delivery().unwrap().readings().len());
            prop_assert_eq!(count == 0, sample.event_type == EventType::LabelsChanged);
        }
    }
}

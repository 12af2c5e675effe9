//! Reading authentic bodies. The bytes are the body; the target signs it.
//!
//! Envelope and delivery must agree on what a delivery is and on what it says, and both with an independent reading of the
//! body (`src/body.rs`); what a sink writes must be one line that still holds the event, or well-formed line protocol.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use dt_receiver_fuzz::NOW;
use dt_receiver_fuzz::body::{Reading, device, project};
use dt_server::sink::Format;
use dt_sink::record::Record;
use dt_verify::event::{Delivery, Envelope, NotADelivery, Timestamp};
use dt_verify::{Secret, Signer, Verified, Verifier};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static KEYS: LazyLock<(Signer, Verifier)> = LazyLock::new(|| {
    let secret = Secret::new("test-only-of-the-fuzzer").expect("not empty");
    let verifier = Verifier::builder().secret("only", secret.clone()).build().expect("a verifier");
    (Signer::secret(secret), verifier)
});

fuzz_target!(|body: &[u8]| {
    let (signer, verifier) = &*KEYS;
    let token = signer.sign(body, NOW, "ctsk3vmn6ktsvt2ibcvg").expect("any body can be signed");
    let headers = [(signer.header_name(), token)];
    let verified =
        verifier.verify(&headers, Bytes::copy_from_slice(body), NOW).expect("what was signed verifies");

    let (envelope, delivery) = (Envelope::parse(&verified), Delivery::parse(&verified));
    if is_ordinary(body) {
        it_says_what_an_independent_reading_says(body, &envelope);
    }
    match (envelope, delivery) {
        (Ok(envelope), Ok(delivery)) => {
            they_agree(&envelope, &delivery);
            assert!(!format!("{envelope:?}{delivery:?}").is_empty());
            lines_hold_the_event(&verified);
        }
        (Err(envelope), Err(delivery)) => {
            assert_eq!(envelope, delivery);
            assert!(NotADelivery::CODES.contains(&envelope.code()));
            let shown = format!("{envelope} {envelope:?}");
            assert!(!shown.chars().any(char::is_control), "{shown:?} is not fit for a log");
        }
        (envelope, delivery) => panic!("they disagree: {envelope:?}, {delivery:?}"),
    }
});

fn they_agree(envelope: &Envelope<'_>, delivery: &Delivery) {
    let event = &delivery.event;
    assert_eq!(envelope.event_id, event.event_id);
    assert_eq!(envelope.event_type, event.event_type.as_str());
    assert_eq!(envelope.target_name.as_deref(), event.target_name.as_deref());
    assert_eq!(envelope.timestamp.as_deref(), event.timestamp.as_ref().map(Timestamp::as_str));
    assert_eq!(envelope.project(), delivery.project());
    assert_eq!(envelope.device(), delivery.device());
    let device_id = delivery.metadata.as_ref().and_then(|metadata| metadata.device_id.as_deref());
    assert_eq!(envelope.metadata_device_id.as_deref(), device_id);
    for time in [event.timestamp.as_ref(), event.data.update_time()].into_iter().flatten() {
        assert_eq!(time, &Timestamp::new(time.to_string()));
        if let (Some(seconds), Some(nanos)) = (time.unix_seconds(), time.subsec_nanos()) {
            assert_eq!(time, &Timestamp::from_unix(seconds, nanos));
        }
    }
}

/// `serde_json` has private keys that make it take an object for something else; we do not follow it there.
fn is_ordinary(body: &[u8]) -> bool {
    !body.windows(7).any(|window| window == b"private")
}

fn it_says_what_an_independent_reading_says(body: &[u8], envelope: &Result<Envelope<'_>, NotADelivery>) {
    let not_json = matches!(envelope, Err(NotADelivery::NotUtf8 { .. } | NotADelivery::NotJson { .. }));
    let Some(reading) = Reading::of(body) else {
        assert!(not_json, "what serde_json does not take for JSON: {envelope:?}");
        return;
    };
    let refusals = reading.refusals();
    match envelope {
        Ok(envelope) => {
            assert!(refusals.is_empty(), "accepted in spite of {refusals:?}");
            let target_name = reading.text_in_event("targetName");
            let device_id = reading.text_in_metadata("deviceId");
            assert_eq!(Some(&*envelope.event_id), reading.text_in_event("eventId"));
            assert_eq!(Some(&*envelope.event_type), reading.text_in_event("eventType"));
            assert_eq!(envelope.target_name.as_deref(), target_name);
            assert_eq!(envelope.timestamp.as_deref(), reading.text_in_event("timestamp"));
            assert_eq!(envelope.metadata_device_id.as_deref(), device_id);
            assert_eq!(envelope.project(), target_name.and_then(project));
            let of_metadata = device_id.filter(|id| !id.is_empty());
            assert_eq!(envelope.device(), target_name.and_then(device).or(of_metadata));
        }
        Err(refusal) => assert!(refusals.contains(refusal), "{refusal:?} is none of {refusals:?}"),
    }
}

fn lines_hold_the_event(verified: &Verified<Bytes>) {
    let record = Record::read(verified, Arc::from("of \"the\" fuzzer"), NOW * 1000)
        .expect("what has an envelope makes a record");
    let reading = is_ordinary(verified.body()).then(|| Reading::of(verified.body())).flatten();
    if let Some(reading) = &reading {
        assert_eq!(Some(&*record.event_id), reading.text_in_event("eventId"));
        assert_eq!(Some(&*record.event_type), reading.text_in_event("eventType"));
        assert_eq!(record.project.as_deref(), reading.text_in_event("targetName").and_then(project));
    }
    for format in Format::ALL {
        let mut line = Vec::new();
        format.write_line(&record, &mut line);
        if format == Format::LineProtocol {
            points_are_well_formed(&record, &line);
            continue;
        }
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "more than one line");
        if format == Format::CloudEvents {
            // The object is one level deeper than the body, which may be as deep as can be read.
            let mut data = Vec::new();
            Format::Body.write_line(&record, &mut data);
            data.pop();
            data.push(b'}');
            let attributes = line.strip_suffix(data.as_slice()).expect("the received object is its data");
            let line: Value =
                serde_json::from_slice(&[attributes, b"null}"].concat()).expect("a line is JSON");
            assert_eq!(line["id"], *record.event_id);
            if let Some(reading) = &reading {
                let subject = reading.text_in_event("targetName").filter(|target| !target.is_empty());
                assert_eq!(line["subject"].as_str(), subject);
                let time = line["time"].as_str();
                assert!(time.is_none() || time == reading.text_in_event("timestamp"));
            }
        } else if is_ordinary(verified.body()) {
            let line: Value = serde_json::from_slice(&line).expect("a line is JSON");
            let body: Value = serde_json::from_slice(verified.body()).expect("a delivery is JSON");
            assert_eq!(line["event"], body["event"]);
            assert_eq!(line["labels"], body["labels"]);
            if format == Format::Envelope && body.get("connector").is_none() {
                assert_eq!(line["connector"], *record.connector);
                assert_eq!(line["verifiedBy"].as_str().is_some(), body.get("verifiedBy").is_none());
            }
        }
    }
}

/// Line protocol has at most a line for each reading, and each of them has a series, fields and a time: a text that could end one of
/// these parts early has a backslash or stands in quotation marks.
fn points_are_well_formed(record: &Record, lines: &[u8]) {
    let lines = std::str::from_utf8(lines).expect("text");
    let delivery = record.delivery().expect("a record is a delivery");
    let readings = delivery.readings();
    assert_eq!(lines.is_empty(), readings.is_empty());
    assert!(lines.split_terminator('\n').count() <= readings.len());
    for line in lines.split_terminator('\n') {
        assert!(!line.contains(char::is_control), "{line:?}");
        let (mut parts, mut is_escaped, mut is_quoted) = (vec![String::new()], false, false);
        for c in line.chars() {
            match c {
                // Only in a field; in a tag it is a character like any other.
                '"' if !is_escaped && parts.len() == 2 => is_quoted = !is_quoted,
                ' ' if !is_escaped && !is_quoted => parts.push(String::new()),
                c => parts.last_mut().expect("one").push(c),
            }
            is_escaped = c == '\\' && !is_escaped;
        }
        let [series, fields, time] = &parts[..] else { panic!("{} parts: {line:?}", parts.len()) };
        assert!(series.starts_with(&*record.event_type) && fields.contains('='), "{line:?}");
        time.parse::<i64>().expect("a time");
    }
}

//! Reading authentic bodies. The bytes are the body; the target signs it.
//!
//! Envelope and delivery must agree on what a delivery is and on what it says, `serde_json` on what JSON is, and what a
//! sink writes must be one line that still holds the event.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use dt_receiver::event::{Delivery, Envelope, NotADelivery, Timestamp};
use dt_receiver::record::Record;
use dt_receiver::sink::Format;
use dt_receiver::verify::{Secret, Signer, Verified, Verifier};
use dt_receiver_fuzz::NOW;
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
    json_is_what_serde_json_says(body, envelope.as_ref().err());
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

fn json_is_what_serde_json_says(body: &[u8], error: Option<&NotADelivery>) {
    if is_ordinary(body) {
        let not_json = matches!(error, Some(NotADelivery::NotUtf8 { .. } | NotADelivery::NotJson { .. }));
        assert_eq!(serde_json::from_slice::<Value>(body).is_err(), not_json, "{error:?}");
    }
}

fn lines_hold_the_event(verified: &Verified<Bytes>) {
    let record = Record::read(verified, Arc::from("of \"the\" fuzzer"), NOW * 1000)
        .expect("what has an envelope makes a record");
    for format in Format::ALL {
        let mut line = Vec::new();
        format.write_line(&record, &mut line);
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
        } else if is_ordinary(verified.body()) {
            let line: Value = serde_json::from_slice(&line).expect("a line is JSON");
            let body: Value = serde_json::from_slice(verified.body()).expect("a delivery is JSON");
            assert_eq!(line["event"], body["event"]);
            assert_eq!(line["labels"], body["labels"]);
        }
    }
}

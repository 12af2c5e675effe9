//! Records to deliver.

use std::sync::Arc;

use dt_receiver::record::Record;
use dt_receiver::verify::{Secret, Signer, Verifier};
use hyper::body::Bytes;

/// When the records were received: 2023-11-14T22:13:20.123Z.
const RECEIVED_AT: i64 = 1_700_000_000_123;

/// A verified record with exactly these bytes.
pub(crate) fn record_of(body: &str) -> Arc<Record> {
    let secret = Secret::new("some-good-secret").expect("not empty");
    let now = RECEIVED_AT / 1000;
    let token = Signer::secret(secret.clone()).sign(body.as_bytes(), now, "jti").expect("signed");
    let verifier = Verifier::builder().secret("primary", secret).build().expect("a verifier");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let verified = verifier.verify(&[("X-Dt-Signature", token)], body, now).expect("authentic");
    let record = Record::read(&verified, Arc::from("plant-1"), RECEIVED_AT);
    Arc::new(record.expect("a delivery"))
}

/// The body of the event of that number.
pub(crate) fn body(number: usize) -> String {
    format!(
        r#"{{"event":{{"eventId":"id{number}","eventType":"touch","data":{{"n":{number}.50}}}},"labels":{{}}}}"#
    )
}

/// The record of the event of that number.
pub(crate) fn record(number: usize) -> Arc<Record> {
    record_of(&body(number))
}

/// The same as the envelope shows it.
pub(crate) fn envelope(body: &str) -> String {
    let ours =
        r#""receivedAt":"2023-11-14T22:13:20.123Z","connector":"plant-1","verifiedBy":"secret:primary""#;
    format!("{{{ours},{}", &body[1..])
}

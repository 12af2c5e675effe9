//! The headers of a request: DT's signature as received, a new one, and everything else that a request carries.

use std::sync::Arc;

use bytes::Bytes;
use dt_sink::{Fate, Format, Record};
use dt_verify::{Secret, Signer, Verifier};
use hyper::header::HeaderMap;

use crate::driver::{Driver, Files, NOW, config, records};
use crate::target::{Arrived, Reply, Target};

const BODY: &str = "{\"event\": {\"eventId\":\"e1\",\r\n \"eventType\":\"touch\"}}";

fn files() -> Files {
    Files([("SIGN", "ours"), ("TOKEN", "t0ken"), ("KEY", "k")].map(|(n, v)| (n.to_owned(), v.into())).into())
}

/// A record as it is after DT's delivery, signed at this time.
fn signed(issued_at: i64) -> Arc<Record> {
    let signer = Signer::secret(Secret::new("dt").expect("not empty"));
    let token = signer.sign(BODY.as_bytes(), issued_at, "jti").expect("signed");
    let headers: HeaderMap =
        [("x-dt-signature".parse().expect("a name"), token.parse().expect("a value"))].into_iter().collect();
    Arc::new(Record {
        body: Bytes::from_static(BODY.as_bytes()),
        ..Record::sample("e1").with_headers(&headers)
    })
}

/// Which key verifies a request, at a time.
fn verified_by(arrived: &Arrived, now: i64) -> String {
    let secret = |text: &str| Secret::new(text).expect("not empty");
    let verifier = Verifier::builder().secret("dt", secret("dt")).secret("ours", secret("ours")).build();
    let headers = [("x-dt-signature", arrived.header("x-dt-signature"))];
    let verified = verifier.expect("a verifier").verify(&headers, arrived.body.as_bytes(), now);
    verified.map_or_else(|rejection| rejection.code().to_owned(), |verified| verified.by().to_string())
}

#[test]
fn dts_signature_is_forwarded_and_after_an_outage_a_new_one_is_made() {
    let target = Target::start(|_| Reply::Status(200));
    let keys = format!(
        "url = '{}'\nformat = 'body'\nforward_signature = true\nsign = {{ secret = {{ env = 'SIGN' }} }}",
        target.url()
    );
    let mut driver = Driver::with(config(&keys, &files()), Format::Body);
    for (later, expected) in
        [(0, "secret:dt"), (3000, "secret:dt"), (3400, "secret:ours"), (7200, "secret:ours")]
    {
        let now = NOW + later;
        driver.clock.set(now * 1000);
        assert_eq!(driver.deliver_one(signed(NOW)), Fate::Delivered);
        let arrived = target.take().remove(0);
        assert_eq!(arrived.body, BODY, "the exact bytes");
        assert_eq!(verified_by(&arrived, now), expected, "{later}");
    }
    assert_eq!(driver.count("signed"), 2);
}

#[test]
fn each_request_is_signed_also_a_batch() {
    let target = Target::start(|_| Reply::Status(200));
    for more in ["", "batch = { format = 'json-array' }"] {
        let keys = format!("url = '{}'\nsign = {{ secret = {{ env = 'SIGN' }} }}\n{more}", target.url());
        let mut driver = Driver::with(config(&keys, &files()), Format::Envelope);
        driver.deliver(&records(3, 2));
        let arrived = target.take();
        assert!(
            !arrived.is_empty() && arrived.iter().all(|arrived| verified_by(arrived, NOW) == "secret:ours")
        );
        assert_eq!(driver.count("signed"), u64::try_from(arrived.len()).expect("few"));
    }
}

#[test]
fn a_request_carries_what_was_chosen() {
    let target = Target::start(|_| Reply::Status(200));
    let keys = format!(
        "url = '{}?a=b'\nheaders = {{ X-Tenant = 'plant 1', Content-Type = 'application/vnd.x+json' }}\n\
         secret_headers = {{ X-Api-Key = {{ env = 'KEY' }} }}\nauth = {{ scheme = 'bearer', secret = {{ env = 'TOKEN' }} }}",
        target.url()
    );
    let mut driver = Driver::with(config(&keys, &files()), Format::Body);
    assert_eq!(driver.deliver_one(signed(NOW)), Fate::Delivered);
    let arrived = target.take().remove(0);
    assert_eq!((&*arrived.path, &*arrived.body), ("/events", BODY));
    for (name, value) in [
        ("authorization", "Bearer t0ken"),
        ("content-type", "application/vnd.x+json"),
        ("idempotency-key", "e1"),
        ("user-agent", concat!("dt-receiver/", env!("CARGO_PKG_VERSION"))),
        ("x-api-key", "k"),
        ("x-tenant", "plant 1"),
        ("x-dt-signature", ""),
    ] {
        assert_eq!(arrived.header(name), value, "{name}");
    }
    let mut driver = Driver::new(&target.url(), "");
    driver.deliver_one(signed(NOW));
    let arrived = target.take().remove(0);
    assert_eq!(arrived.header("content-type"), "application/json");
    assert_eq!(arrived.header("authorization"), "");
}

#[test]
fn a_cloudevent_is_headers_and_the_body_or_one_object() {
    let target = Target::start(|_| Reply::Status(200));
    for (mode, is_binary) in
        [("", true), ("cloudevents = 'binary'", true), ("cloudevents = 'structured'", false)]
    {
        let keys = format!("url = '{}'\n{mode}", target.url());
        let mut driver = Driver::with(config(&keys, &files()), Format::CloudEvents);
        assert_eq!(driver.deliver_one(signed(NOW)), Fate::Delivered);
        let arrived = target.take().remove(0);
        if is_binary {
            assert_eq!((&*arrived.body, arrived.header("content-type")), (BODY, "application/json"));
            assert_eq!((arrived.header("ce-id"), arrived.header("ce-specversion")), ("e1", "1.0"));
            assert_eq!(arrived.header("ce-type"), "com.disruptive-technologies.touch");
        } else {
            assert_eq!(
                (arrived.header("ce-id"), arrived.header("content-type")),
                ("", "application/cloudevents+json")
            );
            let event: serde_json::Value = serde_json::from_str(&arrived.body).expect("JSON");
            assert_eq!(
                (event["id"].as_str(), event["data"]["event"]["eventId"].as_str()),
                (Some("e1"), Some("e1"))
            );
        }
    }
}

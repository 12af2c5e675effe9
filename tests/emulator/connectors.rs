//! Connectors behave as DT's page "Configuring a Data Connector" says.

use dt_receiver::emulator::{DeliveryStatus, Emulator};
use dt_receiver::event::{Delivery, EventType};
use dt_receiver::verify::{KeySet, Policy, Secret, Verifier};
use serde_json::{Value, json};

use crate::target::{Got, Target, connect, device, publish};
use crate::wait::until;

async fn emulator() -> Emulator {
    Emulator::builder().start().await.expect("it starts")
}

fn touch() -> Value {
    json!({"touch": {}})
}

/// Waits until nothing is queued.
async fn drained(emulator: &Emulator) {
    until(|| (emulator.queued() == 0).then_some(())).await;
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn a_delivery_is_as_dt_sends_it_and_both_signatures_hold() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let more = json!({"labels": ["name", "no such"], "httpConfig": {"url": target.url, "signatureSecret": "s", "headers": {"my-header": "my-value"}}});
    connect(&emulator, &target.url, &more);
    let device = device(&emulator, "temperature", &json!({"name": "Cold store", "floor": "2"}));
    publish(&emulator, &device, &json!({"temperature": {"value": 24.9}}));
    let got = target.wait_for(1).await.remove(0);
    assert_eq!((&*got.method, &*got.path), ("POST", "/dt?a=b"));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("my-header"), Some("my-value"));
    let text = String::from_utf8(got.body.clone()).expect("UTF-8");
    assert!(text.starts_with(r#"{"event":{"eventId":""#), "{text}");
    assert!(!text.contains(": ") && !text.ends_with('\n'), "{text}");

    let keys = KeySet::from_jwks(emulator.jwks().as_bytes()).expect("a key set");
    let verifier = Verifier::builder()
        .secret("s", Secret::new("s").expect("a secret"))
        .key_set_of_issuer(keys, "emulator", emulator.issuer())
        .policy(Policy::Both)
        .build()
        .expect("a verifier");
    let verified = verifier.verify(&got.headers, &got.body, now()).expect("authentic");
    let delivery = Delivery::parse(&verified).expect("a delivery");
    assert_eq!(delivery.event.event_type, EventType::Temperature);
    assert_eq!(delivery.labels, [("name".to_owned(), "Cold store".to_owned())].into());
    let metadata = delivery.metadata.expect("metadata");
    assert_eq!(metadata.device_type.as_deref(), Some("temperature"));
    assert_eq!((metadata.project_id.as_deref(), metadata.product_number.as_deref()), (Some("p"), Some("")));
    assert_eq!(delivery.event.event_id.len(), 20);
    assert!(metadata.device_id.expect("an id").starts_with("emu"));
}

#[tokio::test]
async fn only_the_filtered_types_come() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let connector = connect(&emulator, &target.url, &json!({"events": ["temperature", "humidity"]}));
    let device = device(&emulator, "temperature", &json!({}));
    publish(&emulator, &device, &touch());
    publish(&emulator, &device, &json!({"temperature": {"value": 1}}));
    drained(&emulator).await;
    assert_eq!(target.types(), ["temperature"]);
    emulator.call("PATCH", &connector, &json!({"events": []})).expect("changed");
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    assert_eq!(target.types(), ["temperature", "touch"], "an empty filter lets all through");
}

#[tokio::test]
async fn labels_are_included_as_they_are_when_the_event_happens() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let connector = connect(&emulator, &target.url, &json!({}));
    let device = device(&emulator, "touch", &json!({"name": "Bell", "floor": "2"}));
    let name = device.strip_prefix("/v2/").expect("a path");
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    emulator.call("PATCH", &connector, &json!({"labels": ["name", "floor"]})).expect("changed");
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    let change = json!({"devices": [name], "addLabels": {"floor": "3"}, "removeLabels": ["name"]});
    emulator.call("POST", "/v2/projects/p/devices:batchUpdate", &change).expect("changed");
    drained(&emulator).await;
    let got: Vec<Value> = target.got().iter().map(Got::json).collect();
    assert_eq!(got[0]["labels"], json!({}), "none by default");
    assert_eq!(got[1]["labels"], json!({"name": "Bell", "floor": "2"}));
    assert_eq!(got[2]["event"]["eventType"], "labelsChanged");
    assert_eq!(
        got[2]["event"]["data"],
        json!({"added": {}, "modified": {"floor": "3"}, "removed": ["name"]})
    );
    assert_eq!(got[2]["labels"], json!({"floor": "3"}));
}

#[tokio::test]
async fn headers_are_added_to_every_event() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let connector = connect(&emulator, &target.url, &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    emulator
        .call("PATCH", &connector, &json!({"httpConfig": {"headers": {"a": "1", "B": "2"}}}))
        .expect("changed");
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    emulator.call("PATCH", &connector, &json!({"httpConfig": {"headers": {"c": "3"}}})).expect("changed");
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    let got = target.got();
    assert_eq!((got[0].header("a"), got[0].header("b"), got[0].header("c")), (Some("1"), Some("2"), None));
    assert_eq!(
        (got[1].header("a"), got[1].header("c")),
        (None, Some("3")),
        "the new headers replace the old ones"
    );
}

#[tokio::test]
async fn a_changed_secret_signs_the_next_event() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let connector = connect(&emulator, &target.url, &json!({"httpConfig": {"url": target.url}}));
    let device = device(&emulator, "touch", &json!({}));
    for secret in ["", "some-good-secret", "another", ""] {
        let change = json!({"httpConfig": {"signatureSecret": secret}});
        emulator.call("PATCH", &connector, &change).expect("changed");
        publish(&emulator, &device, &touch());
        drained(&emulator).await;
        let got = target.got().pop().expect("a request");
        assert_eq!(got.header("x-dt-signature").is_some(), !secret.is_empty(), "{secret:?}");
        assert!(got.header("dt-asymmetric-signature").is_some());
        if let Ok(secret) = Secret::new(secret) {
            let verifier = Verifier::builder().secret("s", secret).build().expect("a verifier");
            verifier.verify(&got.headers, &got.body, now()).expect("authentic");
        }
    }
}

#[tokio::test]
async fn a_disabled_connector_drops_its_queue_and_backfills_nothing() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let connector = connect(&emulator, &target.url, &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    target.answer(503);
    publish(&emulator, &device, &touch());
    target.wait_for(1).await;
    let shown = emulator.call("PATCH", &connector, &json!({"status": "USER_DISABLED"})).expect("changed");
    assert_eq!(shown["status"], "USER_DISABLED");
    assert_eq!(emulator.queued(), 0, "what was not delivered is dropped");
    target.answer(200);
    publish(&emulator, &device, &touch());
    emulator.call("POST", &format!("{connector}:sync"), &json!(null)).expect("a sync of nothing");
    assert_eq!(emulator.queued(), 0, "what happens meanwhile is never queued");
    let before = target.got().len();
    emulator.call("PATCH", &connector, &json!({"status": "ACTIVE"})).expect("changed");
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    assert_eq!(target.got().len(), before + 1, "only what happened after it was enabled");
    let fates: Vec<DeliveryStatus> = emulator.ledger().iter().map(|entry| entry.fate).collect();
    assert_eq!(fates, [DeliveryStatus::Dropped, DeliveryStatus::Acknowledged]);
    let history = emulator.call("GET", &format!("{device}/events"), &json!(null)).expect("a history");
    assert_eq!(history["events"].as_array().expect("events").len(), 3, "the rest is fetched by REST");
}

#[tokio::test]
async fn a_sync_sends_the_latest_event_of_each_type_of_each_device() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let first = device(&emulator, "temperature", &json!({}));
    let second = device(&emulator, "touch", &json!({}));
    for value in [1, 2, 3] {
        publish(&emulator, &first, &json!({"temperature": {"value": value}}));
    }
    publish(&emulator, &first, &touch());
    publish(&emulator, &second, &touch());
    let all = connect(&emulator, &target.url, &json!({}));
    assert_eq!(emulator.queued(), 0, "a new connector gets nothing old by itself");
    emulator.call("POST", &format!("{all}:sync"), &json!(null)).expect("synchronized");
    drained(&emulator).await;
    assert_eq!(target.types(), ["temperature", "touch", "touch"]);
    let latest = target.got().iter().map(Got::json).find(|got| got["event"]["eventType"] == "temperature");
    let latest = latest.expect("a temperature");
    assert_eq!(latest["event"]["data"]["temperature"]["value"], 3);
    let history = emulator.call("GET", &format!("{first}/events?eventTypes=temperature"), &json!(null));
    assert_eq!(
        history.expect("a history")["events"][0],
        latest["event"],
        "id and time are those of the event"
    );
    emulator.call("PATCH", &all, &json!({"events": ["touch"]})).expect("changed");
    emulator.call("POST", &format!("{all}:sync"), &json!(null)).expect("synchronized");
    drained(&emulator).await;
    assert_eq!(target.got().len(), 5, "a filter holds for a sync too");
}

#[tokio::test]
async fn all_connectors_of_a_project_get_all_its_events() {
    let (emulator, one, two) = (emulator().await, Target::start().await, Target::start().await);
    connect(&emulator, &one.url, &json!({}));
    connect(&emulator, &two.url, &json!({}));
    let other = json!({"type": "HTTP_PUSH", "httpConfig": {"url": one.url}});
    emulator.call("POST", "/v2/projects/other/dataconnectors", &other).expect("made");
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    assert_eq!((one.got().len(), two.got().len()), (1, 1));
}

#[tokio::test]
async fn metrics_count_successes_and_errors_and_say_why() {
    let (emulator, target) = (emulator().await, Target::start().await);
    let connector = connect(&emulator, &target.url, &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &touch());
    drained(&emulator).await;
    target.answer(302);
    publish(&emulator, &device, &touch());
    target.wait_for(2).await;
    target.answer(204);
    drained(&emulator).await;
    let metrics = emulator.call("GET", &format!("{connector}:metrics"), &json!(null)).expect("metrics");
    let metrics = &metrics["metrics"];
    assert_eq!(metrics["successCount"], 2, "any 2xx");
    assert_eq!(metrics["errorCount"], 1, "a redirect is not followed");
    assert_eq!(metrics["errors"], json!({"status_302": 1}));
    let latency = metrics["latency99p"].as_str().and_then(|text| text.strip_suffix('s')).expect("seconds");
    assert!(latency.parse::<f64>().expect("a number") > 0.0);
}

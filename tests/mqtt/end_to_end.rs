//! Events over HTTP, through the spool, to a broker, read back by another client: every event once, as it was sent, in order,
//! in each of the formats and versions.
//!
//! 5,000 events; `DT_RECEIVER_TEST_MQTT_EVENTS` sets the full count.

use std::time::Instant;

use crate::broker::{Broker, Message, Subscriber};
use crate::events::{body, id, setting};
use crate::load::Load;
use crate::seen::{Seen, has_properties};
use crate::setup::Setup;

const DEVICES: u64 = 32;

/// What the envelope writes before the received members.
fn is_envelope(message: &Message, device: u64, number: u64) -> bool {
    let head = message.text().strip_suffix(&body(device, number)[1..]);
    head.is_some_and(|head| {
        head.starts_with(r#"{"receivedAt":""#) && head.contains(r#","connector":"default","#)
    })
}

#[test]
fn every_event_arrives_once_as_it_was_sent_and_in_order() {
    let left_out = "events from end to end through MQTT";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "e2e/#", left_out) else { return };
    let events = setting("DT_RECEIVER_TEST_MQTT_EVENTS", 5_000);
    let address = broker.address();
    let other = |name: &str, format: &str, version: &str| {
        format!(
            "[[sink]]\nname = '{name}'\ntype = 'mqtt'\nbroker = '{address}'\nversion = '{version}'\nformat = '{format}'\n\
             topic = 'e2e/{name}/{{project}}/{{device}}/{{eventType}}'\n"
        )
    };
    let sinks = format!(
        "format = 'body'\ntopic = 'e2e/body/{{project}}/{{device}}/{{eventType}}'\n{}{}{}",
        other("envelope", "envelope", "3.1.1"),
        other("binary", "cloudevents", "5"),
        other("structured", "cloudevents", "3.1.1"),
    );
    let setup = Setup::new(&address, &sinks);
    let receiver = setup.start();
    let begun = Instant::now();
    let ledger = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).send();
    let sent = begun.elapsed();
    receiver.drain();
    let drained = begun.elapsed();
    assert!(setup.dead_letters().is_empty());
    receiver.stop();
    let all = ledger.count() * 4;
    let messages = subscriber.wait_for("all events", |messages| messages.len() >= all);
    let of = |name: &str| -> Vec<Message> {
        let prefix = format!("e2e/{name}/");
        messages.iter().filter(|message| message.topic.starts_with(&prefix)).cloned().collect()
    };
    let is_topic = |message: &Message, name: &str, device: u64| {
        message.topic == format!("e2e/{name}/p/dev{device}/touch") && !message.is_retained
    };
    Seen::new(&of("body"), |message, device, number| {
        is_topic(message, "body", device)
            && has_properties(message, device, number)
            && message.text() == body(device, number)
    })
    .assert_exact(&ledger);
    Seen::new(&of("envelope"), |message, device, number| {
        is_topic(message, "envelope", device) && is_envelope(message, device, number)
    })
    .assert_exact(&ledger);
    Seen::new(&of("binary"), |message, device, number| {
        is_topic(message, "binary", device)
            && has_properties(message, device, number)
            && message.property("specversion") == "1.0"
            && message.property("id") == id(device, number)
            && message.property("subject") == format!("projects/p/devices/dev{device}")
            && message.text() == body(device, number)
    })
    .assert_exact(&ledger);
    Seen::new(&of("structured"), |message, device, number| {
        let event = message.json();
        let sent: serde_json::Value = serde_json::from_str(&body(device, number)).expect("JSON");
        is_topic(message, "structured", device) && event["id"] == id(device, number) && event["data"] == sent
    })
    .assert_exact(&ledger);
    println!(
        "{} events answered in {sent:?}, slowest {:?}; published four times after {drained:?}, each once and in order",
        ledger.count(),
        ledger.slowest,
    );
}

//! Records that a broker does not take, or that have no valid topic: only they become dead letters, and nothing waits for them.

use std::fs;

use crate::broker::{Broker, Message, Subscriber};
use crate::events::{LONG, body, id};
use crate::load::Load;
use crate::seen::Seen;
use crate::setup::Setup;

/// The devices with events of an ordinary size.
const DEVICES: std::ops::Range<u64> = 0..4;

fn event(event_id: &str, event_type: &str, device: &str, labels: &str) -> String {
    format!(
        r#"{{"event":{{"eventId":"{event_id}","targetName":"projects/p/devices/{device}","eventType":"{event_type}","data":{{}}}},"labels":{labels}}}"#
    )
}

#[test]
fn odd_ids_and_labels_are_escaped_and_reach_no_other_topic() {
    let left_out = "odd topics";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "#", left_out) else { return };
    let sink = "format = 'body'\n[[sink]]\nname = 'old'\ntype = 'mqtt'\nversion = '3.1.1'\ntopic = 'old/{device}/{eventType}'";
    let setup =
        Setup::new(&broker.address(), &format!("{sink}\nbroker = '{}'\nformat = 'body'", broker.address()));
    let receiver = setup.start();
    let long = "x".repeat(50_000);
    let cases = [
        ("a+b#c", "touch", "a%2Bb%23c/touch"),
        ("#", "+", "%23/%2B"),
        (r"nul\u0000\u0001", r"tab\t", "nul%00%01/tab%09"),
        (r"\uffff\ufdd0", "$SYS", "%EF%BF%BF%EF%B7%90/%24SYS"),
        ("\u{e6} %2F", "{device}", "%C3%A6%20%252F/%7Bdevice%7D"),
    ];
    for (number, (device, event_type, _)) in cases.iter().enumerate() {
        let labels = format!(r#"{{"a\"b+/#\u0000":"{}","long":"{long}"}}"#, r#"quotes \" and \u0007"#);
        receiver.accept(&event(&format!("odd{number}\\n"), event_type, device, &labels));
    }
    receiver.accept(&body(1, 1));
    receiver.drain();
    assert!(setup.dead_letters().is_empty(), "{:?}", setup.dead_letters());
    receiver.stop();
    let is_event =
        |message: &&Message| message.topic.starts_with("dt/p/") || message.topic.starts_with("old/");
    let count = 2 * (cases.len() + 1);
    let messages = subscriber.wait_for("all", |messages| messages.iter().filter(is_event).count() >= count);
    let mut topics: Vec<_> = messages.iter().filter(is_event).map(|message| message.topic.clone()).collect();
    let mut expected: Vec<_> = cases
        .iter()
        .map(|case| case.2)
        .chain(["dev1/touch"])
        .collect::<Vec<_>>()
        .iter()
        .flat_map(|rest| [format!("dt/p/{rest}"), format!("old/{rest}")])
        .collect();
    topics.sort();
    expected.sort();
    assert_eq!(topics, expected);
    // Nothing else but the status of the two sinks.
    assert!(
        messages
            .iter()
            .filter(|message| !is_event(message))
            .all(|message| message.topic.starts_with("dt/receiver/"))
    );
    let odd =
        messages.iter().find(|message| message.topic.ends_with("/tab%09") && !message.properties.is_empty());
    assert_eq!(odd.expect("there").property("dt-event-id"), "odd2%0A");
}

/// Sends ordinary events and some that are too large, and returns the reasons of the dead letters.
fn with_large_events(options: &'static str, sink: &str) -> Option<Vec<String>> {
    let left_out = "packets that are too large";
    let broker = Broker::start_with(left_out, |_| format!("allow_anonymous true\n{options}\n"))?;
    let subscriber = Subscriber::start(&broker, "dt/p/#", left_out)?;
    let setup = Setup::new(&broker.address(), &format!("format = 'body'\n{sink}"));
    let receiver = setup.start();
    let large = [body(LONG, 1), body(LONG, 2)];
    receiver.accept(&large[0]);
    let mut ledger = Load::of(receiver.listen, DEVICES, 20).send();
    receiver.accept(&large[1]);
    ledger.add(Load::of(receiver.listen, DEVICES.end..DEVICES.end + 4, 20).send());
    // In MQTT 3.1.1, only events that go through show that it is not the network.
    let mut device = DEVICES.end + 4;
    while setup.dead_letters().len() < 2 {
        ledger.add(Load::of(receiver.listen, device..device + 2, 5).send());
        device += 2;
    }
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    let messages = subscriber
        .wait_for("all others", |messages| Seen::of_bodies(messages).events().len() >= ledger.count());
    let copies = Seen::of_bodies(&messages).assert_complete(&ledger);
    println!("{copies} copies");
    let mut letters = setup.dead_letters();
    letters.sort_by_key(|letter| letter["eventId"].to_string());
    let ids: Vec<_> = letters.iter().map(|letter| letter["eventId"].as_str().expect("an id")).collect();
    assert_eq!(ids, [id(LONG, 1), id(LONG, 2)]);
    Some(letters.iter().map(|letter| letter["error"].as_str().expect("text").to_owned()).collect())
}

#[test]
fn a_message_above_the_limit_of_the_broker_is_a_dead_letter_alone() {
    // The broker tells its limit.
    let Some(reasons) = with_large_events("max_packet_size 20000", "") else { return };
    println!("{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("the broker allows 20000")), "{reasons:?}");
}

#[test]
fn a_message_that_the_broker_rejects_is_a_dead_letter_alone() {
    let Some(reasons) = with_large_events("message_size_limit 20000", "") else { return };
    println!("{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("the packet is too large (0x95)")), "{reasons:?}");
}

#[test]
fn a_message_at_which_the_broker_closes_is_a_dead_letter_alone() {
    // MQTT 3.1.1 has no reason codes, so the broker closes the connection.
    let Some(reasons) = with_large_events("max_packet_size 20000", "version = '3.1.1'") else { return };
    println!("{reasons:?}");
    assert!(
        reasons.iter().all(|reason| reason.contains("closes the connection because of this record")),
        "{reasons:?}"
    );
}

#[test]
fn a_broker_that_rejects_everything_is_waited_for() {
    waits_for_a_broker_with("message_size_limit 10\n");
}

#[test]
fn a_broker_whose_limit_is_below_every_message_is_waited_for() {
    waits_for_a_broker_with("max_packet_size 300\n");
}

/// Sends events to a broker that takes none because of a line of its configuration, until that line is removed.
fn waits_for_a_broker_with(limit: &'static str) {
    let left_out = "a broker that rejects everything";
    let Some(mut broker) = Broker::start_with(left_out, |_| format!("allow_anonymous true\n{limit}")) else {
        return;
    };
    let setup = Setup::new(&broker.address(), "format = 'body'");
    let receiver = setup.start();
    Load::of(receiver.listen, DEVICES, 10).send();
    println!(
        "{}",
        receiver.wait_for_reason(&["sink mqtt", "10 records in a row were rejected; check the broker"])
    );
    assert_eq!(setup.dead_letters().len(), 10);
    let config = broker.folder().join("mosquitto.conf");
    let text = fs::read_to_string(&config).expect("read").replace(limit, "");
    fs::write(&config, text).expect("written");
    broker.stop();
    broker.start_again();
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    assert_eq!(setup.dead_letters().len(), 10);
}

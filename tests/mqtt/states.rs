//! Retained states: the newest of each device and quantity, also after late events and restarts; and the status of
//! the sink.

use crate::broker::{Broker, Subscriber, retain, retained};
use crate::common::Receiver;
use crate::proxy::Proxy;
use crate::setup::Setup;

const SINK: &str = "state_topic = 'state/{device}/{quantity}'";

fn temperature(event_id: &str, device: &str, time: &str, celsius: f64) -> String {
    format!(
        r#"{{"event":{{"eventId":"{event_id}","targetName":"projects/p/devices/{device}","eventType":"temperature","data":{{"temperature":{{"value":{celsius},"updateTime":"{time}"}}}},"timestamp":"{time}"}},"labels":{{}}}}"#
    )
}

/// Sends a temperature, and waits until it is published.
fn send(receiver: &Receiver, event_id: &str, time: &str, celsius: f64) {
    receiver.accept(&temperature(event_id, "d", time, celsius));
    receiver.drain();
}

fn state(event_id: &str, time: &str, celsius: &str) -> (String, String) {
    let payload = format!(r#"{{"eventId":"{event_id}","time":"{time}","unit":"°C","value":{celsius}}}"#);
    ("state/d/temperature".to_owned(), payload)
}

#[test]
fn a_late_event_does_not_replace_a_newer_state_whoever_was_restarted() {
    let left_out = "retained states";
    let Some(mut broker) = Broker::start(left_out) else { return };
    for version in ["5", "3.1.1"] {
        let setup = Setup::new(&broker.address(), &format!("{SINK}\nversion = '{version}'"));
        let receiver = setup.start();
        receiver.wait_until_ready();
        // Something of another program at the topic is replaced.
        retain(&broker, "state/d/temperature", "not ours");
        send(&receiver, "e1", "2024-01-01T00:10:00Z", 21.5);
        assert_eq!(retained(&broker, "state/#"), [state("e1", "2024-01-01T00:10:00Z", "21.5")]);
        send(&receiver, "late", "2024-01-01T00:05:00Z", 5.0);
        assert_eq!(retained(&broker, "state/#"), [state("e1", "2024-01-01T00:10:00Z", "21.5")]);
        send(&receiver, "e2", "2024-01-01T00:15:00.5Z", 22.0);
        assert_eq!(retained(&broker, "state/#"), [state("e2", "2024-01-01T00:15:00.5Z", "22")]);
        assert_eq!(receiver.count("dt_receiver_mqtt_states_total", ""), 2);
        assert_eq!(receiver.count("dt_receiver_mqtt_older_states_total", ""), 1);
        // The receiver forgets, the broker does not.
        receiver.kill();
        let receiver = setup.start();
        receiver.wait_until_ready();
        send(&receiver, "later", "2024-01-01T00:12:00Z", 6.0);
        assert_eq!(retained(&broker, "state/#"), [state("e2", "2024-01-01T00:15:00.5Z", "22")]);
        // A restarted broker has its retained messages, and the receiver reads them again.
        broker.stop();
        receiver.wait_for_reason(&["sink mqtt"]);
        broker.start_again();
        receiver.wait_until_ready();
        send(&receiver, "latest", "2024-01-01T00:14:00Z", 7.0);
        assert_eq!(retained(&broker, "state/#"), [state("e2", "2024-01-01T00:15:00.5Z", "22")]);
        send(&receiver, "e3", "2024-01-01T00:20:00Z", 23.0);
        assert_eq!(retained(&broker, "state/#"), [state("e3", "2024-01-01T00:20:00Z", "23")]);
        assert!(setup.dead_letters().is_empty());
        receiver.stop();
        retain(&broker, "state/d/temperature", "");
    }
}

#[test]
fn the_states_of_many_devices_are_read_with_at_most_eight_topics_in_a_packet() {
    let left_out = "retained states of many devices";
    let Some(broker) = Broker::start(left_out) else { return };
    let proxy = Proxy::start(broker.port());
    proxy.set_open(false);
    let setup = Setup::new(&proxy.address(), SINK);
    let receiver = setup.start();
    let time = "2024-01-01T00:10:00Z";
    for device in 0..100 {
        receiver.accept(&temperature(&format!("e{device}"), &format!("d{device}"), time, 20.5));
    }
    // Every tenth device has a newer state.
    let newer = r#"{"time":"2024-01-01T00:11:00Z","value":1}"#;
    for device in (0..100).step_by(10) {
        retain(&broker, &format!("state/d{device}/temperature"), newer);
    }
    proxy.set_open(true);
    receiver.drain();
    receiver.stop();
    let states = retained(&broker, "state/#");
    assert_eq!((states.len(), states.iter().filter(|(_, payload)| payload == newer).count()), (100, 10));
    let subscribed = proxy.subscribed();
    assert_eq!(
        (subscribed.iter().sum::<usize>(), subscribed.iter().max()),
        (100, Some(&8)),
        "{subscribed:?}"
    );
}

#[test]
fn the_status_topic_tells_whether_the_sink_is_connected() {
    let left_out = "the status of an MQTT sink";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/receiver/#", left_out) else { return };
    let setup = Setup::new(&broker.address(), "");
    let status = |count: usize, expected: &str| {
        let messages = subscriber.wait_for(expected, |messages| messages.len() >= count);
        assert_eq!((messages.len(), messages[count - 1].text()), (count, expected));
        assert_eq!(messages[count - 1].topic, "dt/receiver/dt-receiver-mqtt");
        assert_eq!(retained(&broker, "dt/receiver/#")[0].1, expected);
    };
    let receiver = setup.start();
    receiver.wait_until_ready();
    status(1, "online");
    receiver.stop();
    status(2, "offline");
    let receiver = setup.start();
    receiver.wait_until_ready();
    status(3, "online");
    // A receiver that is killed: the broker publishes the last will, after some seconds in which it could come back.
    receiver.kill();
    status(4, "offline");
}

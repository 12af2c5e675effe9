//! Discovery of Home Assistant: each of DT's event types that reports something has entities, with states that they can read.
//!
//! With `DT_RECEIVER_TEST_HOME_ASSISTANT`, a Python that has the package `homeassistant`, its own schemas validate each message.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::broker::{Broker, retained, script};
use crate::setup::Setup;

const TIME: &str = "2024-01-01T00:00:00.000000Z";

/// Each event type with its data, and the entities that it makes: component and quantity.
fn event_types() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    vec![
        ("touch", json!({}), vec!["sensor/touch"]),
        (
            "temperature",
            json!({"value": 20.5, "samples": [{"value": 20.5, "sampleTime": TIME}]}),
            vec!["sensor/temperature"],
        ),
        (
            "humidity",
            json!({"temperature": 22, "relativeHumidity": 40.5}),
            vec!["sensor/temperature", "sensor/relativeHumidity"],
        ),
        ("co2", json!({"ppm": 526}), vec!["sensor/co2"]),
        ("pressure", json!({"pascal": 101_325}), vec!["sensor/pressure"]),
        ("objectPresent", json!({"state": "PRESENT"}), vec!["binary_sensor/objectPresent"]),
        ("objectPresentCount", json!({"total": 469}), vec!["sensor/objectPresentCount"]),
        ("touchCount", json!({"total": 469}), vec!["sensor/touchCount"]),
        ("waterPresent", json!({"state": "NOT_PRESENT"}), vec!["binary_sensor/waterPresent"]),
        ("motion", json!({"state": "MOTION_DETECTED"}), vec!["binary_sensor/motion"]),
        ("deskOccupancy", json!({"state": "OCCUPIED", "remarks": []}), vec!["binary_sensor/deskOccupancy"]),
        ("contact", json!({"state": "OPEN"}), vec!["binary_sensor/contact"]),
        ("probeWireStatus", json!({"state": "THREE_WIRE"}), vec!["sensor/probeWireStatus"]),
        ("batteryStatus", json!({"percentage": 90}), vec!["sensor/batteryStatus"]),
        (
            "networkStatus",
            json!({"signalStrength": 40, "rssi": -70, "transmissionMode": "LOW_POWER_STANDARD_MODE", "cloudConnectors": []}),
            vec!["sensor/signalStrength", "sensor/rssi", "sensor/transmissionMode"],
        ),
        ("labelsChanged", json!({"added": {}, "modified": {}, "removed": []}), vec![]),
        (
            "connectionStatus",
            json!({"connection": "ETHERNET", "available": ["ETHERNET"]}),
            vec!["sensor/connectionStatus"],
        ),
        (
            "ethernetStatus",
            json!({"macAddress": "f0:b5", "ipAddress": "10.0.0.2", "errors": []}),
            vec!["sensor/ipAddress"],
        ),
        ("cellularStatus", json!({"signalStrength": 80, "errors": []}), vec!["sensor/signalStrength"]),
        ("brandNew", json!({"value": 1}), vec![]),
    ]
}

/// The body of an event of a device of its own.
fn body(event_type: &str, data: &Value) -> String {
    let mut data = data.clone();
    let data = if event_type == "labelsChanged" {
        data
    } else {
        data["updateTime"] = TIME.into();
        json!({ event_type: data })
    };
    json!({
        "event": {"eventId": format!("id-{event_type}"), "targetName": format!("projects/p/devices/dev-{event_type}"),
            "eventType": event_type, "data": data, "timestamp": TIME},
        "labels": {"name": format!("My {event_type} \"sensor\"")},
        "metadata": {"deviceId": format!("dev-{event_type}"), "projectId": "p", "deviceType": "sensor", "productNumber": "102058"},
    })
    .to_string()
}

#[test]
fn each_event_type_has_entities_with_states_that_they_can_read() {
    let left_out = "discovery of Home Assistant";
    let Some(broker) = Broker::start(left_out) else { return };
    let setup = Setup::new(&broker.address(), "home_assistant = true");
    let receiver = setup.start();
    let event_types = event_types();
    for (event_type, data, _) in &event_types {
        receiver.accept(&body(event_type, data));
    }
    receiver.drain();
    assert!(setup.dead_letters().is_empty(), "{:?}", setup.dead_letters());
    receiver.stop();
    let configs: BTreeMap<String, Value> = retained(&broker, "homeassistant/#")
        .into_iter()
        .map(|(topic, payload)| (topic, serde_json::from_str(&payload).expect("JSON")))
        .collect();
    let states: BTreeMap<String, Value> = retained(&broker, "dt/p/#")
        .into_iter()
        .map(|(topic, payload)| (topic, serde_json::from_str(&payload).expect("JSON")))
        .collect();
    let mut expected = Vec::new();
    for (event_type, _, entities) in &event_types {
        for entity in entities {
            let (component, quantity) = entity.split_once('/').expect("two parts");
            let topic = format!("homeassistant/{component}/dev-{event_type}/{quantity}/config");
            let config = configs.get(&topic).unwrap_or_else(|| panic!("no {topic} in {:?}", configs.keys()));
            assert_eq!(config["availability_topic"], "dt/receiver/dt-receiver-mqtt");
            assert_eq!(config["device"]["name"], format!("My {event_type} \"sensor\""));
            let state = &states[config["state_topic"].as_str().expect("text")];
            assert_eq!(state["time"], TIME);
            if component == "binary_sensor" {
                assert!(
                    [&config["payload_on"], &config["payload_off"]].contains(&&state["value"]),
                    "{config} {state}"
                );
            }
            expected.push(topic);
        }
    }
    expected.sort();
    assert_eq!(configs.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(configs.len(), states.len());
    validate(&configs);
}

/// Has Home Assistant's own schemas validate the messages.
fn validate(configs: &BTreeMap<String, Value>) {
    let Some(python) = std::env::var_os("DT_RECEIVER_TEST_HOME_ASSISTANT") else {
        println!("{} messages, not validated without DT_RECEIVER_TEST_HOME_ASSISTANT", configs.len());
        return;
    };
    let mut child = Command::new(python)
        .arg(script("discovery.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut input = child.stdin.take().expect("a pipe");
    for (topic, payload) in configs {
        writeln!(input, "{}", json!({"topic": topic, "payload": payload})).expect("written");
    }
    drop(input);
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success(), "{output:?}");
    let valid = String::from_utf8(output.stdout).expect("text");
    assert_eq!(valid.lines().count(), configs.len());
    println!("Home Assistant accepts {} messages:\n{valid}", configs.len());
}

//! MQTT discovery of Home Assistant: one retained message for each device and quantity, from which Home Assistant creates an
//! entity (Home Assistant's page "MQTT", section "MQTT Discovery").

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use dt_verify::event::Delivery;
use serde_json::{Map, Value, json};

use crate::packet::{Message, OFFLINE, ONLINE};
use crate::state::State;

/// The largest number of entities whose announcement is remembered. If there are more, all are announced again.
const MAX_KNOWN: usize = 100_000;

/// The representation of a quantity in Home Assistant.
struct Entity {
    /// The name of the entity, without that of the device.
    name: &'static str,
    kind: Kind,
    device_class: Option<&'static str>,
    /// Whether the quantity describes the device itself, and not its surroundings.
    is_diagnostic: bool,
}

enum Kind {
    /// A measured number.
    Measurement,
    /// A number that only increases.
    Total,
    /// A text.
    Text,
    /// The time of the last event.
    Time,
    /// One of two states. Contains the values for on and off.
    Binary(&'static str, &'static str),
}

const fn entity(name: &'static str, kind: Kind, device_class: Option<&'static str>) -> Entity {
    Entity { name, kind, device_class, is_diagnostic: false }
}

const fn diagnostic(name: &'static str, kind: Kind, device_class: Option<&'static str>) -> Entity {
    Entity { name, kind, device_class, is_diagnostic: true }
}

/// Returns the representation of a quantity in Home Assistant.
fn entity_of(quantity: &'static str) -> Entity {
    use Kind::{Binary, Measurement, Text, Time, Total};
    match quantity {
        "temperature" => entity("Temperature", Measurement, Some("temperature")),
        "relativeHumidity" => entity("Humidity", Measurement, Some("humidity")),
        "co2" => entity("CO2", Measurement, Some("carbon_dioxide")),
        "pressure" => entity("Pressure", Measurement, Some("pressure")),
        "touch" => entity("Last touch", Time, Some("timestamp")),
        "touchCount" => entity("Touches", Total, None),
        "objectPresentCount" => entity("Object count", Total, None),
        "objectPresent" => entity("Object", Binary("PRESENT", "NOT_PRESENT"), Some("presence")),
        "waterPresent" => entity("Water", Binary("PRESENT", "NOT_PRESENT"), Some("moisture")),
        "motion" => entity("Motion", Binary("MOTION_DETECTED", "NO_MOTION_DETECTED"), Some("motion")),
        "deskOccupancy" => entity("Occupancy", Binary("OCCUPIED", "NOT_OCCUPIED"), Some("occupancy")),
        "contact" => entity("Contact", Binary("OPEN", "CLOSED"), Some("opening")),
        "batteryStatus" => diagnostic("Battery", Measurement, Some("battery")),
        "signalStrength" => diagnostic("Signal", Measurement, None),
        "rssi" => diagnostic("RSSI", Measurement, Some("signal_strength")),
        "transmissionMode" => diagnostic("Transmission mode", Text, None),
        "connectionStatus" => diagnostic("Connection", Text, None),
        "ipAddress" => diagnostic("IP address", Text, None),
        "probeWireStatus" => diagnostic("Probe wires", Text, None),
        other => entity(other, Text, None),
    }
}

/// Creates the discovery messages: one for each entity and connection, and another one when a device gets another name.
#[derive(Debug)]
pub struct Discovery {
    prefix: String,
    status_topic: String,
    /// A hash of the last message for each announced entity, by its topic.
    announced: HashMap<String, u64>,
    hasher: RandomState,
}

impl Discovery {
    /// Creates a source of messages below the discovery prefix. Entities are available while the status topic is `online`.
    pub fn new(prefix: String, status_topic: String) -> Self {
        Self { prefix, status_topic, announced: HashMap::new(), hasher: RandomState::new() }
    }

    /// Forgets all announcements, so that all entities are announced again.
    pub fn clear(&mut self) {
        self.announced.clear();
    }

    /// Forgets the announcement of an entity whose message was not accepted, so that it is announced again.
    pub fn forget(&mut self, topic: &str) {
        self.announced.remove(topic);
    }

    /// Returns the discovery message for a state's entity; `None` if it is already announced.
    pub fn message(&mut self, state: &State<'_>, delivery: &Delivery, device: &str) -> Option<Message> {
        let quantity = state.reading.quantity;
        let entity = entity_of(quantity);
        let component = if matches!(entity.kind, Kind::Binary(..)) { "binary_sensor" } else { "sensor" };
        let topic =
            format!("{}/{component}/{}/{}/config", self.prefix, object_id(device), object_id(quantity));
        let name = delivery.labels.get("name").filter(|name| !name.is_empty());
        // A connector may omit the labels that another one sends.
        if name.is_none() && self.announced.contains_key(&topic) {
            return None;
        }
        let payload = config(state, &entity, &self.status_topic, device_block(delivery, device, name));
        let payload = payload.to_string().into_bytes();
        let hash = self.hasher.hash_one(&payload);
        if self.announced.get(&topic) == Some(&hash) {
            return None;
        }
        if self.announced.len() >= MAX_KNOWN {
            self.announced.clear();
        }
        self.announced.insert(topic.clone(), hash);
        Some(Message::retained(topic, payload))
    }
}

/// Returns the configuration of an entity, as JSON.
fn config(state: &State<'_>, entity: &Entity, status_topic: &str, device: Value) -> Value {
    let unique_id = device.pointer("/identifiers/0").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut members = Map::new();
    let mut set = |key: &str, value: Value| drop(members.insert(key.to_owned(), value));
    set("name", entity.name.into());
    set("unique_id", format!("{unique_id}_{}", state.reading.quantity).into());
    set("state_topic", state.topic.as_str().into());
    set("availability_topic", status_topic.into());
    set("payload_available", ONLINE.into());
    set("payload_not_available", OFFLINE.into());
    set("qos", 1.into());
    set("device", device);
    set("origin", json!({"name": "dt-receiver", "sw_version": env!("CARGO_PKG_VERSION")}));
    set("value_template", "{{ value_json.value }}".into());
    if let Some(class) = entity.device_class {
        set("device_class", class.into());
    }
    if let Some(unit) = state.reading.unit {
        set("unit_of_measurement", unit.into());
    }
    if entity.is_diagnostic {
        set("entity_category", "diagnostic".into());
    }
    match entity.kind {
        Kind::Measurement => set("state_class", "measurement".into()),
        Kind::Total => set("state_class", "total_increasing".into()),
        Kind::Text => {}
        Kind::Time => set("value_template", "{{ value_json.time }}".into()),
        Kind::Binary(on, off) => {
            set("payload_on", on.into());
            set("payload_off", off.into());
        }
    }
    Value::Object(members)
}

/// Returns the description of a device, as JSON. Home Assistant groups entities by its identifier.
fn device_block(delivery: &Delivery, device: &str, name: Option<&String>) -> Value {
    let metadata = delivery.metadata.as_ref();
    let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let model = text(metadata.and_then(|metadata| metadata.device_type.as_ref()));
    let product = text(metadata.and_then(|metadata| metadata.product_number.as_ref()));
    let mut block = json!({
        "identifiers": [format!("dt_{}", object_id(device))],
        "name": name.map_or(device, String::as_str),
        "manufacturer": "Disruptive Technologies",
    });
    if let Some(members) = block.as_object_mut() {
        let model = [model, product].into_iter().flatten().collect::<Vec<_>>().join(" ");
        if !model.is_empty() {
            members.insert("model".to_owned(), model.into());
        }
    }
    block
}

/// Returns a text in the characters that Home Assistant allows in a discovery topic: `a-z A-Z 0-9 _ -`. Any other byte becomes
/// `_` and two hexadecimal digits.
fn object_id(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("_{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use dt_sink::record::Record;

    fn record(body: &str) -> Record {
        Record {
            device: Some("d/1".into()),
            body: Bytes::copy_from_slice(body.as_bytes()),
            ..Record::sample("e1")
        }
    }

    fn body(event_type: &str, data: &str, labels: &str) -> String {
        format!(
            r#"{{"event":{{"eventId":"e1","eventType":"{event_type}","data":{{"{event_type}":{data}}}}},"labels":{labels},
                "metadata":{{"deviceType":"ccon","productNumber":"102058"}}}}"#
        )
    }

    fn messages(discovery: &mut Discovery, body: &str) -> Vec<(String, Value)> {
        let record = record(body);
        let delivery = record.delivery().expect("a delivery");
        let topic = "dt/{device}/{quantity}".parse().expect("a topic");
        let states = State::of(&record, &delivery, &topic).expect("short");
        let messages = states.iter().filter_map(|state| discovery.message(state, &delivery, "d/1"));
        messages.map(|m| (m.topic, serde_json::from_slice(&m.payload).expect("JSON"))).collect()
    }

    fn discovery() -> Discovery {
        Discovery::new("homeassistant".to_owned(), "status".to_owned())
    }

    #[test]
    fn an_entity_is_announced_once_and_again_with_a_new_name() {
        let mut discovery = discovery();
        let named = |name: &str| body("contact", r#"{"state":"OPEN"}"#, &format!(r#"{{"name":"{name}"}}"#));
        let first = messages(&mut discovery, &named("Door"));
        let [(topic, config)] = &first[..] else { panic!("{first:?}") };
        assert_eq!(topic, "homeassistant/binary_sensor/d_2f1/contact/config");
        assert_eq!(config["state_topic"], "dt/d%2F1/contact");
        assert_eq!(config["device"]["name"], "Door");
        assert_eq!(config["device"]["model"], "ccon 102058");
        assert_eq!((&config["payload_on"], &config["payload_off"]), (&json!("OPEN"), &json!("CLOSED")));
        assert!(messages(&mut discovery, &named("Door")).is_empty());
        assert!(messages(&mut discovery, &body("contact", r#"{"state":"OPEN"}"#, "{}")).is_empty());
        assert_eq!(messages(&mut discovery, &named("Gate")).len(), 1);
        discovery.forget(topic);
        assert_eq!(messages(&mut discovery, &named("Gate")).len(), 1);
        discovery.clear();
        assert_eq!(messages(&mut discovery, &named("Gate")).len(), 1);
    }

    #[test]
    fn each_quantity_of_an_event_is_an_entity_with_its_unit() {
        let data = r#"{"signalStrength":40,"rssi":-70,"transmissionMode":"LOW_POWER_STANDARD_MODE","updateTime":"2024-01-01T00:00:00Z"}"#;
        let all = messages(&mut discovery(), &body("networkStatus", data, "{}"));
        let units: Vec<_> = all.iter().map(|(_, config)| config["unit_of_measurement"].as_str()).collect();
        assert_eq!(units, [Some("%"), Some("dBm"), None]);
        assert!(all.iter().all(|(_, config)| config["entity_category"] == "diagnostic"));
        assert_eq!(all[1].1["device_class"], "signal_strength");
    }
}

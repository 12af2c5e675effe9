//! What `:publish` is given, completed to what DT's clients need: `updateTime`, `samples`, `isBackfilled` and the like,
//! which DT's own client leaves out when it publishes and requires when it reads.

use serde_json::{Map, Value, json};

use dt_verify::event::{EventType, Timestamp, rfc3339_micros};

/// What a member of a payload has to be.
enum Wanted {
    Number,
    Integer,
    Text,
    Flag,
    OneOf(&'static [&'static str]),
    Texts,
    /// Objects in which these members, if they are there, have to fit.
    Objects(&'static [(&'static str, Wanted)]),
}

impl Wanted {
    fn fits(&self, value: &Value) -> bool {
        let all = |fits: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(fits));
        match self {
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::OneOf(allowed) => value.as_str().is_some_and(|text| allowed.contains(&text)),
            Self::Texts => all(&Value::is_string),
            Self::Objects(members) => all(&|item| {
                let fits =
                    |(name, wanted): &(&str, Self)| item.get(name).is_none_or(|value| wanted.fits(value));
                item.is_object() && members.iter().all(fits)
            }),
        }
    }

    /// What follows "is not".
    fn describe(&self) -> String {
        match self {
            Self::Number => "a number".to_owned(),
            Self::Integer => "a whole number".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::OneOf(allowed) => format!("one of {}", allowed.join(", ")),
            Self::Texts => "an array of strings".to_owned(),
            Self::Objects(members) => {
                let members = members.iter().map(|(name, wanted)| format!("{name}: {}", wanted.describe()));
                format!("an array of objects such as {{{}}}", members.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

const PRESENT: Wanted = Wanted::OneOf(&["PRESENT", "NOT_PRESENT"]);

/// The required members of each type (DT's page "Events").
fn required(event_type: &EventType) -> &'static [(&'static str, Wanted)] {
    match event_type {
        EventType::Temperature => &[("value", Wanted::Number)],
        EventType::Humidity => &[("temperature", Wanted::Number), ("relativeHumidity", Wanted::Number)],
        EventType::ObjectPresent | EventType::WaterPresent => &[("state", PRESENT)],
        EventType::Motion => &[("state", Wanted::OneOf(&["MOTION_DETECTED", "NO_MOTION_DETECTED"]))],
        EventType::DeskOccupancy => &[("state", Wanted::OneOf(&["OCCUPIED", "NOT_OCCUPIED"]))],
        EventType::Contact => &[("state", Wanted::OneOf(&["OPEN", "CLOSED"]))],
        EventType::ProbeWireStatus => &[(
            "state",
            Wanted::OneOf(&[
                "INVALID_WIRE_CONFIGURATION",
                "INVALID_COEFFICIENT_CONFIGURATION",
                "TWO_WIRE",
                "THREE_WIRE",
                "FOUR_WIRE",
            ]),
        )],
        EventType::ObjectPresentCount | EventType::TouchCount => &[("total", Wanted::Integer)],
        EventType::Co2 => &[("ppm", Wanted::Number)],
        EventType::Pressure => &[("pascal", Wanted::Number)],
        EventType::BatteryStatus => &[("percentage", Wanted::Number)],
        EventType::NetworkStatus | EventType::CellularStatus => &[("signalStrength", Wanted::Number)],
        EventType::ConnectionStatus => {
            &[("connection", Wanted::OneOf(&["SDS", "ETHERNET", "CELLULAR", "OFFLINE"]))]
        }
        EventType::EthernetStatus => &[("macAddress", Wanted::Text)],
        _ => &[],
    }
}

const CLOUD_CONNECTORS: Wanted =
    Wanted::Objects(&[("id", Wanted::Text), ("signalStrength", Wanted::Number), ("rssi", Wanted::Number)]);

/// The members of each type that may be left out (the same page). A receiver that reads events strictly must not get
/// what DT never sends.
fn optional(event_type: &EventType) -> &'static [(&'static str, Wanted)] {
    match event_type {
        EventType::Temperature => &[
            ("samples", Wanted::Objects(&[("value", Wanted::Number), ("sampleTime", Wanted::Text)])),
            ("isBackfilled", Wanted::Flag),
        ],
        EventType::Humidity => &[
            (
                "samples",
                Wanted::Objects(&[
                    ("temperature", Wanted::Number),
                    ("relativeHumidity", Wanted::Number),
                    ("sampleTime", Wanted::Text),
                ]),
            ),
            ("isBackfilled", Wanted::Flag),
        ],
        EventType::DeskOccupancy => &[("remarks", Wanted::Texts)],
        EventType::NetworkStatus => &[
            ("rssi", Wanted::Number),
            ("transmissionMode", Wanted::Text),
            ("cloudConnectors", CLOUD_CONNECTORS),
            ("cloud_connectors", CLOUD_CONNECTORS),
        ],
        EventType::ConnectionStatus => &[("available", Wanted::Texts)],
        EventType::EthernetStatus => &[("ipAddress", Wanted::Text), ("errors", Wanted::Objects(&[]))],
        EventType::CellularStatus => &[("errors", Wanted::Objects(&[]))],
        _ => &[],
    }
}

/// An event to publish: its type, the object `data`, and its time.
type Ready = (EventType, Value, Timestamp);

/// Reads `{"<eventType>":{…}}`; several types are several events. `Err` says what is wrong.
pub(super) fn complete(body: &Map<String, Value>, default_time: &str) -> Result<Vec<Ready>, String> {
    if body.is_empty() {
        return Err("the body names no event type, such as {\"touch\":{}}".to_owned());
    }
    body.iter().map(|(name, payload)| complete_one(name, payload, default_time)).collect()
}

fn complete_one(name: &str, payload: &Value, default_time: &str) -> Result<Ready, String> {
    let event_type = EventType::from(name);
    if matches!(event_type, EventType::Other(_)) {
        return Err(format!("\"{}\" is no event type", name.escape_debug()));
    }
    if event_type == EventType::LabelsChanged {
        return Err("labelsChanged cannot be published; change the labels of a device".to_owned());
    }
    let mut members = payload.as_object().ok_or_else(|| format!("{name} is not an object"))?.clone();
    // Clients send `null` for what they do not know.
    members.retain(|_, value| !value.is_null());
    let time = match members.get("updateTime") {
        None => default_time.to_owned(),
        Some(Value::String(text)) => match Timestamp::new(text.as_str()).instant() {
            Some(_) if text.ends_with('Z') && text.contains('T') => text.clone(),
            // DT's times are in UTC.
            Some(instant) => rfc3339_micros(instant.as_microsecond()),
            None => return Err(format!("{name}.updateTime is not RFC 3339")),
        },
        Some(_) => return Err(format!("{name}.updateTime is not RFC 3339")),
    };
    members.insert("updateTime".to_owned(), time.as_str().into());
    for (member, wanted) in required(&event_type) {
        let value = members.get(*member).ok_or_else(|| format!("{name}.{member} is missing"))?;
        if !wanted.fits(value) {
            return Err(format!("{name}.{member} is not {}", wanted.describe()));
        }
    }
    for (member, wanted) in optional(&event_type) {
        if members.get(*member).is_some_and(|value| !wanted.fits(value)) {
            return Err(format!("{name}.{member} is not {}", wanted.describe()));
        }
    }
    fill_in(&event_type, &mut members, &time);
    Ok((event_type, json!({name: members}), Timestamp::new(time)))
}

fn fill_in(event_type: &EventType, members: &mut Map<String, Value>, time: &str) {
    let get = |members: &Map<String, Value>, name: &str| members.get(name).cloned().unwrap_or_default();
    let mut default = |name: &str, value: Value| {
        members.entry(name.to_owned()).or_insert(value);
    };
    match event_type {
        EventType::Temperature => {
            default("isBackfilled", false.into());
            let value = get(members, "value");
            let sample = json!([{"value": value, "sampleTime": time}]);
            members.entry("samples").or_insert(sample);
        }
        EventType::Humidity => {
            default("isBackfilled", false.into());
            let (celsius, percent) = (get(members, "temperature"), get(members, "relativeHumidity"));
            let sample = json!([{"temperature": celsius, "relativeHumidity": percent, "sampleTime": time}]);
            members.entry("samples").or_insert(sample);
        }
        EventType::DeskOccupancy => default("remarks", json!([])),
        EventType::NetworkStatus => {
            default("rssi", 0.into());
            default("transmissionMode", "LOW_POWER_STANDARD_MODE".into());
            fill_in_cloud_connectors(members);
        }
        EventType::ConnectionStatus => {
            let available = match get(members, "connection") {
                Value::String(offline) if offline == "OFFLINE" => json!([]),
                connection => json!([connection]),
            };
            members.entry("available").or_insert(available);
        }
        EventType::EthernetStatus => {
            default("ipAddress", "".into());
            default("errors", json!([]));
        }
        EventType::CellularStatus => default("errors", json!([])),
        _ => {}
    }
}

/// DT's Python client 1.7.3 publishes `cloud_connectors` without `rssi` and reads `cloudConnectors` with it.
fn fill_in_cloud_connectors(members: &mut Map<String, Value>) {
    let rssi = members.get("rssi").cloned().unwrap_or_default();
    let published = members.remove("cloud_connectors");
    let mut list = members.remove("cloudConnectors").or(published).unwrap_or_default();
    if let Some(list) = list.as_array_mut() {
        for ccon in list.iter_mut().filter_map(Value::as_object_mut) {
            ccon.entry("rssi").or_insert_with(|| rssi.clone());
        }
    }
    if list.as_array().is_none_or(Vec::is_empty) {
        let strength = members.get("signalStrength").cloned().unwrap_or_default();
        list = json!([{"id": "emulated-ccon", "signalStrength": strength, "rssi": rssi}]);
    }
    members.insert("cloudConnectors".to_owned(), list);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-01T00:00:00.000000Z";

    fn completed(body: &Value) -> Result<Value, String> {
        let events = complete(body.as_object().unwrap(), TIME)?;
        Ok(events[0].1.clone())
    }

    #[test]
    fn what_clients_leave_out_is_filled_in() {
        let data = completed(&json!({"temperature": {"value": 21}})).unwrap();
        let sample = json!([{"value": 21, "sampleTime": TIME}]);
        assert_eq!(
            data["temperature"],
            json!({"value": 21, "samples": sample, "isBackfilled": false, "updateTime": TIME})
        );
        let sent = json!({"networkStatus": {"signalStrength": 50, "cloud_connectors": [{"id": "c", "signalStrength": 40}]}});
        let data = completed(&sent).unwrap();
        assert_eq!(
            data["networkStatus"]["cloudConnectors"],
            json!([{"id": "c", "signalStrength": 40, "rssi": 0}])
        );
        assert!(data["networkStatus"].get("cloud_connectors").is_none());
        let data =
            completed(&json!({"connectionStatus": {"connection": "OFFLINE", "available": null}})).unwrap();
        assert_eq!(data["connectionStatus"]["available"], json!([]));
    }

    #[test]
    fn what_is_given_is_kept() {
        let sent = json!({"temperature": {"value": -1.5, "samples": [], "isBackfilled": true, "updateTime": "2020-02-03T04:05:06Z"}});
        let events = complete(sent.as_object().unwrap(), TIME).unwrap();
        assert_eq!(events[0].1, sent);
        assert_eq!(events[0].2.as_str(), "2020-02-03T04:05:06Z");
    }

    #[test]
    fn times_become_utc() {
        let sent = json!({"touch": {"updateTime": "2020-02-03T05:05:06.5+01:00"}});
        let events = complete(sent.as_object().unwrap(), TIME).unwrap();
        assert_eq!(events[0].2.as_str(), "2020-02-03T04:05:06.500000Z");
        assert_eq!(events[0].1["touch"]["updateTime"], "2020-02-03T04:05:06.500000Z");
    }

    #[test]
    fn wrong_payloads_are_refused() {
        for body in [
            json!({}),
            json!({"smell": {}}),
            json!({"labelsChanged": {}}),
            json!({"touch": []}),
            json!({"temperature": {}}),
            json!({"temperature": {"value": "21"}}),
            json!({"touchCount": {"total": 1.5}}),
            json!({"contact": {"state": "AJAR"}}),
            json!({"touch": {"updateTime": "yesterday"}}),
            json!({"touch": {"updateTime": 1}}),
            json!({"temperature": {"value": 1, "samples": "none"}}),
            json!({"temperature": {"value": 1, "isBackfilled": "no"}}),
            json!({"networkStatus": {"signalStrength": 1, "cloudConnectors": [{"id": 1}]}}),
            json!({"networkStatus": {"signalStrength": 1, "rssi": "-80"}}),
            json!({"connectionStatus": {"connection": "SDS", "available": "SDS"}}),
        ] {
            assert!(completed(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn every_completed_type_is_read_by_the_core() {
        use dt_verify::event::Payload;
        for event_type in EventType::KNOWN.iter().filter(|known| **known != EventType::LabelsChanged) {
            let mut payload = Map::new();
            for (member, wanted) in required(event_type) {
                let value = match wanted {
                    Wanted::Number | Wanted::Integer => json!(3),
                    Wanted::Text => json!("x"),
                    Wanted::OneOf(allowed) => json!(allowed[0]),
                    Wanted::Flag | Wanted::Texts | Wanted::Objects(_) => unreachable!("none is required"),
                };
                payload.insert((*member).to_owned(), value);
            }
            let data = completed(&json!({event_type.as_str(): payload})).unwrap();
            let (payload, extra) = Payload::of(event_type, data);
            assert!(!matches!(payload, Payload::Unreadable { .. }), "{payload:?}");
            assert!(extra.is_empty());
        }
    }
}

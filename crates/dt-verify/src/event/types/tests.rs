//! Each event type as DT sends it, and each documented oddity.

#![expect(clippy::float_cmp, reason = "what was read is what was written")]

use serde_json::json;

use super::payload::*;
use super::*;

/// The payload of `data`, with nothing beside it.
fn payload(event_type: &str, data: Value) -> Payload {
    let (payload, beside) = Payload::of(&event_type.into(), data);
    assert!(beside.is_empty());
    payload
}

/// Reads `{"<type>":{…}}` as one variant, and sees to its `updateTime`.
macro_rules! read {
    ($variant:ident, $event_type:literal, $members:tt) => {{
        let mut members = json!($members);
        members["updateTime"] = "2024-12-01T10:00:00.123456Z".into();
        let payload = payload($event_type, json!({ $event_type: members }));
        assert_eq!(payload.update_time().and_then(Timestamp::unix_seconds), Some(1_733_047_200));
        let Payload::$variant(payload) = payload else { panic!("{payload:?}") };
        assert!(payload.extra.is_empty(), "{:?}", payload.extra);
        payload
    }};
}

fn reason(event_type: &str, data: &Value) -> String {
    match payload(event_type, data.clone()) {
        Payload::Unreadable { value, reason } => {
            assert_eq!(value, *data);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn touch() {
    read!(Touch, "touch", {});
}

#[test]
fn temperature() {
    let temperature = read!(Temperature, "temperature", {
        "value": -27,
        "samples": [
            {"value": -27, "sampleTime": "2024-12-01T10:00:00.123456Z"},
            {"value": -26.5, "sampleTime": "2024-12-01T09:55:00.123456Z"}
        ],
        "isBackfilled": true
    });
    assert_eq!((temperature.value, temperature.is_backfilled), (-27.0, Some(true)));
    let values: Vec<_> = temperature.samples.iter().map(|sample| sample.value).collect();
    assert_eq!(values, [-27.0, -26.5]);
    assert!(temperature.samples[0].sample_time > temperature.samples[1].sample_time);
}

#[test]
fn temperature_of_before_2021_has_a_value_only() {
    let temperature = read!(Temperature, "temperature", {"value": 24.9});
    assert_eq!((temperature.value, temperature.is_backfilled), (24.9, None));
    assert!(temperature.samples.is_empty());
}

#[test]
fn object_present() {
    assert_eq!(read!(ObjectPresent, "objectPresent", {"state": "PRESENT"}).state, PresenceState::Present);
    assert_eq!(
        read!(ObjectPresent, "objectPresent", {"state": "NOT_PRESENT"}).state,
        PresenceState::NotPresent
    );
}

#[test]
fn humidity() {
    let humidity = read!(Humidity, "humidity", {
        "temperature": 22.45,
        "relativeHumidity": 17,
        "samples": [{"temperature": 22.45, "relativeHumidity": 17, "sampleTime": "2024-12-01T10:00:00Z"}],
        "isBackfilled": false
    });
    assert_eq!((humidity.temperature, humidity.relative_humidity), (22.45, 17.0));
    assert_eq!(humidity.is_backfilled, Some(false));
    assert_eq!((humidity.samples[0].temperature, humidity.samples[0].relative_humidity), (22.45, 17.0));
    let older = read!(Humidity, "humidity", {"temperature": 22.45, "relativeHumidity": 17});
    assert_eq!((older.samples.len(), older.is_backfilled), (0, None));
}

#[test]
fn counts() {
    assert_eq!(read!(ObjectPresentCount, "objectPresentCount", {"total": 4176}).total, 4176);
    assert_eq!(read!(TouchCount, "touchCount", {"total": 469.0}).total, 469);
    assert_eq!(
        reason("touchCount", &json!({"touchCount": {"total": 0.5}})),
        "`total` of `touchCount` is not a whole number"
    );
    assert!(!reason("touchCount", &json!({"touchCount": {"total": u64::MAX}})).is_empty());
}

#[test]
fn water_present() {
    assert_eq!(read!(WaterPresent, "waterPresent", {"state": "PRESENT"}).state, PresenceState::Present);
}

#[test]
fn co2_and_pressure() {
    assert_eq!(read!(Co2, "co2", {"ppm": 526}).ppm, 526.0);
    assert_eq!(read!(Pressure, "pressure", {"pascal": 99301}).pascal, 99_301.0);
    assert_eq!(read!(Pressure, "pressure", {"pascal": 99301.25}).pascal, 99_301.25);
}

#[test]
fn motion() {
    assert_eq!(read!(Motion, "motion", {"state": "MOTION_DETECTED"}).state, MotionState::Detected);
    assert_eq!(read!(Motion, "motion", {"state": "NO_MOTION_DETECTED"}).state, MotionState::NotDetected);
}

#[test]
fn desk_occupancy() {
    let desk =
        read!(DeskOccupancy, "deskOccupancy", {"state": "OCCUPIED", "remarks": ["INCOMPLETE_DATA", "NEW"]});
    assert_eq!(desk.state, DeskOccupancyState::Occupied);
    assert_eq!(desk.remarks, [DeskRemark::IncompleteData, DeskRemark::Other("NEW".to_owned())]);
    let desk = read!(DeskOccupancy, "deskOccupancy", {"state": "NOT_OCCUPIED"});
    assert_eq!((desk.state, desk.remarks.len()), (DeskOccupancyState::NotOccupied, 0));
}

#[test]
fn contact() {
    assert_eq!(read!(Contact, "contact", {"state": "OPEN"}).state, ContactState::Open);
    assert_eq!(read!(Contact, "contact", {"state": "CLOSED"}).state, ContactState::Closed);
}

#[test]
fn probe_wire_status() {
    for (text, state) in [
        ("INVALID_WIRE_CONFIGURATION", ProbeWireState::InvalidWireConfiguration),
        ("INVALID_COEFFICIENT_CONFIGURATION", ProbeWireState::InvalidCoefficientConfiguration),
        ("TWO_WIRE", ProbeWireState::TwoWire),
        ("THREE_WIRE", ProbeWireState::ThreeWire),
        ("FOUR_WIRE", ProbeWireState::FourWire),
    ] {
        assert_eq!(read!(ProbeWireStatus, "probeWireStatus", {"state": text}).state, state);
    }
}

#[test]
fn battery_status() {
    assert_eq!(read!(BatteryStatus, "batteryStatus", {"percentage": 100}).percentage, 100.0);
}

#[test]
fn network_status() {
    let network = read!(NetworkStatus, "networkStatus", {
        "signalStrength": 45,
        "rssi": -83,
        "cloudConnectors": [{"id": "bdkjbo2v0000uk377c4g", "signalStrength": 45, "rssi": -83}],
        "transmissionMode": "LOW_POWER_STANDARD_MODE"
    });
    assert_eq!((network.signal_strength, network.rssi), (45.0, -83.0));
    assert_eq!(network.transmission_mode, Some(TransmissionMode::LowPowerStandard));
    let [ccon] = &network.cloud_connectors[..] else { panic!() };
    assert_eq!(
        (ccon.id.as_str(), ccon.signal_strength, ccon.rssi),
        ("bdkjbo2v0000uk377c4g", Some(45.0), Some(-83.0))
    );
    let bare = read!(NetworkStatus, "networkStatus", {"signalStrength": 99, "rssi": 0});
    assert_eq!((bare.cloud_connectors.len(), bare.transmission_mode), (0, None));
}

#[test]
fn labels_changed_is_not_keyed() {
    let changes =
        json!({"added": {"room": "1.07", "odd": 5}, "modified": {"floor": "2"}, "removed": ["name"]});
    let Payload::LabelsChanged(changed) = payload("labelsChanged", changes.clone()) else { panic!() };
    assert_eq!(
        changed.added,
        [("odd".to_owned(), "5".to_owned()), ("room".to_owned(), "1.07".to_owned())].into()
    );
    assert_eq!(changed.modified, [("floor".to_owned(), "2".to_owned())].into());
    assert_eq!(
        (changed.removed.as_slice(), changed.update_time.as_ref()),
        (["name".to_owned()].as_slice(), None)
    );
    assert!(changed.extra.is_empty());
    let Payload::LabelsChanged(keyed) = payload("labelsChanged", json!({"labelsChanged": changes})) else {
        panic!()
    };
    assert_eq!(keyed, changed);
}

#[test]
fn labels_changed_may_be_sparse_but_not_wrong() {
    let sparse = payload("labelsChanged", json!({"removed": ["a"], "added": null, "new": 1}));
    let Payload::LabelsChanged(changed) = sparse else { panic!() };
    assert!(changed.added.is_empty() && changed.modified.is_empty());
    assert_eq!(Value::from(changed.extra), json!({"new": 1}));
    assert_eq!(reason("labelsChanged", &json!({"added": []})), "`added` of `labelsChanged` is not an object");
    assert_eq!(
        reason("labelsChanged", &json!({"removed": [1]})),
        "`removed` of `labelsChanged` is not a list of texts"
    );
}

#[test]
fn connection_status() {
    let connection = read!(ConnectionStatus, "connectionStatus", {"connection": "ETHERNET", "available": ["ETHERNET", "CELLULAR"]});
    assert_eq!(connection.connection, Connection::Ethernet);
    assert_eq!(connection.available, [Connection::Ethernet, Connection::Cellular]);
    let offline = read!(ConnectionStatus, "connectionStatus", {"connection": "OFFLINE", "available": []});
    assert_eq!((offline.connection, offline.available.len()), (Connection::Offline, 0));
    assert_eq!(
        read!(ConnectionStatus, "connectionStatus", {"connection": "SDS"}).connection,
        Connection::Sds
    );
}

#[test]
fn ethernet_and_cellular_status() {
    let ethernet = read!(EthernetStatus, "ethernetStatus", {"macAddress": "f0:b5:b7:00:0a:08", "ipAddress": "10.0.0.1", "errors": [{"code": 1}]});
    assert_eq!(
        (ethernet.mac_address.as_str(), ethernet.ip_address.as_str()),
        ("f0:b5:b7:00:0a:08", "10.0.0.1")
    );
    assert_eq!(ethernet.errors, [json!({"code": 1})]);
    assert_eq!(read!(EthernetStatus, "ethernetStatus", {"macAddress": "m"}).ip_address, "");
    let cellular = read!(CellularStatus, "cellularStatus", {"signalStrength": 80, "errors": []});
    assert_eq!((cellular.signal_strength, cellular.errors.len()), (80.0, 0));
}

#[test]
fn a_ping_and_other_unknown_types_are_kept() {
    assert_eq!(payload("ping", Value::Null), Payload::Empty);
    for data in [json!({"smell": {"intensity": 3}}), json!([1]), json!("x"), json!({"touch": {}})] {
        assert_eq!(payload("smell", data.clone()), Payload::Unknown(data));
    }
}

#[test]
fn unknown_values_are_kept() {
    assert_eq!(
        read!(Motion, "motion", {"state": "WIGGLING"}).state,
        MotionState::Other("WIGGLING".to_owned())
    );
    let connection =
        read!(ConnectionStatus, "connectionStatus", {"connection": "WIFI", "available": ["WIFI"]});
    assert_eq!(connection.connection.to_string(), "WIFI");
    assert_eq!(connection.available, [Connection::from("WIFI")]);
}

#[test]
fn unknown_and_odd_optional_members_are_kept() {
    let members = json!({
        "value": 1, "unit": "C", "samples": [{"value": 1, "new": 2}], "isBackfilled": "no", "updateTime": 5
    });
    let Payload::Temperature(temperature) = payload("temperature", json!({"temperature": members})) else {
        panic!()
    };
    assert_eq!(Value::from(temperature.extra), json!({"unit": "C", "isBackfilled": "no", "updateTime": 5}));
    assert_eq!(Value::from(temperature.samples[0].extra.clone()), json!({"new": 2}));
    assert_eq!((temperature.is_backfilled, temperature.update_time), (None, None));
}

#[test]
fn a_list_with_an_odd_item_is_kept_whole() {
    for samples in [json!([{"value": 1}, {}]), json!([[1, "2024-12-01T10:00:00Z"]]), json!({}), json!(["1"])]
    {
        let Payload::Temperature(temperature) =
            payload("temperature", json!({"temperature": {"value": 1, "samples": samples}}))
        else {
            panic!()
        };
        assert!(temperature.samples.is_empty());
        assert_eq!(temperature.extra["samples"], samples);
    }
}

#[test]
fn a_known_type_of_another_shape_is_unreadable() {
    assert_eq!(reason("touch", &json!([])), "`data` is not an object");
    assert_eq!(reason("touch", &json!({})), "`data` has no `touch`");
    assert_eq!(reason("touch", &json!({"temperature": {"value": 1}})), "`data` has no `touch`");
    assert_eq!(reason("touch", &json!({"touch": []})), "`data.touch` is not an object");
    assert_eq!(reason("temperature", &json!({"temperature": {}})), "`temperature` has no `value`");
    assert_eq!(
        reason("temperature", &json!({"temperature": {"value": "24.9"}})),
        "`value` of `temperature` is not a number"
    );
    assert_eq!(reason("motion", &json!({"motion": {"state": null}})), "`state` of `motion` is not a text");
    assert_eq!(reason("labelsChanged", &json!("x")), "`data` is not an object");
}

#[test]
fn nine_digits_of_a_second_are_read() {
    let data = json!({"touch": {"updateTime": "2018-05-16T08:07:06.123456789Z"}});
    let time = payload("touch", data).update_time().cloned().unwrap();
    assert_eq!(time.subsec_nanos(), Some(123_456_789));
}

#[test]
fn payloads_are_written_as_dt_writes_them() {
    // The first two are from the tests of DT's Python packages, the third from a public integration.
    for (event_type, data) in [
        (
            "temperature",
            r#"{"temperature":{"value":27,"updateTime":"2024-05-29T10:34:03.970415Z","samples":[{"value":27,"sampleTime":"2024-05-29T10:34:03.970415Z"}],"isBackfilled":false}}"#,
        ),
        (
            "networkStatus",
            r#"{"networkStatus":{"signalStrength":99,"rssi":0,"updateTime":"2021-04-21T08:15:43.520167Z","cloudConnectors":[{"id":"emulated-ccon","signalStrength":99,"rssi":0}],"transmissionMode":"LOW_POWER_STANDARD_MODE"}}"#,
        ),
        (
            "deskOccupancy",
            r#"{"deskOccupancy":{"state":"OCCUPIED","updateTime":"2025-05-08T07:53:02.000000Z","remarks":[]}}"#,
        ),
        ("labelsChanged", r#"{"added":{"a":"1"},"modified":{},"removed":["b"]}"#),
        ("ping", "null"),
        ("smell", r#"{"smell":{"strength":2.50}}"#),
    ] {
        let payload = payload(event_type, serde_json::from_str(data).unwrap());
        assert_eq!(payload.to_json(), data.replace("2.50", "2.5"));
    }
}

#[test]
fn odd_members_are_written_once_and_as_they_came() {
    let data = json!({"temperature": {"value": 24.5, "new": [1], "isBackfilled": "no", "samples": [{"value": 1}, {}]}});
    let temperature = payload("temperature", data.clone());
    let written = temperature.to_json();
    assert_eq!(written.matches("samples").count(), 1, "{written}");
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), data);
}

#[test]
fn every_known_type_comes_back_from_its_name() {
    for known in EventType::KNOWN {
        assert_eq!(EventType::from(known.as_str()), known);
        assert_eq!(EventType::from(known.to_string()), known);
        assert!(known.is_known());
    }
}

#[test]
fn the_known_names_are_all_different() {
    let names: std::collections::BTreeSet<_> =
        EventType::KNOWN.iter().map(|known| known.as_str().to_owned()).collect();
    assert_eq!(names.len(), EventType::KNOWN.len());
}

#[test]
fn other_names_are_kept_exactly_and_case_counts() {
    for name in ["ping", "", "Touch", "touch ", "løft"] {
        assert_eq!(name.parse::<EventType>(), Ok(EventType::Other(name.to_owned())));
        assert_eq!(EventType::from(name).to_string(), name);
    }
}

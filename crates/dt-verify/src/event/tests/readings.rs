//! Readings: what each event type reports, with which time, and how many.

use std::collections::BTreeSet;

use super::*;

/// Parses an event of `event.timestamp` 12:00 with this `data`.
fn delivery(event_type: &str, data: &Value) -> Delivery {
    let event =
        json!({"eventId": "e", "eventType": event_type, "data": data, "timestamp": "2024-12-01T12:00:00Z"});
    parse(json!({ "event": event }).to_string()).unwrap()
}

/// Returns the readings of an event as text: `quantity value unit @ time`.
fn readings(event_type: &str, data: &Value) -> Vec<String> {
    let delivery = delivery(event_type, data);
    let text_of = |reading: Reading<'_>| {
        let value = match reading.value {
            ReadingValue::Number(number) => format!("{number:?}"),
            ReadingValue::Text(text) => format!("\"{text}\""),
        };
        let time = reading.time.map_or("no time", Timestamp::as_str);
        format!("{} {value} {} @ {time}", reading.quantity, reading.unit.unwrap_or("-"))
    };
    delivery.readings().into_iter().map(text_of).collect()
}

#[test]
fn each_event_type_reports_its_quantities() {
    let time = "2024-12-01T10:00:00.123456Z";
    let table: [(&str, Value, &[&str]); 19] = [
        ("touch", json!({}), &["touch 1.0 -"]),
        ("temperature", json!({"value": -27}), &["temperature -27.0 °C"]),
        ("objectPresent", json!({"state": "PRESENT"}), &["objectPresent \"PRESENT\" -"]),
        (
            "humidity",
            json!({"temperature": 22.45, "relativeHumidity": 17}),
            &["temperature 22.45 °C", "relativeHumidity 17.0 %"],
        ),
        ("objectPresentCount", json!({"total": 4176}), &["objectPresentCount 4176.0 -"]),
        ("touchCount", json!({"total": 469}), &["touchCount 469.0 -"]),
        ("waterPresent", json!({"state": "NOT_PRESENT"}), &["waterPresent \"NOT_PRESENT\" -"]),
        ("co2", json!({"ppm": 526}), &["co2 526.0 ppm"]),
        ("pressure", json!({"pascal": 99301.25}), &["pressure 99301.25 Pa"]),
        ("motion", json!({"state": "MOTION_DETECTED"}), &["motion \"MOTION_DETECTED\" -"]),
        ("deskOccupancy", json!({"state": "OCCUPIED"}), &["deskOccupancy \"OCCUPIED\" -"]),
        ("contact", json!({"state": "AJAR"}), &["contact \"AJAR\" -"]),
        ("probeWireStatus", json!({"state": "TWO_WIRE"}), &["probeWireStatus \"TWO_WIRE\" -"]),
        ("batteryStatus", json!({"percentage": 100}), &["batteryStatus 100.0 %"]),
        (
            "networkStatus",
            json!({"signalStrength": 45, "rssi": -83, "transmissionMode": "HIGH_POWER_BOOST_MODE",
                "cloudConnectors": [{"id": "c", "signalStrength": 30, "rssi": -90}]}),
            &["signalStrength 45.0 %", "rssi -83.0 dBm", "transmissionMode \"HIGH_POWER_BOOST_MODE\" -"],
        ),
        ("labelsChanged", json!({"added": {"room": "1.07"}, "modified": {}, "removed": []}), &[]),
        (
            "connectionStatus",
            json!({"connection": "WIFI", "available": ["WIFI", "ETHERNET"]}),
            &["connectionStatus \"WIFI\" -"],
        ),
        (
            "ethernetStatus",
            json!({"macAddress": "f0:b5:b7:00:0a:08", "ipAddress": "10.0.0.1", "errors": [{"code": 1}]}),
            &["ipAddress \"10.0.0.1\" -"],
        ),
        ("cellularStatus", json!({"signalStrength": 80, "errors": []}), &["signalStrength 80.0 %"]),
    ];
    let types: Vec<_> = table.iter().map(|(event_type, ..)| EventType::from(*event_type)).collect();
    // A type that is added later brings a test of its own.
    assert!(EventType::KNOWN.starts_with(&types));
    let quantities: BTreeSet<_> =
        table.iter().flat_map(|row| row.2).filter_map(|reading| reading.split(' ').next()).collect();
    assert_eq!(Reading::quantities(), quantities.into_iter().collect::<Vec<_>>());
    for (event_type, mut members, expected) in table {
        let expected: Vec<_> = expected.iter().map(|reading| format!("{reading} @ {time}")).collect();
        members["updateTime"] = time.into();
        let data = if event_type == "labelsChanged" { members } else { json!({ event_type: members }) };
        assert_eq!(readings(event_type, &data), expected, "{event_type}");
    }
}

#[test]
fn a_number_is_the_nearest_to_the_digits_that_were_received() {
    for text in
        ["-91.71000000000001", "0.30000000000000004", "24.9", "5e-324", "1.7976931348623157e308", "99301.25"]
    {
        let body = format!(
            r#"{{"event":{{"eventId":"e","eventType":"co2","data":{{"co2":{{"ppm":{text},"updateTime":"2024-12-01T10:00:00Z"}}}}}}}}"#
        );
        let delivery = parse(body).unwrap();
        let expected: f64 = text.parse().unwrap();
        assert_eq!(delivery.readings()[0].value, ReadingValue::Number(expected), "{text}");
    }
}

#[test]
fn each_sample_is_a_reading_with_its_own_time() {
    let samples = json!([
        {"value": 24.9, "sampleTime": "2024-12-01T10:00:00Z"},
        {"value": 25, "sampleTime": "2024-12-01T09:55:00Z"},
        {"value": 26}
    ]);
    let data =
        json!({"temperature": {"value": 24.9, "updateTime": "2024-12-01T11:00:00Z", "samples": samples}});
    assert_eq!(
        readings("temperature", &data),
        [
            "temperature 24.9 °C @ 2024-12-01T10:00:00Z",
            "temperature 25.0 °C @ 2024-12-01T09:55:00Z",
            "temperature 26.0 °C @ 2024-12-01T11:00:00Z"
        ]
    );
    let samples = json!([
        {"temperature": 1, "relativeHumidity": 2, "sampleTime": "2024-12-01T10:00:00Z"},
        {"temperature": 3, "relativeHumidity": 4, "sampleTime": "2024-12-01T09:55:00Z"}
    ]);
    let data = json!({"humidity": {"temperature": 1, "relativeHumidity": 2, "samples": samples}});
    assert_eq!(
        readings("humidity", &data),
        [
            "temperature 1.0 °C @ 2024-12-01T10:00:00Z",
            "relativeHumidity 2.0 % @ 2024-12-01T10:00:00Z",
            "temperature 3.0 °C @ 2024-12-01T09:55:00Z",
            "relativeHumidity 4.0 % @ 2024-12-01T09:55:00Z"
        ]
    );
}

#[test]
fn the_value_counts_where_there_are_no_samples() {
    for samples in [json!(null), json!([]), json!([{"value": "odd"}])] {
        let data = json!({"temperature": {"value": 24.9, "samples": samples}});
        assert_eq!(readings("temperature", &data), ["temperature 24.9 °C @ 2024-12-01T12:00:00Z"]);
    }
}

#[test]
fn the_time_is_the_first_that_is_one() {
    for (update_time, expected) in [
        (json!("2024-12-01T10:00:00Z"), "2024-12-01T10:00:00Z"),
        (json!("yesterday"), "2024-12-01T12:00:00Z"),
        (json!(5), "2024-12-01T12:00:00Z"),
        (json!(null), "2024-12-01T12:00:00Z"),
    ] {
        let data = json!({"touch": {"updateTime": update_time}});
        assert_eq!(readings("touch", &data), [format!("touch 1.0 - @ {expected}")]);
    }
    let body = r#"{"event":{"eventId":"e","eventType":"touch","data":{"touch":{}},"timestamp":"now"}}"#;
    assert_eq!(parse(body).unwrap().readings()[0].time, None);
}

#[test]
fn what_is_not_as_documented_has_no_readings() {
    for (event_type, data) in [
        ("smell", json!({"smell": {"value": 1}})),
        ("ping", json!(null)),
        ("temperature", json!({"temperature": {"value": "24.9"}})),
        ("co2", json!({})),
    ] {
        assert_eq!(readings(event_type, &data), [""; 0], "{event_type}");
    }
}

#[test]
fn only_texts_are_states() {
    let door = delivery("contact", &json!({"contact": {"state": "OPEN"}}));
    assert!(door.readings()[0].is_state());
    let air = delivery("co2", &json!({"co2": {"ppm": 500}}));
    assert!(!air.readings()[0].is_state());
}

/// Returns how many readings a payload must have.
fn expected_count(payload: &Payload) -> usize {
    match payload {
        Payload::Temperature(temperature) => temperature.samples.len().max(1),
        Payload::Humidity(humidity) => humidity.samples.len().max(1).saturating_mul(2),
        Payload::NetworkStatus(network) => {
            if network.transmission_mode.is_some() {
                3
            } else {
                2
            }
        }
        Payload::LabelsChanged(_) | Payload::Unknown(_) | Payload::Empty | Payload::Unreadable { .. } => 0,
        _ => 1,
    }
}

proptest! {
    #[test]
    fn readings_of_any_json_are_finite_and_counted(body in prop_oneof![any_json(), near_delivery()]) {
        let Ok(delivery) = parse(body) else { return Ok(()) };
        let readings = delivery.readings();
        prop_assert_eq!(readings.len(), expected_count(&delivery.event.data));
        for reading in readings {
            prop_assert!(!matches!(reading.value, ReadingValue::Number(number) if !number.is_finite()));
            prop_assert!(reading.time.is_none_or(|time| time.unix_nanos().is_some()));
        }
    }

    #[test]
    fn readings_of_generated_events_all_have_a_time(known in known_type(), seed: u64) {
        let sample = Sample {
            event_type: known,
            event_id: "e",
            project: "p",
            device: "d",
            unix_millis: 1_700_000_000_000,
            seed,
        };
        let delivery = parse(sample.body()).unwrap();
        let readings = delivery.readings();
        prop_assert_eq!(readings.len(), expected_count(&delivery.event.data));
        prop_assert!(readings.iter().all(|reading| reading.time.is_some()));
    }
}

//! Events as DT sends them, whose points tell each event apart, and the order of a device's events.

use jiff::Timestamp;
use serde_json::json;

use crate::events::id;

/// The time of the first event, in Unix seconds.
const START: u64 = 1_700_000_000;
/// The seconds between the events of a device.
const STEP: u64 = 60;

/// The event type whose events of a device are all at the same time: each replaces the value of the one before.
pub(crate) const REPLACED: &str = "batteryStatus";

/// An event of a device: each has another value, and the types take turns.
pub(crate) fn body(device: u64, number: u64) -> String {
    let time = |seconds: u64| {
        let micros = (START + number * STEP - seconds) * 1_000_000 + number % 1_000_000;
        Timestamp::from_microsecond(micros.try_into().expect("small")).expect("a time").to_string()
    };
    let (now, before) = (time(0), time(30));
    let value = number as f64 / 100.0;
    let (event_type, payload) = match number % 6 {
        0 => {
            let samples =
                json!([{"value": value, "sampleTime": now}, {"value": -value, "sampleTime": before}]);
            ("temperature", json!({"value": value, "samples": samples, "updateTime": now}))
        }
        1 => ("humidity", json!({"temperature": value, "relativeHumidity": 17, "updateTime": now})),
        2 => ("touch", json!({"updateTime": now})),
        3 => ("motion", json!({"state": format!("STATE \"{number}\" \\, ="), "updateTime": now})),
        4 => (REPLACED, json!({"percentage": number, "updateTime": "2023-11-14T00:00:00Z"})),
        _ => (
            "networkStatus",
            json!({"signalStrength": 45, "rssi": -83.5 - value, "updateTime": now,
            "transmissionMode": "LOW_POWER_STANDARD_MODE"}),
        ),
    };
    let labels = match device % 4 {
        0 => json!({}),
        1 => json!({"room": "2.31, north = cold", "empty": ""}),
        2 => json!({"name": "Kjølerom ❄️ \"3\"", "path": "C:\\temp\\", "a key": "x"}),
        _ => json!({"injected": "x touch=9 1\ntouch,device=forged touch=1 1", "lines": "one\r\ntwo"}),
    };
    json!({
        "event": {
            "eventId": id(device, number),
            "targetName": format!("projects/p/devices/dev{device}"),
            "eventType": event_type,
            "data": {event_type: payload},
            "timestamp": now,
        },
        "labels": labels,
        "metadata": {"deviceId": format!("dev{device}"), "projectId": "p", "deviceType": event_type, "productNumber": ""},
    })
    .to_string()
}

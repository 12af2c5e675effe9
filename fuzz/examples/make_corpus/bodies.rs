//! Bodies of events.

use std::collections::BTreeSet;

use dt_verify::event::EventType;

use crate::Seeds;
use crate::vectors::{MAX_SEED, body_of, sample, text, vectors};

/// Bodies of the vectors, a sample of each event type, and edges of JSON.
pub fn bodies() -> Seeds {
    let mut seeds = Seeds::new();
    let mut seen = BTreeSet::new();
    for vector in vectors() {
        let body = body_of(&vector);
        if body.len() <= MAX_SEED && seen.insert(body.clone()) {
            seeds.insert(format!("vector-{}", text(&vector, "name")), body);
        }
    }
    for event_type in EventType::KNOWN {
        for seed in 0..2 {
            let body = sample(event_type.clone(), seed, "c0md3mm0c7pet3vico8g");
            seeds.insert(format!("sample-{event_type}-{seed}"), body.into_bytes());
        }
    }
    let by_hand: [(&str, &str); 22] = [
        ("least", r#"{"event":{"eventId":"e","eventType":"touch"}}"#),
        ("escaped", r#"{"\u0065vent":{"eventId":"\u00e9\ud83d\udd11","eventType":"t\n"}}"#),
        ("half_surrogate", r#"{"event":{"eventId":"\ud83d","eventType":"touch"}}"#),
        ("large_number", r#"{"event":{"eventId":"e","eventType":"touch","n":1e999}}"#),
        ("small_number", r#"{"event":{"eventId":"e","eventType":"touch","n":-0.0e-400}}"#),
        ("repeated", r#"{"event":{"eventId":"e","eventId":"f","eventType":"touch"}}"#),
        ("event_twice", r#"{"event":{"eventId":"e","eventType":"touch"},"event":1}"#),
        (
            "target_twice",
            r#"{"event":{"eventId":"e","eventType":"x","targetName":"projects/p","targetName":5}}"#,
        ),
        (
            "metadata_twice",
            r#"{"metadata":{"deviceId":"d"},"event":{"eventId":"e","eventType":"x"},"metadata":[]}"#,
        ),
        ("private_number", r#"{"event":{"eventId":"e","eventType":"x","$serde_json::private::Number":"1"}}"#),
        (
            "private_raw",
            r#"{"event":{"eventId":"e","eventType":"x"},"a":{"$serde_json::private::RawValue":"["}}"#,
        ),
        ("arrays", r#"[["e","touch"]]"#),
        ("types", r#"{"event":{"eventId":1,"eventType":null,"targetName":{},"timestamp":[]},"labels":[]}"#),
        ("labels", r#"{"event":{"eventId":"e","eventType":"x"},"labels":{"a":1,"b":null,"c":{"d":[]}}}"#),
        (
            "unreadable",
            r#"{"event":{"eventId":"e","eventType":"temperature","data":{"temperature":{"value":"x"}}}}"#,
        ),
        ("no_payload", r#"{"event":{"eventId":"e","eventType":"co2","data":{}}}"#),
        ("data_null", r#"{"event":{"eventId":"e","eventType":"co2","data":null}}"#),
        (
            "data_extra",
            r#"{"event":{"eventId":"e","eventType":"co2","data":{"co2":{"ppm":4.5e2,"x":1},"y":2}}}"#,
        ),
        (
            "keyed_labels",
            r#"{"event":{"eventId":"e","eventType":"labelsChanged","data":{"labelsChanged":{"added":{}}}}}"#,
        ),
        (
            "odd_time",
            r#"{"event":{"eventId":"e","eventType":"touch","timestamp":"2016-12-31T23:59:60.1234567891+14:00"}}"#,
        ),
        ("space", " \t\r\n{ \"event\" : {\r\n\"eventId\":\"e\",\n\"eventType\":\"touch\" } } \n"),
        ("delete", "{\"event\":{\"eventId\":\"\u{7f}\u{85}\u{2028}\",\"eventType\":\"\u{0}\"}}"),
    ];
    for (name, body) in by_hand {
        seeds.insert(format!("hand-{name}"), body.as_bytes().to_vec());
    }
    let long = "x".repeat(257);
    seeds.insert(
        "hand-long_id".to_owned(),
        format!(r#"{{"event":{{"eventId":"{long}","eventType":"touch"}}}}"#).into_bytes(),
    );
    for depth in [126, 127, 128] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"event":{{"eventId":"e","eventType":"x"}},"a":{open}{close}}}"#);
        seeds.insert(format!("hand-deep_{depth}"), body.into_bytes());
    }
    seeds
}

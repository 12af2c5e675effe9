//! Deliveries and envelopes together: what they accept, what they keep, and that they agree.

mod readings;

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Secret, Signer, Verified, Verifier};

const NOW: i64 = 1_700_000_000;

static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new("some-good-secret").unwrap());
static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::secret(SECRET.clone()));
static VERIFIER: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::builder().secret("test", SECRET.clone()).build().unwrap());

/// Signs a body and verifies it, which is the only way to a `Verified`.
fn verified(body: &[u8]) -> Verified<&[u8]> {
    let token = SIGNER.sign(body, NOW, "c82gg99hga35jc2afkeg").unwrap();
    VERIFIER.verify(&[("X-Dt-Signature", token)], body, NOW).unwrap()
}

/// Reads a body both ways, and sees to it that they agree.
fn parse(body: impl AsRef<[u8]>) -> Result<Delivery, NotADelivery> {
    let verified = verified(body.as_ref());
    let delivery = Delivery::parse(&verified);
    match (Envelope::parse(&verified), &delivery) {
        (Ok(envelope), Ok(delivery)) => {
            assert_eq!(envelope.event_id, delivery.event.event_id);
            assert_eq!(envelope.event_type, delivery.event.event_type.as_str());
            assert_eq!(envelope.target_name.as_deref(), delivery.event.target_name.as_deref());
            assert_eq!(
                envelope.timestamp.as_deref(),
                delivery.event.timestamp.as_ref().map(Timestamp::as_str)
            );
            assert_eq!(envelope.project(), delivery.project());
            assert_eq!(envelope.device(), delivery.device());
        }
        (envelope, delivery) => assert_eq!(envelope.err().as_ref(), delivery.as_ref().err()),
    }
    delivery
}

fn code(body: impl AsRef<[u8]>) -> &'static str {
    parse(body).unwrap_err().code()
}

/// A body in the form of DT's captured ones, with made-up ids.
const TEMPERATURE: &str = r#"{"event":{"eventId":"c82gg9catj3vmh4248og","targetName":"projects/c0md3mm0c7pet3vico8g/devices/emuc1ul5qf2ghkeoq4nj7d0","eventType":"temperature","data":{"temperature":{"value":24.9,"updateTime":"2022-02-10T11:22:13.123456Z","samples":[{"value":24.9,"sampleTime":"2022-02-10T11:22:13.123456Z"}],"isBackfilled":false}},"timestamp":"2022-02-10T11:22:13.123456Z"},"labels":{"name":"Cold store"},"metadata":{"deviceId":"emuc1ul5qf2ghkeoq4nj7d0","projectId":"c0md3mm0c7pet3vico8g","deviceType":"temperature","productNumber":""}}"#;

#[test]
fn a_captured_form_is_read_whole() {
    let delivery = parse(TEMPERATURE).unwrap();
    let Payload::Temperature(temperature) = &delivery.event.data else { panic!("{delivery:?}") };
    assert!((temperature.value - 24.9).abs() < f64::EPSILON);
    assert_eq!(delivery.event.event_id, "c82gg9catj3vmh4248og");
    assert_eq!(delivery.event.timestamp.as_ref(), delivery.event.data.update_time());
    assert_eq!(delivery.event.timestamp.unwrap().unix_seconds(), Some(1_644_492_133));
    assert_eq!(delivery.labels, [("name".to_owned(), "Cold store".to_owned())].into());
    let metadata = delivery.metadata.unwrap();
    assert_eq!(metadata.device_id.as_deref(), Some("emuc1ul5qf2ghkeoq4nj7d0"));
    assert_eq!(metadata.project_id.as_deref(), Some("c0md3mm0c7pet3vico8g"));
    assert_eq!(metadata.device_type.as_deref(), Some("temperature"));
    assert_eq!(metadata.product_number.as_deref(), Some(""));
    assert!(delivery.extra.is_empty() && delivery.event.extra.is_empty() && metadata.extra.is_empty());
}

#[test]
fn an_envelope_borrows_from_the_body() {
    use std::borrow::Cow;
    let verified = verified(TEMPERATURE.as_bytes());
    let envelope = Envelope::parse(&verified).unwrap();
    for text in [
        Some(envelope.event_id),
        Some(envelope.event_type),
        envelope.target_name,
        envelope.timestamp,
        envelope.metadata_device_id,
    ] {
        assert!(matches!(text, Some(Cow::Borrowed(_))), "{text:?}");
    }
}

#[test]
fn escapes_are_read() {
    let body = r#"{"event":{"eventId":"a\u0022\u00e9\n\ud83d\ude00","event\u0054ype":"tou\u0063h","data":{"touch":{}}}}"#;
    let delivery = parse(body).unwrap();
    assert_eq!(delivery.event.event_id, "a\"é\n😀");
    assert_eq!(delivery.event.event_type, EventType::Touch);
    assert!(matches!(delivery.event.data, Payload::Touch(_)));
}

#[test]
fn the_smallest_delivery_has_an_id_and_a_type() {
    let delivery = parse(" \r\n\t{\"event\":{\"eventId\":\"e\",\"eventType\":\"touch\"}}\n").unwrap();
    assert_eq!(delivery.event.data, Payload::Empty);
    assert_eq!((delivery.event.target_name, delivery.event.timestamp), (None, None));
    assert_eq!((delivery.labels.len(), delivery.metadata), (0, None));
}

#[test]
fn members_that_are_null_count_as_absent() {
    let body = r#"{"event":{"eventId":"e","eventType":"touch","data":null,"targetName":null,"timestamp":null},"labels":null,"metadata":null}"#;
    let delivery = parse(body).unwrap();
    assert_eq!(delivery, parse(r#"{"event":{"eventId":"e","eventType":"touch"}}"#).unwrap());
}

#[test]
fn members_of_another_type_count_as_absent_and_are_kept() {
    let body = r#"{"event":{"eventId":"e","eventType":"touch","targetName":5,"timestamp":[]},"labels":[],"metadata":"m"}"#;
    let delivery = parse(body).unwrap();
    assert_eq!(Value::from(delivery.event.extra), json!({"targetName": 5, "timestamp": []}));
    assert_eq!(Value::from(delivery.extra), json!({"labels": [], "metadata": "m"}));
    assert!(delivery.labels.is_empty() && delivery.metadata.is_none());
}

#[test]
fn unknown_members_are_kept_at_every_level() {
    let body = r#"{"a":1,"event":{"eventId":"e","eventType":"touch","b":2,"data":{"c":3,"touch":{"d":4}}},"metadata":{"f":5,"deviceId":6}}"#;
    let delivery = parse(body).unwrap();
    assert_eq!(Value::from(delivery.extra), json!({"a": 1}));
    assert_eq!(Value::from(delivery.event.extra), json!({"b": 2}));
    assert_eq!(Value::from(delivery.event.data_extra), json!({"c": 3}));
    let Payload::Touch(touch) = delivery.event.data else { panic!() };
    assert_eq!(Value::from(touch.extra), json!({"d": 4}));
    assert_eq!(Value::from(delivery.metadata.unwrap().extra), json!({"f": 5, "deviceId": 6}));
}

#[test]
fn labels_that_are_not_strings_are_kept_as_json() {
    let body =
        r#"{"event":{"eventId":"e","eventType":"touch"},"labels":{"a":"x","b":1,"c":null,"d":{"e":[true]}}}"#;
    let labels = parse(body).unwrap().labels;
    let expected = [("a", "x"), ("b", "1"), ("c", "null"), ("d", r#"{"e":[true]}"#)];
    assert_eq!(labels, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn a_timestamp_that_is_no_time_is_kept() {
    let delivery = parse(r#"{"event":{"eventId":"e","eventType":"touch","timestamp":"soon"}}"#).unwrap();
    let timestamp = delivery.event.timestamp.unwrap();
    assert_eq!((timestamp.as_str(), timestamp.instant()), ("soon", None));
}

#[test]
fn the_device_comes_from_the_target_else_from_the_metadata() {
    let device = |target: &str, metadata: &str| {
        let body = format!(
            r#"{{"event":{{"eventId":"e","eventType":"t","targetName":"{target}"}},"metadata":{{"deviceId":"{metadata}"}}}}"#
        );
        parse(body).unwrap().device().map(str::to_owned)
    };
    assert_eq!(device("projects/p/devices/d", "m").as_deref(), Some("d"));
    assert_eq!(device("projects/p", "m").as_deref(), Some("m"));
    assert_eq!(device("projects/p/devices/", "m").as_deref(), Some("m"));
    assert_eq!(device("projects/p", ""), None);
}

#[test]
fn of_repeated_members_that_decide_nothing_the_last_counts() {
    let body = r#"{"labels":{"a":"1"},"event":{"timestamp":"x","timestamp":"y","eventId":"e","eventType":"t"},"labels":{"a":"2"}}"#;
    let delivery = parse(body).unwrap();
    assert_eq!(delivery.labels.get("a").map(String::as_str), Some("2"));
    assert_eq!(delivery.event.timestamp.map(|time| time.to_string()).as_deref(), Some("y"));
}

#[test]
fn what_is_not_json_is_refused() {
    assert_eq!(parse(b"{\"event\xff"), Err(NotADelivery::NotUtf8 { valid_up_to: 7 }));
    assert_eq!(parse("{\n\"event\" 1}"), Err(NotADelivery::NotJson { line: 2, column: 9 }));
    let body = r#"{"event":{"eventId":"e","eventType":"t"}}"#;
    assert!(parse(body).is_ok());
    for body in [format!("{body}x"), format!("{body}{body}"), format!("\u{feff}{body}"), String::new()] {
        assert_eq!(code(&body), "not_json", "{body}");
    }
    let deep = format!(
        r#"{{"event":{{"eventId":"e","eventType":"t"}},"x":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(code(deep), "not_json");
}

#[test]
fn other_json_than_an_object_is_refused() {
    for body in ["[]", "null", "1", "\"event\"", r#"[{"event":{"eventId":"e","eventType":"t"}}]"#] {
        assert_eq!(code(body), "not_an_object", "{body}");
    }
    for body in ["{}", r#"{"event":null}"#, r#"{"event":["e","t"]}"#, r#"{"Event":{}}"#] {
        assert_eq!(code(body), "event_missing", "{body}");
    }
}

#[test]
fn an_event_without_id_or_type_is_refused() {
    for id in ["null", "1", "\"\"", "[\"e\"]", "{}"] {
        let body = format!(r#"{{"event":{{"eventId":{id},"eventType":"t"}}}}"#);
        assert_eq!(code(&body), "event_id_missing", "{body}");
        let body = format!(r#"{{"event":{{"eventType":{id},"eventId":"e"}}}}"#);
        assert_eq!(code(&body), "event_type_missing", "{body}");
    }
    assert_eq!(code(r#"{"event":{}}"#), "event_id_missing");
    assert_eq!(code(r#"{"event":{"eventId":"e"}}"#), "event_type_missing");
}

#[test]
fn names_may_have_256_bytes() {
    let body = |id: &str, event_type: &str| {
        parse(format!(r#"{{"event":{{"eventId":"{id}","eventType":"{event_type}"}}}}"#))
    };
    let (fits, too_long) = ("é".repeat(128), "é".repeat(128) + "x");
    assert!(body(&fits, &fits).is_ok());
    assert_eq!(body(&too_long, "t"), Err(NotADelivery::TooLong { member: "event.eventId", found: 257 }));
    assert_eq!(body("e", &too_long), Err(NotADelivery::TooLong { member: "event.eventType", found: 257 }));
}

#[test]
fn repeated_members_that_matter_are_refused() {
    for (body, member) in [
        (r#"{"event":{"eventId":"e","eventType":"t"},"event":{"eventId":"e","eventType":"t"}}"#, "event"),
        (r#"{"event":null,"event":{"eventId":"e","eventType":"t"}}"#, "event"),
        (r#"{"event":{"eventId":"e","eventType":"t","eventId":"e"}}"#, "event.eventId"),
        (r#"{"event":{"eventId":"e","eventType":"t","event\u0049d":1}}"#, "event.eventId"),
        (r#"{"event":{"eventId":"e","eventType":"t","eventType":"t"}}"#, "event.eventType"),
        // Its project was checked, and a consumer might read the other one.
        (
            r#"{"event":{"targetName":"projects/p","targetName":"projects/q","eventId":"e","eventType":"t"}}"#,
            "event.targetName",
        ),
        (
            r#"{"event":{"targetName":5,"target\u004eame":6,"eventId":"e","eventType":"t"}}"#,
            "event.targetName",
        ),
        (r#"{"metadata":{},"event":{"eventId":"e","eventType":"t"},"metadata":5}"#, "metadata"),
        (
            r#"{"metadata":{"deviceId":"x","deviceId":"x"},"event":{"eventId":"e","eventType":"t"}}"#,
            "metadata.deviceId",
        ),
    ] {
        assert_eq!(parse(body), Err(NotADelivery::Repeated { member }));
    }
}

#[test]
fn codes_are_listed_and_texts_show_nothing_of_the_body() {
    let refused = [
        parse(b"HUSH\xff"),
        parse("HUSH"),
        parse("\"HUSH\""),
        parse(r#"{"event":"HUSH"}"#),
        parse(r#"{"event":{"eventId":["HUSH"]}}"#),
        parse(r#"{"event":{"eventId":"HUSH","eventType":["HUSH"]}}"#),
        parse(format!(r#"{{"event":{{"eventId":"{}"}}}}"#, "HUSH".repeat(100))),
        parse(r#"{"event":"HUSH","event":"HUSH"}"#),
    ];
    let refused = refused.map(Result::unwrap_err);
    assert_eq!(refused.each_ref().map(NotADelivery::code), NotADelivery::CODES);
    for refused in refused {
        assert!(!refused.to_string().contains("HUSH"), "{refused}");
    }
}

/// The names that matter. Those that may not be repeated come last.
const NAMES: [&str; 18] = [
    "data",
    "timestamp",
    "labels",
    "value",
    "state",
    "samples",
    "total",
    "added",
    "updateTime",
    "touch",
    "temperature",
    "$serde_json::private::RawValue",
    "targetName",
    "metadata",
    "deviceId",
    "event",
    "eventId",
    "eventType",
];

fn known_type() -> impl Strategy<Value = EventType> {
    prop::sample::select(EventType::KNOWN.to_vec())
}

/// The members of a JSON object, rich in the first `names` names that matter.
fn members(names: usize, value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let name =
        prop_oneof![5 => prop::sample::select(&NAMES[..names]).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec((name, value), 0..8).prop_map(|members| {
        let members: Vec<_> =
            members.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
        members.join(",")
    })
}

/// Any JSON, and now and then what only looks like it.
fn any_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        100 => Just("null".to_owned()),
        100 => any::<bool>().prop_map(|value| value.to_string()),
        100 => any::<i64>().prop_map(|value| value.to_string()),
        100 => (-1e300..1e300).prop_map(|value| format!("{value:e}")),
        100 => Just(r#""projects/p/devices/d""#.to_owned()),
        100 => known_type().prop_map(|known| format!("\"{known}\"")),
        100 => any::<String>().prop_map(|text| Value::from(text).to_string()),
        1 => Just("1e999".to_owned()),
        1 => Just(r#""\ud800""#.to_owned()),
    ];
    scalar.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            3 => members(NAMES.len(), inner).prop_map(|members| format!("{{{members}}}")),
        ]
    })
}

/// A body that mostly is a delivery, with any members before and after those it must have.
fn near_delivery() -> impl Strategy<Value = String> {
    (members(16, any_json()), members(15, any_json()), members(15, any_json()), known_type(), any_json())
        .prop_map(|(before, inside, after, known, data)| {
            let event = format!(r#"{{"eventId":"e",{inside},"eventType":"{known}","data":{data}}}"#);
            format!(r#"{{{before},"event":{event},{after}}}"#)
                .replace(",,", ",")
                .replace("{,", "{")
                .replace(",}", "}")
        })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(body);
    }

    #[test]
    fn no_cut_or_change_of_a_real_body_makes_it_panic(at in 0..TEMPERATURE.len(), byte: u8, cut: bool) {
        let mut body = TEMPERATURE.as_bytes().to_vec();
        body[at] = byte;
        body.truncate(if cut { at } else { body.len() });
        let _ = parse(body);
    }

    #[test]
    fn envelope_and_delivery_agree(body in prop_oneof![any_json(), near_delivery()]) {
        let _ = parse(body);
    }

    #[test]
    fn any_data_under_any_type_is_a_delivery(data in any_json(), known in known_type()) {
        prop_assume!(json::tree(data.as_bytes()).is_ok());
        for data in [data.clone(), format!(r#"{{"{known}":{data}}}"#)] {
            let body = format!(r#"{{"event":{{"eventId":"e","eventType":"{known}","data":{data}}}}}"#);
            let data = json::tree(data.as_bytes()).unwrap();
            match parse(body).unwrap().event.data {
                Payload::Empty => prop_assert!(data.is_null()),
                Payload::Unreadable { value, .. } => prop_assert_eq!(value, data),
                Payload::Unknown(_) => prop_assert!(false, "{known} is known"),
                _ => prop_assert!(data.is_object()),
            }
        }
    }

    #[test]
    fn every_sample_is_read_whole(
        known in known_type(),
        seed: u64,
        unix_millis in prop_oneof![0..4_000_000_000_000_i64, any::<i64>()],
        event_id in ".{1,60}",
        emulated: bool,
    ) {
        let device = if emulated { "emuc1ul5qf2ghkeoq4nj7d0" } else { "c1ul5qf2ghkeoq4nj7d0" };
        let sample =
            Sample { event_type: known.clone(), event_id: &event_id, project: "c0md3mm0c7pet3vico8g", device, unix_millis, seed };
        let body = sample.body();
        prop_assert_eq!(&body, &sample.body());
        let delivery = parse(&body).unwrap();
        prop_assert_eq!(&delivery.event.event_id, &event_id);
        prop_assert_eq!(&delivery.event.event_type, &known);
        prop_assert_eq!((delivery.project(), delivery.device()), (Some("c0md3mm0c7pet3vico8g"), Some(device)));
        prop_assert!(
            !matches!(delivery.event.data, Payload::Unknown(_) | Payload::Unreadable { .. } | Payload::Empty),
            "{}", body
        );
        prop_assert_eq!(delivery.event.data.update_time().is_none(), known == EventType::LabelsChanged);
        prop_assert!(delivery.extra.is_empty() && delivery.event.extra.is_empty() && delivery.event.data_extra.is_empty());
        // No optional member of another type, no value outside DT's enums, no member that DT does not have.
        let shown = format!("{:?}", delivery.event.data);
        prop_assert!(!shown.contains("Other(") && shown.matches("extra: {}").count() == shown.matches("extra: ").count(), "{}", shown);
        prop_assert_eq!(delivery.event.data.undocumented(), None);
        // What was read is written as it was.
        prop_assert!(body.contains(&delivery.event.data.to_json()), "{}", body);
    }
}

#[test]
fn samples_have_what_the_python_client_insists_on() {
    for known in EventType::KNOWN {
        for seed in 0..50 {
            let sample = Sample {
                event_type: known.clone(),
                event_id: "c82gg9catj3vmh4248og",
                project: "p",
                device: "d",
                unix_millis: 1_644_492_133_120,
                seed,
            };
            let body = sample.body();
            let tree: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(
                tree["event"]["timestamp"].as_str().unwrap().len(),
                "2022-02-10T11:22:13.120456Z".len()
            );
            assert!(tree["labels"].is_object());
            for name in ["deviceId", "projectId", "deviceType", "productNumber"] {
                assert!(tree["metadata"][name].is_string(), "{body}");
            }
            let data = &tree["event"]["data"];
            let names: &[&str] = match known {
                EventType::LabelsChanged => {
                    assert!(data.get("labelsChanged").is_none());
                    for name in ["added", "modified", "removed"] {
                        assert!(!data[name].is_null(), "{body}");
                    }
                    continue;
                }
                EventType::Temperature => &["value", "samples", "isBackfilled"],
                EventType::Humidity => &["temperature", "relativeHumidity", "samples", "isBackfilled"],
                EventType::DeskOccupancy => &["state", "remarks"],
                EventType::NetworkStatus => {
                    &["signalStrength", "rssi", "cloudConnectors", "transmissionMode"]
                }
                EventType::ConnectionStatus => &["connection", "available"],
                EventType::EthernetStatus => &["macAddress", "ipAddress", "errors"],
                EventType::CellularStatus => &["signalStrength", "errors"],
                _ => &[],
            };
            let payload = &data[known.as_str()];
            assert_eq!(payload["updateTime"], tree["event"]["timestamp"]);
            for name in names {
                assert!(!payload[name].is_null(), "{body}");
            }
        }
    }
}

#[test]
fn samples_vary_with_the_seed_and_go_past_the_known_types() {
    let sample = |event_type: &str, seed| {
        let event_type = EventType::from(event_type);
        Sample { event_type, event_id: "e\"", project: "p", device: "emu1", unix_millis: 0, seed }.body()
    };
    assert_ne!(sample("temperature", 1), sample("temperature", 2));
    let delivery = parse(sample("smell\\", 1)).unwrap();
    let Payload::Unknown(data) = delivery.event.data else { panic!() };
    assert!(data["smell\\"]["updateTime"].is_string());
    assert_eq!(delivery.metadata.unwrap().product_number.as_deref(), Some(""));
}

//! The message of an event: topic, payload and, in MQTT 5, user properties.

use bytes::Bytes;
use dt_sink::record::{CloudEvent, Format, Record};
use dt_verify::event::rfc3339_millis;

use crate::packet::{MAX_TEXT, Message, MqttVersion};
use crate::topic::{MqttTopic, is_forbidden};

/// Returns the message of a record.
///
/// # Errors
///
/// Returns the reason, if the record can never be published.
pub fn of(
    record: &Record,
    topic: &MqttTopic,
    version: MqttVersion,
    format: Format,
) -> Result<Message, String> {
    let mut payload = Vec::new();
    if version == MqttVersion::V311 && format == Format::CloudEvents {
        // MQTT 3.1.1 has no properties, so it is structured (CloudEvents, MQTT protocol binding 1.0, section 3).
        format.write_line(record, &mut payload);
        payload.pop();
    } else {
        format.write_value(record, &mut payload);
    }
    let properties = if version == MqttVersion::V5 { properties(record, format)? } else { Vec::new() };
    let topic = topic.render(record, None).map_err(|error| error.to_string())?;
    Ok(Message { topic, payload: Bytes::from(payload), is_retained: false, properties })
}

fn properties(record: &Record, format: Format) -> Result<Vec<(String, String)>, String> {
    let received_at = rfc3339_millis(record.received_at);
    let mut properties: Vec<(String, String)> = [
        ("dt-event-id", &*record.event_id),
        ("dt-event-type", &*record.event_type),
        ("dt-connector", &*record.connector),
        ("dt-received-at", &*received_at),
    ]
    .map(|(name, value)| (name.to_owned(), escaped(value)))
    .into();
    if let Some(id) = &record.request_id {
        properties.push(("dt-request-id".to_owned(), id.as_str().to_owned()));
    }
    if let Some(source) = record.provenance.source() {
        properties.push(("dt-source".to_owned(), source.name().to_owned()));
    }
    if format == Format::CloudEvents {
        for (name, value) in CloudEvent::of(record).attributes() {
            // The binding maps this one attribute to the content type of the message, which every message has.
            if name != "datacontenttype" {
                properties.push((name.to_owned(), escaped(value)));
            }
        }
    }
    match properties.iter().find(|(_, value)| value.len() > MAX_TEXT) {
        None => Ok(properties),
        Some((name, value)) => Err(format!(
            "the user property {name} has {} bytes, more than MQTT allows ({MAX_TEXT})",
            value.len()
        )),
    }
}

/// Returns a value for a user property. Control characters are percent-encoded, since a broker may reject them.
fn escaped(value: &str) -> String {
    if !value.contains(is_forbidden) {
        return value.to_owned();
    }
    let mut out = String::new();
    let mut bytes = [0; 4];
    for c in value.chars() {
        if is_forbidden(c) {
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "projects/p/devices/d";

    fn record(target: &str) -> Record {
        let body =
            format!(r#"{{"event":{{"eventId":"a\u0000b","eventType":"touch","targetName":"{target}"}}}}"#);
        Record { event_id: "a\0b".into(), body: Bytes::from(body), ..Record::sample("") }
    }

    fn message(version: MqttVersion, format: Format, target: &str) -> Result<Message, String> {
        of(&record(target), &"t".parse().expect("a topic"), version, format)
    }

    #[test]
    fn a_cloud_event_is_binary_in_mqtt_5_and_structured_in_3_1_1() {
        let binary = message(MqttVersion::V5, Format::CloudEvents, TARGET).expect("a message");
        assert_eq!(binary.payload, record(TARGET).body);
        let value = |name: &str| {
            let found = binary.properties.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| &**value)
        };
        assert_eq!((value("specversion"), value("id"), value("subject")), ("1.0", "a%00b", TARGET));
        assert_eq!(value("dt-event-id"), "a%00b");
        let structured = message(MqttVersion::V311, Format::CloudEvents, TARGET).expect("a message");
        let event: serde_json::Value = serde_json::from_slice(&structured.payload).expect("JSON");
        assert_eq!((&event["specversion"], &event["id"]), (&"1.0".into(), &"a\0b".into()));
        assert!(structured.properties.is_empty());
    }

    #[test]
    fn a_property_that_is_too_long_is_an_error() {
        let long = format!("projects/p/devices/{}", "d".repeat(70_000));
        let error = message(MqttVersion::V5, Format::CloudEvents, &long).expect_err("too long");
        assert!(error.contains("subject"), "{error}");
        assert!(message(MqttVersion::V5, Format::Body, &long).is_ok());
    }
}

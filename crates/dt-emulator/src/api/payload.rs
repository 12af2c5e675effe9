//! What `:publish` is given: `{"<eventType>":{…}}`, several types for several events.

use serde_json::{Map, Value};

use dt_verify::event::{EventType, Timestamp, rfc3339_micros, simulation};

/// An event to publish: its type, the object `data` as JSON, and its time.
type Ready = (EventType, String, Timestamp);

/// Reads and completes what is to be published.
///
/// # Errors
///
/// What is wrong, in words.
pub(super) fn complete(body: &Map<String, Value>, default_time: &str) -> Result<Vec<Ready>, String> {
    if body.is_empty() {
        return Err("the body names no event type, such as {\"touch\":{}}".to_owned());
    }
    body.iter().map(|(name, payload)| complete_one(name, payload, default_time)).collect()
}

fn complete_one(name: &str, payload: &Value, default_time: &str) -> Result<Ready, String> {
    let event_type = EventType::from(name);
    if !event_type.is_known() {
        return Err(format!("\"{}\" is no event type", name.escape_debug()));
    }
    if event_type == EventType::LabelsChanged {
        return Err("labelsChanged cannot be published; change the labels of a device".to_owned());
    }
    let members = payload.as_object().ok_or_else(|| format!("{name} is not an object"))?.clone();
    let time = match members.get("updateTime") {
        None | Some(Value::Null) => default_time.to_owned(),
        Some(time) => {
            time.as_str().and_then(in_utc).ok_or_else(|| format!("{name}.updateTime is not RFC 3339"))?
        }
    };
    let payload = simulation::complete(&event_type, members, &time).map_err(|error| error.to_string())?;
    Ok((event_type, payload.to_json(), Timestamp::new(time)))
}

/// Returns a time in UTC, as DT's are; `None` for what is no time.
fn in_utc(text: &str) -> Option<String> {
    let instant = Timestamp::new(text).instant()?;
    let is_utc = text.ends_with('Z') && text.contains('T');
    Some(if is_utc { text.to_owned() } else { rfc3339_micros(instant.as_microsecond()) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TIME: &str = "2026-01-01T00:00:00.000000Z";

    fn completed(body: &Value) -> Result<Value, String> {
        let events = complete(body.as_object().unwrap(), TIME)?;
        Ok(serde_json::from_str(&events[0].1).unwrap())
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
        assert_eq!(
            events[0].1,
            r#"{"temperature":{"value":-1.5,"updateTime":"2020-02-03T04:05:06Z","samples":[],"isBackfilled":true}}"#,
            "in DT's order"
        );
        assert_eq!(events[0].2.as_str(), "2020-02-03T04:05:06Z");
    }

    #[test]
    fn times_become_utc() {
        let sent = json!({"touch": {"updateTime": "2020-02-03T05:05:06.5+01:00"}});
        let events = complete(sent.as_object().unwrap(), TIME).unwrap();
        assert_eq!(events[0].2.as_str(), "2020-02-03T04:05:06.500000Z");
        assert_eq!(events[0].1, r#"{"touch":{"updateTime":"2020-02-03T04:05:06.500000Z"}}"#);
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
    fn members_beyond_the_documented_ones_are_kept() {
        let sent = json!({"touch": {"pressure": 7, "updateTime": null}});
        assert_eq!(completed(&sent), Ok(json!({"touch": {"pressure": 7, "updateTime": TIME}})));
    }
}

//! The body of `:publish`: `{"<eventType>":{…}}`, with one member for each event.

use serde_json::{Map, Value};

use dt_verify::event::{EventType, Timestamp, rfc3339_micros, simulation};

/// A complete event: its type, the object `data` as JSON, and its time.
type CompleteEvent = (EventType, String, Timestamp);

/// Why an event cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the body has no event type; expected one such as {{\"touch\":{{}}}}")]
    Empty,
    #[error("\"{}\" is not an event type", .0.escape_debug())]
    UnknownType(String),
    #[error("labelsChanged cannot be published; change the labels of a device")]
    LabelsChanged,
    #[error("{0} is not an object")]
    NotAnObject(String),
    #[error("{0}.updateTime is not RFC 3339")]
    BadTime(String),
    #[error(transparent)]
    BadMember(#[from] simulation::CompleteError),
}

/// The member of a payload that marks events which a device sent late. Only some types have it.
const BACKFILLED: &str = "isBackfilled";

/// Reads the events in a body and fills in the members that are left out. `is_late` is the default of `isBackfilled`.
pub fn complete(
    body: &Map<String, Value>,
    default_time: &str,
    is_late: bool,
) -> Result<Vec<CompleteEvent>, PayloadError> {
    if body.is_empty() {
        return Err(PayloadError::Empty);
    }
    body.iter().map(|(name, payload)| complete_one(name, payload, default_time, is_late)).collect()
}

fn complete_one(
    name: &str,
    payload: &Value,
    default_time: &str,
    is_late: bool,
) -> Result<CompleteEvent, PayloadError> {
    let event_type = EventType::from(name);
    if !event_type.is_known() {
        return Err(PayloadError::UnknownType(name.to_owned()));
    }
    if event_type == EventType::LabelsChanged {
        return Err(PayloadError::LabelsChanged);
    }
    let mut members = payload.as_object().ok_or_else(|| PayloadError::NotAnObject(name.to_owned()))?.clone();
    let time = match members.get("updateTime") {
        None | Some(Value::Null) => default_time.to_owned(),
        Some(time) => time.as_str().and_then(in_utc).ok_or_else(|| PayloadError::BadTime(name.to_owned()))?,
    };
    let mut data = simulation::complete(&event_type, members.clone(), &time)?.to_json();
    if is_late && members.get(BACKFILLED).is_none_or(Value::is_null) && has_member(&data, name, BACKFILLED) {
        members.insert(BACKFILLED.to_owned(), true.into());
        data = simulation::complete(&event_type, members, &time)?.to_json();
    }
    Ok((event_type, data, Timestamp::new(time)))
}

/// Returns whether the payload in an object `data` has a member.
fn has_member(data: &str, event_type: &str, member: &str) -> bool {
    let data = serde_json::from_str::<Value>(data);
    data.is_ok_and(|data| data.get(event_type).is_some_and(|payload| payload.get(member).is_some()))
}

/// Converts a time to UTC, as DT's are; `None` if the text is not RFC 3339.
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

    fn completed(body: &Value) -> Result<Value, PayloadError> {
        let events = complete(body.as_object().unwrap(), TIME, false)?;
        Ok(serde_json::from_str(&events[0].1).unwrap())
    }

    #[test]
    fn missing_members_are_filled_in() {
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
    fn members_of_the_body_are_kept() {
        let sent = json!({"temperature": {"value": -1.5, "samples": [], "isBackfilled": true, "updateTime": "2020-02-03T04:05:06Z"}});
        let events = complete(sent.as_object().unwrap(), TIME, false).unwrap();
        assert_eq!(
            events[0].1,
            r#"{"temperature":{"value":-1.5,"updateTime":"2020-02-03T04:05:06Z","samples":[],"isBackfilled":true}}"#,
            "in DT's order"
        );
        assert_eq!(events[0].2.as_str(), "2020-02-03T04:05:06Z");
    }

    #[test]
    fn late_events_are_marked_where_their_type_can_be() {
        for (sent, marked) in [
            (json!({"temperature": {"value": 1}}), json!(true)),
            (
                json!({"humidity": {"temperature": 1, "relativeHumidity": 2, "isBackfilled": null}}),
                json!(true),
            ),
            (json!({"temperature": {"value": 1, "isBackfilled": false}}), json!(false)),
            (json!({"touch": {}}), Value::Null),
        ] {
            let events = complete(sent.as_object().unwrap(), TIME, true).unwrap();
            let data: Value = serde_json::from_str(&events[0].1).unwrap();
            assert_eq!(data[events[0].0.as_str()][BACKFILLED], marked, "{sent}");
        }
    }

    #[test]
    fn times_become_utc() {
        let sent = json!({"touch": {"updateTime": "2020-02-03T05:05:06.5+01:00"}});
        let events = complete(sent.as_object().unwrap(), TIME, false).unwrap();
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

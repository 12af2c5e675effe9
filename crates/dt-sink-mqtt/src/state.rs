//! The latest state of each device and quantity, as a retained message.
//!
//! A state is published only if it is newer than the retained one. The broker is the memory of what is retained: on a new
//! connection the sink knows nothing, and before it publishes the first state of a topic it reads the retained message. So a late
//! event does not replace a newer state after a restart of the receiver or of the broker either, and nothing is stored here.

use std::collections::HashMap;

use bytes::Bytes;
use dt_sink::record::{Record, json_number};
use dt_verify::event::{Delivery, Reading, ReadingValue, Timestamp, rfc3339_millis};
use serde_json::{Value, json};

use crate::topic::{BadTopic, MqttTopic};

/// The largest number of topics whose time is kept. If there are more, the retained messages of all are read again.
const MAX_KNOWN: usize = 100_000;

/// The newest reading of a quantity in an event.
#[derive(Debug, Clone, PartialEq)]
pub struct State<'a> {
    /// The topic to which the state is published.
    pub topic: String,
    /// When the reading was measured.
    pub time: Timestamp,
    /// The newest reading of the quantity.
    pub reading: Reading<'a>,
}

impl<'a> State<'a> {
    /// Returns the newest state of each quantity that an event reports. An event without a device has no states.
    ///
    /// # Errors
    ///
    /// Returns [`BadTopic`] if the topic is too long.
    pub fn of(record: &Record, delivery: &'a Delivery, topic: &MqttTopic) -> Result<Vec<Self>, BadTopic> {
        let mut states: Vec<Self> = Vec::new();
        if record.device.is_none() {
            return Ok(states);
        }
        for reading in delivery.readings() {
            let time = reading.time.cloned();
            let time = time.unwrap_or_else(|| Timestamp::new(rfc3339_millis(record.received_at)));
            match states.iter_mut().find(|state| state.reading.quantity == reading.quantity) {
                Some(state) if state.time >= time => {}
                Some(state) => (state.time, state.reading) = (time, reading),
                None => {
                    states.push(Self { topic: topic.render(record, Some(reading.quantity))?, time, reading })
                }
            }
        }
        Ok(states)
    }

    /// Returns the payload: a JSON object with the value, its unit, the time and the event id.
    pub fn payload(&self, event_id: &str) -> Vec<u8> {
        let value = match self.reading.value {
            ReadingValue::Number(number) => json_number(number),
            ReadingValue::Text(text) => Value::from(text),
            _ => Value::Null,
        };
        let mut payload = json!({"value": value, "time": self.time.as_str(), "eventId": event_id});
        if let (Some(unit), Some(members)) = (self.reading.unit, payload.as_object_mut()) {
            members.insert("unit".to_owned(), unit.into());
        }
        payload.to_string().into_bytes()
    }
}

/// The known times of the retained states, by topic.
#[derive(Debug, Default)]
pub struct RetainedTimes(HashMap<String, Option<Timestamp>>);

impl RetainedTimes {
    /// Forgets all times.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets the time of a topic whose state was not published.
    pub fn forget(&mut self, topic: &str) {
        self.0.remove(topic);
    }

    /// Makes room for these topics, and returns those whose time is not known, without repetitions.
    pub fn unknown<'a>(&mut self, topics: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        if self.0.len().saturating_add(topics.clone().count()) > MAX_KNOWN {
            self.0.clear();
        }
        let mut unknown: Vec<String> =
            topics.filter(|topic| !self.0.contains_key(*topic)).map(str::to_owned).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Stores the times of the retained messages of these topics. A message without a time is replaced by any state.
    pub fn learn(&mut self, topics: Vec<String>, mut retained: HashMap<String, Bytes>) {
        for topic in topics {
            let time = retained.remove(&topic).and_then(|payload| time_of(&payload));
            self.0.insert(topic, time);
        }
    }

    /// Returns whether a state is newer than the retained one. If so, it counts as published from then on.
    pub fn is_newer(&mut self, state: &State<'_>) -> bool {
        let is_newer = self
            .0
            .get(&state.topic)
            .is_none_or(|known| known.as_ref().is_none_or(|known| state.time > *known));
        if is_newer {
            self.0.insert(state.topic.clone(), Some(state.time.clone()));
        }
        is_newer
    }
}

/// Returns the time in the payload of a state; `None` if it has none.
fn time_of(payload: &[u8]) -> Option<Timestamp> {
    let payload: Value = serde_json::from_slice(payload).ok()?;
    let time = Timestamp::new(payload.get("time")?.as_str()?);
    time.instant().is_some().then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(body: &'static str) -> Vec<(String, String)> {
        let record = Record {
            device: Some("d".into()),
            project: Some("p".into()),
            received_at: 1_700_000_000_123,
            body: Bytes::from_static(body.as_bytes()),
            ..Record::sample("e1")
        };
        let delivery = record.delivery().expect("a delivery");
        let topic = "dt/{device}/{quantity}".parse().expect("a topic");
        let states = State::of(&record, &delivery, &topic).expect("short");
        let text = |state: &State<'_>| String::from_utf8(state.payload("e1")).expect("text");
        states.iter().map(|state| (state.topic.clone(), text(state))).collect()
    }

    #[test]
    fn of_several_samples_the_newest_is_the_state() {
        let body = r#"{"event":{"eventId":"e1","eventType":"temperature","targetName":"projects/p/devices/d","data":
            {"temperature":{"value":20.5,"updateTime":"2024-01-01T00:00:00Z","samples":[
            {"value":20.5,"sampleTime":"2024-01-01T00:00:00Z"},{"value":22,"sampleTime":"2024-01-01T00:05:00Z"},
            {"value":19.5,"sampleTime":"2023-12-31T23:55:00Z"}]}},"timestamp":"2024-01-01T00:06:00Z"}}"#;
        let payload = r#"{"eventId":"e1","time":"2024-01-01T00:05:00Z","unit":"°C","value":22}"#;
        assert_eq!(states(body), [("dt/d/temperature".to_owned(), payload.to_owned())]);
    }

    #[test]
    fn a_state_without_any_time_has_that_of_its_receipt() {
        let body = r#"{"event":{"eventId":"e1","eventType":"contact","data":{"contact":{"state":"OPEN"}}}}"#;
        let payload = r#"{"eventId":"e1","time":"2023-11-14T22:13:20.123Z","value":"OPEN"}"#;
        assert_eq!(states(body), [("dt/d/contact".to_owned(), payload.to_owned())]);
    }

    #[test]
    fn only_a_newer_state_replaces_the_retained_one() {
        let reading = r#"{"event":{"eventId":"e1","eventType":"co2","data":{"co2":{"ppm":1}}}}"#;
        let record = Record {
            device: Some("d".into()),
            body: Bytes::from_static(reading.as_bytes()),
            ..Record::sample("e")
        };
        let delivery = record.delivery().expect("a delivery");
        let state = |time: &str| State {
            topic: "t".to_owned(),
            time: Timestamp::new(time),
            reading: delivery.readings()[0],
        };
        let mut times = RetainedTimes::default();
        assert_eq!(times.unknown(["t", "u", "t"].into_iter()), ["t", "u"]);
        let retained =
            [("t".to_owned(), Bytes::from_static(br#"{"time":"2024-01-01T00:00:00Z","value":1}"#))];
        times.learn(vec!["t".to_owned(), "u".to_owned()], retained.into());
        assert!(times.unknown(["t", "u"].into_iter()).is_empty());
        assert!(!times.is_newer(&state("2023-12-31T00:00:00Z")), "older");
        assert!(!times.is_newer(&state("2024-01-01T00:00:00.000Z")), "the same");
        assert!(times.is_newer(&state("2024-01-01T00:00:00.001Z")));
        assert!(!times.is_newer(&state("2024-01-01T00:00:00.001Z")), "published");
        times.forget("t");
        assert_eq!(times.unknown(["t"].into_iter()), ["t"]);
        for payload in ["", "online", r#"{"time":1}"#, r#"{"time":"yesterday"}"#, "[]"] {
            assert_eq!(time_of(payload.as_bytes()), None, "{payload}");
        }
    }

    #[test]
    fn the_number_of_known_topics_is_limited() {
        let mut times = RetainedTimes::default();
        times.learn((0..MAX_KNOWN).map(|number| number.to_string()).collect(), HashMap::new());
        assert_eq!(times.unknown(["0", "new"].into_iter()), ["0", "new"]);
        assert!(times.0.is_empty());
    }
}

//! A stored event: the JSON that DT's REST API shows and its connectors send.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::device::{Device, Labels};
use dt_verify::event::EventType;

/// The identity of a device: the id of its project, and its own id.
#[derive(Debug, Clone, Copy)]
pub struct DeviceRef<'a> {
    pub project: &'a str,
    pub device: &'a str,
}

/// An event to publish.
#[derive(Clone, Copy)]
pub struct NewEvent<'a> {
    pub device: DeviceRef<'a>,
    pub event_type: &'a EventType,
    /// The object `data` of the event, as JSON.
    pub data: &'a str,
}

/// An event of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEvent {
    /// The id of the event: `event.eventId`.
    pub event_id: Box<str>,
    /// The id of the project that the device belonged to when the event was published.
    pub project: Box<str>,
    /// The id of the device.
    pub device: Box<str>,
    /// The type of the event: `event.eventType`.
    pub event_type: Box<str>,
    /// The `timestamp` of the event, in Unix microseconds.
    pub timestamp_micros: i64,
}

/// A published event. Its JSON is written once, so that history, streams and deliveries have the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The position of the event in the order of publication.
    pub number: u64,
    pub id: Box<str>,
    pub project: Box<str>,
    pub device: Box<str>,
    pub event_type: Box<str>,
    /// The `timestamp` of the event, in Unix microseconds.
    pub micros: i64,
    /// The object `event` as compact JSON, with its members in DT's order.
    pub json: Box<str>,
}

/// An event when it was published, with the properties that filters use.
#[derive(Debug, Clone)]
pub struct Published {
    pub event: Arc<StoredEvent>,
    pub device_type: Box<str>,
    pub labels: Arc<Labels>,
}

impl StoredEvent {
    /// Writes the JSON of an event. `timestamp` is in RFC 3339, `micros` is the same time in Unix microseconds.
    pub fn new(number: u64, id: String, new: NewEvent<'_>, (timestamp, micros): (&str, i64)) -> Self {
        let NewEvent { device: DeviceRef { project, device }, event_type, data } = new;
        let target = Value::from(format!("projects/{project}/devices/{device}"));
        let (shown_id, shown_type, shown_time) =
            (Value::from(&*id), Value::from(event_type.as_str()), Value::from(timestamp));
        let json = format!(
            r#"{{"eventId":{shown_id},"targetName":{target},"eventType":{shown_type},"data":{data},"timestamp":{shown_time}}}"#
        );
        Self {
            number,
            id: id.into_boxed_str(),
            project: project.into(),
            device: device.into(),
            event_type: event_type.as_str().into(),
            micros,
            json: json.into_boxed_str(),
        }
    }

    /// Returns the event as an entry of the history.
    pub fn show(&self) -> HistoryEvent {
        HistoryEvent {
            event_id: self.id.clone(),
            project: self.project.clone(),
            device: self.device.clone(),
            event_type: self.event_type.clone(),
            timestamp_micros: self.micros,
        }
    }

    /// Returns `data.<type>`; `None` if the event does not have it.
    pub fn payload(&self) -> Option<Value> {
        let event: Value = serde_json::from_str(&self.json).ok()?;
        event.get("data")?.get(&*self.event_type).cloned()
    }

    /// Returns the body of a delivery: the event, the labels of the device whose keys are in `keys`, and the device's metadata.
    pub fn delivery(&self, device: &Device, keys: &[String]) -> String {
        let labels: Labels =
            keys.iter().filter_map(|key| Some((key.clone(), device.labels.get(key)?.clone()))).collect();
        let labels = serde_json::to_string(&labels).unwrap_or_else(|_| "{}".to_owned());
        format!(
            r#"{{"event":{event},"labels":{labels},"metadata":{{"deviceId":{device},"projectId":{project},"deviceType":{device_type},"productNumber":""}}}}"#,
            event = self.json,
            device = Value::from(&*self.device),
            project = Value::from(&*self.project),
            device_type = Value::from(&*device.device_type),
        )
    }
}

//! An event as it is kept: the JSON that DT's REST API shows and its connectors send.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::device::{Device, Labels};

/// One event. Its JSON is made once: histories, streams and deliveries show the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredEvent {
    /// Its place in the order in which events were published.
    pub(crate) number: u64,
    pub(crate) id: Box<str>,
    pub(crate) project: Box<str>,
    pub(crate) device: Box<str>,
    pub(crate) event_type: Box<str>,
    /// `timestamp`, in Unix microseconds.
    pub(crate) micros: i64,
    /// The object `event`: compact, members in DT's order.
    pub(crate) json: Box<str>,
}

/// An event at the moment it was published, with what filters look at.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) event: Arc<StoredEvent>,
    pub(crate) device_type: Box<str>,
    pub(crate) labels: Arc<Labels>,
}

impl StoredEvent {
    /// Writes an event; `data` is the object `data` as JSON.
    pub(crate) fn new(
        number: u64,
        id: String,
        (project, device): (&str, &str),
        event_type: &str,
        data: &str,
        (timestamp, micros): (&str, i64),
    ) -> Self {
        let target = Value::from(format!("projects/{project}/devices/{device}"));
        let (shown_id, shown_type, shown_time) =
            (Value::from(&*id), Value::from(event_type), Value::from(timestamp));
        let json = format!(
            r#"{{"eventId":{shown_id},"targetName":{target},"eventType":{shown_type},"data":{data},"timestamp":{shown_time}}}"#
        );
        Self {
            number,
            id: id.into_boxed_str(),
            project: project.into(),
            device: device.into(),
            event_type: event_type.into(),
            micros,
            json: json.into_boxed_str(),
        }
    }

    /// `data.<type>`, if it has one.
    pub(crate) fn payload(&self) -> Option<Value> {
        let event: Value = serde_json::from_str(&self.json).ok()?;
        event.get("data")?.get(&*self.event_type).cloned()
    }

    /// The body of a delivery: the event, those labels of the device whose keys are asked for, and its metadata.
    pub(crate) fn delivery(&self, device: &Device, keys: &[String]) -> String {
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

//! A delivery: one event with the labels and the metadata of its device.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::envelope::Envelope;
use super::json;
use super::members::Json;
use super::not_a_delivery::NotADelivery;
use super::target_name;
use super::timestamp::Timestamp;
use super::types::{EventType, Payload};
use crate::Verified;

/// The body of one request: `{"event":{…},"labels":{…},"metadata":{…}}` (DT's page "Receiving Events").
///
/// # Examples
///
/// ```
/// use dt_verify::event::{Delivery, EventType, Payload};
/// # use dt_verify::{Secret, Signer, Verifier};
/// # let secret = Secret::new("some-good-secret").unwrap();
/// # let verifier = Verifier::builder().secret("primary", secret.clone()).build().unwrap();
/// let body = br#"{"event":{"eventId":"c82gg9catj3vmh4248og","targetName":"projects/p/devices/d","eventType":"touchCount",
///     "data":{"touchCount":{"total":469,"updateTime":"2022-02-10T11:22:13.123456Z"}}},"labels":{"name":"Bell"}}"#;
/// # let token = Signer::secret(secret).sign(body, 1_700_000_000, "c82gg99hga35jc2afkeg").unwrap();
/// # let headers = [("X-Dt-Signature", token)];
/// let delivery = Delivery::parse(&verifier.verify(&headers, body, 1_700_000_001).unwrap()).unwrap();
/// assert_eq!((delivery.project(), delivery.device()), (Some("p"), Some("d")));
/// assert_eq!(delivery.labels["name"], "Bell");
/// assert!(matches!(&delivery.event.data, Payload::TouchCount(count) if count.total == 469));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// The member `event`: the event type, the device, the payload and the time.
    pub event: Event,
    /// The labels of the device that the Data Connector is configured to send. A value that is not a string is converted to
    /// its JSON text.
    pub labels: BTreeMap<String, String>,
    /// The device's ids and type. `None` if the body has no `metadata`, as bodies from before 2022.
    pub metadata: Option<Metadata>,
    /// Unknown members, and members of another type than documented.
    pub extra: Map<String, Value>,
}

/// The event: the member `event` (DT's page "Events").
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// `eventId`: not empty; 20 characters in DT's own events. All deliveries of an event have the same id.
    pub event_id: String,
    /// `targetName`: `projects/<project>/devices/<device>`.
    pub target_name: Option<String>,
    /// `eventType`, such as `touch`. It determines the type of the payload in `data`.
    pub event_type: EventType,
    /// `data`: the payload, such as a measured value or a new state.
    pub data: Payload,
    /// Members of `data` other than the one named after the event type. DT has sent none so far.
    pub data_extra: Map<String, Value>,
    /// `timestamp`: when a Cloud Connector received the event. Events may arrive out of order; sort them by this time.
    pub timestamp: Option<Timestamp>,
    /// Unknown members, and members of another type than documented.
    pub extra: Map<String, Value>,
}

/// The member `metadata`. Events that do not belong to a device may have other members.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// `deviceId`: the id of the device.
    pub device_id: Option<String>,
    /// `projectId`: the id of the device's project.
    pub project_id: Option<String>,
    /// `deviceType`, such as `temperature` or `ccon`.
    pub device_type: Option<String>,
    /// `productNumber`: empty for emulated devices.
    pub product_number: Option<String>,
    /// Members of `metadata` that are unknown, or of another type than documented.
    pub extra: Map<String, Value>,
}

impl Delivery {
    /// Parses a verified body.
    ///
    /// # Errors
    ///
    /// Returns [`NotADelivery`] if the body is not a JSON object with an `event` that has an `eventId` and an `eventType`. No
    /// other content of a body is an error.
    pub fn parse<B: AsRef<[u8]>>(verified: &Verified<B>) -> Result<Self, NotADelivery> {
        Self::parse_stored(verified.body())
    }

    /// Parses a body that was verified before it was stored, such as one from a log or a queue. Nothing is verified here: for a
    /// request, use [`parse`](Self::parse).
    ///
    /// # Errors
    ///
    /// Returns [`NotADelivery`] as [`parse`](Self::parse) does.
    pub fn parse_stored(body: &[u8]) -> Result<Self, NotADelivery> {
        // The envelope decides which bodies are deliveries, so that both types accept the same ones.
        let envelope = Envelope::parse_stored(body)?;
        let mut members = into_object(Some(json::tree(body)?));
        let event = Event::from_members(&envelope, into_object(members.remove("event")));
        let labels = take(&mut members, "labels", Json::from_json);
        let metadata =
            take(&mut members, "metadata", |value| Some(Metadata::from_members(value.as_object()?.clone())));
        Ok(Self { event, labels: labels.unwrap_or_default(), metadata, extra: members })
    }

    /// Returns the id of the device's project, from `targetName`; `None` if that names no project.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.event.project()
    }

    /// Returns the device's id, from `targetName` or else from `metadata.deviceId`; `None` if the event does not belong to a
    /// device.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        let in_metadata = || self.metadata.as_ref()?.device_id.as_deref().filter(|id| !id.is_empty());
        self.event.device().or_else(in_metadata)
    }
}

impl Event {
    fn from_members(envelope: &Envelope<'_>, mut members: Map<String, Value>) -> Self {
        let event_type = EventType::from(&*envelope.event_type);
        members.remove("eventId");
        members.remove("eventType");
        let (data, data_extra) = Payload::of(&event_type, members.remove("data").unwrap_or_default());
        Self {
            event_id: envelope.event_id.clone().into_owned(),
            target_name: take(&mut members, "targetName", Json::from_json),
            event_type,
            data,
            data_extra,
            timestamp: take(&mut members, "timestamp", Json::from_json),
            extra: members,
        }
    }

    /// Returns the id of the device's project, from `targetName`; `None` if that names no project.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        target_name::project(self.target_name.as_deref()?)
    }

    /// Returns the device's id, from `targetName`; `None` if that names no device.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        target_name::device(self.target_name.as_deref()?)
    }
}

impl Metadata {
    fn from_members(mut members: Map<String, Value>) -> Self {
        Self {
            device_id: take(&mut members, "deviceId", Json::from_json),
            project_id: take(&mut members, "projectId", Json::from_json),
            device_type: take(&mut members, "deviceType", Json::from_json),
            product_number: take(&mut members, "productNumber", Json::from_json),
            extra: members,
        }
    }
}

fn into_object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// Removes the member `name` and returns its converted value. Returns `None` if the member is absent or `null` (which is removed
/// as well), or if its value cannot be converted; such a member stays in the object.
fn take<T>(
    members: &mut Map<String, Value>,
    name: &str,
    convert: impl FnOnce(&Value) -> Option<T>,
) -> Option<T> {
    let value = members.get(name)?;
    let converted = convert(value);
    if converted.is_some() || value.is_null() {
        members.remove(name);
    }
    converted
}

//! A whole delivery: one event, with the labels and the metadata of its device.

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

/// One request's body: `{"event":{…},"labels":{…},"metadata":{…}}`.
///
/// From DT's page "Receiving Events". Only [`parse`](Self::parse) makes one.
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
    /// The event.
    pub event: Event,
    /// Those labels of the device that the Data Connector is configured to send. A value that is not a string is here
    /// as its JSON text.
    pub labels: BTreeMap<String, String>,
    /// What the device is. Bodies of before 2022 have none.
    pub metadata: Option<Metadata>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// What happened: the member `event`. From DT's page "Events".
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// `eventId`: not empty; 20 characters in DT's own events. Deliveries of one event have one id.
    pub event_id: String,
    /// `targetName`: `projects/<project>/devices/<device>`.
    pub target_name: Option<String>,
    /// `eventType`.
    pub event_type: EventType,
    /// `data`.
    pub data: Payload,
    /// Members of `data` beside the one named after the event type; DT has sent none so far.
    pub data_extra: Map<String, Value>,
    /// `timestamp`: when a Cloud Connector received the event. Serves as a version: events may come out of order.
    pub timestamp: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// What DT knows of the device: the member `metadata`. Events that are not of a device may have other members.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// `deviceId`.
    pub device_id: Option<String>,
    /// `projectId`.
    pub project_id: Option<String>,
    /// `deviceType`, such as `temperature` or `ccon`.
    pub device_type: Option<String>,
    /// `productNumber`: empty for emulated devices.
    pub product_number: Option<String>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

impl Delivery {
    /// Reads a verified body.
    ///
    /// # Errors
    ///
    /// [`NotADelivery`], when the body is not a JSON object with an `event` that has an `eventId` and an `eventType`.
    /// Nothing else about a body is an error.
    pub fn parse<B: AsRef<[u8]>>(verified: &Verified<B>) -> Result<Self, NotADelivery> {
        // The envelope alone decides what a delivery is, so the two cannot disagree.
        let envelope = Envelope::parse(verified)?;
        let mut members = into_object(Some(json::tree(verified.body())?));
        let event = Event::from_members(&envelope, into_object(members.remove("event")));
        let labels = take(&mut members, "labels", Json::from_json);
        let metadata =
            take(&mut members, "metadata", |value| Some(Metadata::from_members(value.as_object()?.clone())));
        Ok(Self { event, labels: labels.unwrap_or_default(), metadata, extra: members })
    }

    /// The project that the device is in now, from `targetName`.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.event.project()
    }

    /// The device, from `targetName`, else `metadata.deviceId`. Events that are not of a device have none.
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

    /// The project that the device is in now, from `targetName`.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        target_name::project(self.target_name.as_deref()?)
    }

    /// The device, from `targetName`.
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

/// Takes a member out, if it converts; `null` is taken out as well. Others stay, to be seen in `extra`.
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

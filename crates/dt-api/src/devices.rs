//! Devices, with the newest event of each event type.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use dt_verify::event::{EventType, Timestamp};

use crate::client::Client;
use crate::error::Error;
use crate::exchange::Call;
use crate::json::{BadAnswer, Object};
use crate::pages::Pages;
use crate::projects::last_segment;
use crate::url::segment;

/// A device: a sensor or a Cloud Connector.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Device {
    /// The name: `projects/<project>/devices/<device>`, with the project to which the device belongs now.
    pub name: String,
    /// The device type, such as `temperature` or `ccon`.
    pub device_type: String,
    /// The product number; empty for emulated devices.
    pub product_number: String,
    /// The labels of the device, by key.
    pub labels: BTreeMap<String, String>,
    /// The newest event of each event type; `None` if the response does not contain the member `reported`.
    pub reported: Option<Reported>,
    /// Members that this crate does not know.
    pub extra: Map<String, Value>,
}

/// The newest event of each event type that a device has sent. Types for which DT has no event yet (`null`) are absent.
#[derive(Debug, Clone, Default)]
pub struct Reported(BTreeMap<EventType, ReportedEvent>);

/// The newest event of one event type of a device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReportedEvent {
    /// `updateTime`: the time of the event; `None` if the payload has no such member.
    pub update_time: Option<Timestamp>,
    /// The payload as it was received: the JSON that an event has in `data.<type>`.
    pub raw: Box<RawValue>,
}

const KNOWN: [&str; 5] = ["name", "type", "productNumber", "labels", "reported"];

impl Device {
    /// Returns the id of the device: the last segment of its name.
    #[must_use]
    pub fn id(&self) -> &str {
        last_segment(&self.name)
    }

    /// Returns the id of the device's project; `None` if the name does not contain one.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.name.strip_prefix("projects/")?.split('/').next().filter(|id| !id.is_empty())
    }

    fn read(raw: &RawValue, path: String) -> Result<Self, BadAnswer> {
        Self::of(&Object::of(raw, path)?)
    }

    fn of(object: &Object<'_>) -> Result<Self, BadAnswer> {
        Ok(Self {
            name: object.text("name")?,
            device_type: object.text("type")?,
            product_number: object.optional_text("productNumber")?.unwrap_or_default(),
            labels: object.optional_text_map("labels")?.unwrap_or_default(),
            reported: object.optional_object("reported")?.as_ref().map(Reported::of).transpose()?,
            extra: object.others(&KNOWN),
        })
    }
}

impl Reported {
    /// Returns the newest event of an event type; `None` if there is none.
    #[must_use]
    pub fn get(&self, event_type: &EventType) -> Option<&ReportedEvent> {
        self.0.get(event_type)
    }

    /// Returns the event types with the newest event of each.
    pub fn iter(&self) -> impl Iterator<Item = (&EventType, &ReportedEvent)> {
        self.0.iter()
    }

    fn of(object: &Object<'_>) -> Result<Self, BadAnswer> {
        let mut reported = BTreeMap::new();
        for (name, raw) in object.members().filter(|(_, raw)| raw.get() != "null") {
            let payload = Object::of(raw, object.at(name))?;
            let update_time = payload.optional_text("updateTime")?.map(Timestamp::new);
            reported.insert(EventType::from(name), ReportedEvent { update_time, raw: raw.to_owned() });
        }
        Ok(Self(reported))
    }
}

/// The selection and the order of a list of devices.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DeviceQuery(Vec<(&'static str, String)>);

impl DeviceQuery {
    /// Returns a query for all devices of a project, in the order in which DT sends them.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Selects the device with this id. Can be called repeatedly, to select several devices.
    pub fn device(self, id: impl Into<String>) -> Self {
        self.with("device_ids", id)
    }

    /// Selects devices of a device type, such as `temperature`. Can be called repeatedly, to select several types.
    pub fn device_type(self, device_type: impl Into<String>) -> Self {
        self.with("device_types", device_type)
    }

    /// Selects devices with a label. An empty value selects devices with any value of the label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.with("label_filters", format!("{key}={value}"))
    }

    /// Selects devices whose type, labels or id contain these words.
    pub fn words(self, words: impl Into<String>) -> Self {
        self.with("query", words)
    }

    /// Sorts the devices by a field such as `reported.temperature.value`; with the prefix `-`, in descending order.
    pub fn order_by(self, field: impl Into<String>) -> Self {
        self.with("order_by", field)
    }

    /// Sets the largest number of devices in a page.
    pub fn page_size(self, size: u32) -> Self {
        self.with("pageSize", size.to_string())
    }
}

impl Client {
    /// Returns the devices of a project, in pages; `-` selects all projects.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `project` is not a valid id.
    pub fn devices(&self, project: &str, query: &DeviceQuery) -> Result<Pages<Device>, Error> {
        let path = format!("/projects/{}/devices", segment("project", project)?);
        Ok(Pages::new(self, path, query.0.clone(), "devices", Device::read))
    }

    /// Reads a device; `-` as `project` finds the device in any project.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented.
    pub async fn device(&self, project: &str, device: &str) -> Result<Device, Error> {
        let (project, device) = (segment("project", project)?, segment("device", device)?);
        let call = Call::get(format!("/projects/{project}/devices/{device}"));
        self.0.answer(&call).await?.read(Device::of)
    }
}

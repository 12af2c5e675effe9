//! The event history of a device, and the event record in the API.

use serde_json::value::RawValue;

use dt_verify::event::{Delivery, Event, EventType, NotADelivery, Timestamp};

use crate::client::Client;
use crate::error::Error;
use crate::json::{BadAnswer, Object};
use crate::pages::Pages;
use crate::projects::last_segment;
use crate::url::segment;

/// An event of the history or the stream: the content of a delivery's member `event`, without labels and metadata.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EventRecord {
    /// `eventId`: the id of the event.
    pub event_id: String,
    /// `eventType`: the type of the event.
    pub event_type: EventType,
    /// `targetName`: `projects/<project>/devices/<device>`; empty if it is absent.
    pub target_name: String,
    /// `timestamp`: when a Cloud Connector received the event.
    pub timestamp: Option<Timestamp>,
    /// The JSON of the event, byte for byte as it was received.
    pub raw: Box<RawValue>,
}

impl EventRecord {
    /// Returns the id of the device; `None` if the event does not belong to a device.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        let (parent, _) = self.target_name.rsplit_once('/')?;
        let id = last_segment(&self.target_name);
        (parent.ends_with("/devices") && !id.is_empty()).then_some(id)
    }

    /// Parses the event with its typed payload.
    ///
    /// # Errors
    ///
    /// [`NotADelivery`] if the JSON is nested too deeply.
    pub fn event(&self) -> Result<Event, NotADelivery> {
        let body = format!("{{\"event\":{}}}", self.raw.get());
        Delivery::parse_stored(body.as_bytes()).map(|delivery| delivery.event)
    }

    pub(crate) fn read(raw: &RawValue, path: String) -> Result<Self, BadAnswer> {
        let object = Object::of(raw, path)?;
        // An event may be odd in everything but its id and type, as a delivery may.
        Ok(Self {
            event_id: object.text("eventId")?,
            event_type: EventType::from(object.text("eventType")?),
            target_name: object.optional_text("targetName").ok().flatten().unwrap_or_default(),
            timestamp: object.optional_text("timestamp").ok().flatten().map(Timestamp::new),
            raw: raw.to_owned(),
        })
    }
}

/// The selection of events of a device's history. By default, those of the last 24 hours.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct HistoryQuery(Vec<(&'static str, String)>);

impl HistoryQuery {
    /// Returns a query for all events of the last 24 hours.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Selects events of an event type. Can be called repeatedly, to select several types.
    pub fn event_type(self, event_type: &EventType) -> Self {
        self.with("eventTypes", event_type.as_str())
    }

    /// Selects events with this `timestamp` or a later one.
    pub fn from(self, time: &Timestamp) -> Self {
        self.with("startTime", time.as_str())
    }

    /// Selects events up to this `timestamp`. DT indexes events with a delay of up to 10 s, so the next query should start 10 s
    /// before the end of this one.
    pub fn until(self, time: &Timestamp) -> Self {
        self.with("endTime", time.as_str())
    }

    /// Sets the largest number of events in a page.
    pub fn page_size(self, size: u32) -> Self {
        self.with("pageSize", size.to_string())
    }
}

impl Client {
    /// Returns the event history of a device, in pages. DT keeps 31 days.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `project` or `device` is not a valid id.
    pub fn history(
        &self,
        project: &str,
        device: &str,
        query: &HistoryQuery,
    ) -> Result<Pages<EventRecord>, Error> {
        let (project, device) = (segment("project", project)?, segment("device", device)?);
        let path = format!("/projects/{project}/devices/{device}/events");
        Ok(Pages::new(self, path, query.0.clone(), "events", EventRecord::read))
    }
}

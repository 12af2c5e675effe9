//! `orderBy` of a list of devices: a field in dot notation such as `reported.temperature.value`, with `-` before it for
//! descending order (documentation of `Device.list_devices` in DT's Python client).
//!
//! DT does not document the position of a device without the field: here it is last in both directions.

use std::cmp::Ordering;

use serde_json::Value;

use super::ApiError;
use super::query::Query;
use crate::state::Device;
use dt_verify::event::{EventType, Timestamp};

/// The sort order of a list of devices.
pub struct Order {
    field: Field,
    descending: bool,
}

/// A field of a device.
enum Field {
    Id,
    Name,
    Type,
    ProductNumber,
    Label(String),
    Reported { event_type: String, member: String },
}

/// The value of a field. Values of different variants are sorted in the order of the variants.
#[derive(PartialEq, PartialOrd)]
enum FieldValue {
    Number(f64),
    /// A time in Unix microseconds: as texts, times with and without a fraction would be sorted wrongly.
    Time(i64),
    Text(String),
}

impl Order {
    /// Reads `orderBy`. Returns `None` if the query does not have it.
    pub fn read(query: &Query) -> Result<Option<Self>, ApiError> {
        let Some(text) = query.last("orderBy") else { return Ok(None) };
        let (descending, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let unknown = || {
            ApiError::bad_request(
                "orderBy: expected id, name, type, productNumber, labels.KEY or reported.EVENT_TYPE.FIELD, with - \
                 before it for descending order",
            )
        };
        Field::read(name).map(|field| Some(Self { field, descending })).ok_or_else(unknown)
    }

    /// Sorts devices, each with its key `project/device`. Devices with equal values are sorted by key.
    pub fn sort(&self, devices: &mut Vec<(String, &str, &Device)>) {
        let mut keyed: Vec<_> =
            devices.drain(..).map(|entry| (self.field.of(&entry.0, entry.2), entry)).collect();
        keyed.sort_by(|(a, (a_key, ..)), (b, (b_key, ..))| self.compare(a, b).then_with(|| a_key.cmp(b_key)));
        devices.extend(keyed.into_iter().map(|(_, entry)| entry));
    }

    fn compare(&self, a: &Option<FieldValue>, b: &Option<FieldValue>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => {
                // JSON has no NaN, so there always is an order.
                let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
                if self.descending { order.reverse() } else { order }
            }
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

impl Field {
    fn read(name: &str) -> Option<Self> {
        match name {
            "id" => return Some(Self::Id),
            "name" => return Some(Self::Name),
            "type" => return Some(Self::Type),
            "productNumber" => return Some(Self::ProductNumber),
            _ => {}
        }
        if let Some(key) = name.strip_prefix("labels.") {
            return (!key.is_empty()).then(|| Self::Label(key.to_owned()));
        }
        let (event_type, member) = name.strip_prefix("reported.")?.split_once('.')?;
        let fits = EventType::from(event_type).is_known() && !member.is_empty() && !member.contains('.');
        fits.then(|| Self::Reported { event_type: event_type.to_owned(), member: member.to_owned() })
    }

    /// Returns the field's value, or `None` if the device does not have it.
    fn of(&self, key: &str, device: &Device) -> Option<FieldValue> {
        let text = |text: &str| Some(FieldValue::Text(text.to_owned()));
        match self {
            Self::Id => text(&device.id),
            Self::Name => text(key),
            Self::Type => text(&device.device_type),
            // Emulated devices have no product number.
            Self::ProductNumber => text(""),
            Self::Label(key) => text(device.labels.get(key)?),
            Self::Reported { event_type, member } => {
                let payload = device.latest.get(event_type)?.payload()?;
                match payload.get(member)? {
                    Value::Number(number) => number.as_f64().map(FieldValue::Number),
                    Value::String(value) if member == "updateTime" => {
                        let instant = Timestamp::new(value.as_str()).instant()?;
                        Some(FieldValue::Time(instant.as_microsecond()))
                    }
                    Value::String(value) => text(value),
                    Value::Bool(value) => text(if *value { "true" } else { "false" }),
                    Value::Null | Value::Array(_) | Value::Object(_) => None,
                }
            }
        }
    }
}

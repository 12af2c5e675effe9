//! The event types: one file and one line of the table below for each.
//!
//! A new event type needs a file beside this one, with its payload by [`object!`] and its [`KnownType`], and a line in the table,
//! in the order of DT's page "Events". Parsing, samples, simulated devices and the emulator's API derive from them.

#[cfg(test)]
mod tests;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::event_type::{KnownType, Sent, event_types};
use super::members::{Fields, Object, Unfit};
use super::reading::Readings;
use super::simulation::Moment;
use super::timestamp::Timestamp;

event_types! {
    touch::Touch: "`touch`: a sensor was touched.",
    temperature::Temperature: "`temperature`: a temperature was measured.",
    object_present::ObjectPresent: "`objectPresent`: an object appeared at a proximity sensor, or went away.",
    humidity::Humidity: "`humidity`: relative humidity and temperature were measured.",
    object_present_count::ObjectPresentCount: "`objectPresentCount`: how often objects appeared and went away.",
    touch_count::TouchCount: "`touchCount`: how often a sensor was touched.",
    water_present::WaterPresent: "`waterPresent`: water came to a water detector, or went away.",
    co2::Co2: "`co2`: a CO₂ concentration was measured.",
    pressure::Pressure: "`pressure`: an air pressure was measured.",
    motion::Motion: "`motion`: motion began or ended.",
    desk_occupancy::DeskOccupancy: "`deskOccupancy`: a desk was taken or left.",
    contact::Contact: "`contact`: a door or window was opened or closed.",
    probe_wire_status::ProbeWireStatus: "`probeWireStatus`: the wires of a temperature probe were plugged or unplugged.",
    battery_status::BatteryStatus: "`batteryStatus`: the charge of a sensor's battery.",
    network_status::NetworkStatus: "`networkStatus`: how well Cloud Connectors hear a sensor.",
    labels_changed::LabelsChanged: "`labelsChanged`: labels of a device were set, changed or removed.",
    connection_status::ConnectionStatus: "`connectionStatus`: how a device is connected has changed.",
    ethernet_status::EthernetStatus: "`ethernetStatus`: the Ethernet of a Cloud Connector has changed.",
    cellular_status::CellularStatus: "`cellularStatus`: the cellular signal of a Cloud Connector has changed.",
}

impl Payload {
    /// Reads `data`. Returns the payload, and the members of `data` beside the one named after the event type.
    pub(crate) fn of(event_type: &EventType, data: Value) -> (Self, Map<String, Value>) {
        if data.is_null() {
            return (Self::Empty, Map::new());
        }
        if !event_type.is_known() {
            return (Self::Unknown(data), Map::new());
        }
        read(event_type, &data)
            .map_err(|error| error.to_string())
            .unwrap_or_else(|reason| (Self::Unreadable { value: data, reason }, Map::new()))
    }

    /// Writes `data` as DT does: compact JSON, members in DT's order.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_verify::event::Payload;
    ///
    /// assert_eq!(Payload::Empty.to_json(), "null");
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        // All keys are texts, and nothing else can fail in memory.
        serde_json::to_string(self).unwrap_or_else(|_| "null".to_owned())
    }
}

/// Why `data` is not as documented. The texts name members, and contain no values.
#[derive(Debug, thiserror::Error)]
enum DataError<'a> {
    #[error("`data` is not an object")]
    NotAnObject,
    #[error("`data.{name}` is not an object")]
    PayloadNotAnObject { name: &'a str },
    #[error("`data` has no `{name}`")]
    PayloadMissing { name: &'a str },
    #[error("`{name}` has no `{member}`")]
    MemberMissing { name: &'a str, member: &'static str },
    #[error("`{member}` of `{name}` is not {wanted}")]
    MemberType { name: &'a str, member: &'static str, wanted: &'static str },
    #[error("`{name}` is not known")]
    UnknownType { name: &'a str },
}

/// Reads `data`. Returns the payload, and the members of `data` beside it.
fn read<'a>(event_type: &'a EventType, data: &Value) -> Result<(Payload, Map<String, Value>), DataError<'a>> {
    let members = data.as_object().ok_or(DataError::NotAnObject)?;
    let name = event_type.as_str();
    let (payload, beside) = match members.get(name) {
        Some(Value::Object(payload)) => {
            let beside = members.iter().filter(|(key, _)| *key != name);
            (payload, beside.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        // Also accepts `data` with a key if DT sends it without one.
        _ if !event_type.is_keyed() => (members, Map::new()),
        Some(_) => return Err(DataError::PayloadNotAnObject { name }),
        None => return Err(DataError::PayloadMissing { name }),
    };
    match event_type.read(Fields::of(payload)) {
        Some(Ok(payload)) => Ok((payload, beside)),
        Some(Err(Unfit { name: member, is_absent: true, .. })) => {
            Err(DataError::MemberMissing { name, member })
        }
        Some(Err(Unfit { name: member, wanted, .. })) => Err(DataError::MemberType { name, member, wanted }),
        None => Err(DataError::UnknownType { name }),
    }
}

/// Writes the object `data` around a payload.
fn data_of<T: KnownType, S: Serializer>(payload: &T, serializer: S) -> Result<S::Ok, S::Error> {
    if !T::IS_KEYED {
        return payload.serialize(serializer);
    }
    let mut data = serializer.serialize_map(Some(1))?;
    data.serialize_entry(T::NAME, payload)?;
    data.end()
}

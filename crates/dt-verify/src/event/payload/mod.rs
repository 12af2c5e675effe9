//! The typed payloads: what `event.data` holds, one struct an event type, from DT's page "Events".
//!
//! Rules for all of them:
//! - What was measured is an `f64`, as DT writes `27` and `24.9` alike; what was counted is an `i64`.
//! - A member that DT's clients have ever had to do without is optional: an `Option`, an empty list, an empty text.
//! - `update_time` is the member `updateTime`, the event's own time in recent deliveries.
//! - `extra` holds the members that are not known here, and optional ones that are not of the documented type.
//! - Only a required member that is missing or of another type makes a payload [`Payload::Unreadable`].
//!
//! | file | payloads |
//! |---|---|
//! | `climate.rs` | what a sensor measured: temperature, humidity, CO₂, pressure |
//! | `presence.rs` | what happened at a sensor: touch, objects, water, motion, desks, doors |
//! | `sensor.rs` | the state of the sensor itself: battery, radio, probe wires |
//! | `connection.rs` | how devices are connected: connection, Ethernet, cellular |
//! | `labels.rs` | changed labels, the one payload that is not keyed by its event type |

mod climate;
mod connection;
mod fields;
mod labels;
mod presence;
mod sensor;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use climate::{Co2, Humidity, HumiditySample, Pressure, Temperature, TemperatureSample};
pub use connection::{CellularStatus, Connection, ConnectionStatus, EthernetStatus};
pub use labels::LabelsChanged;
pub use presence::{
    Contact, ContactState, DeskOccupancy, DeskOccupancyState, DeskRemark, Motion, MotionState, ObjectPresent,
    ObjectPresentCount, PresenceState, Touch, TouchCount, WaterPresent,
};
pub use sensor::{
    BatteryStatus, CloudConnector, NetworkStatus, ProbeWireState, ProbeWireStatus, TransmissionMode,
};

use self::fields::{Fields, Unfit};
use super::event_type::EventType;
use super::timestamp::Timestamp;

type Reader = fn(Fields<'_>) -> Result<Payload, Unfit>;

/// Makes [`Payload`] from the names that its variants, their structs and the variants of [`EventType`] share.
macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What happened, by event type: `event.data`.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Payload {
            $($(#[$doc])* $name($name),)+
            /// `data` of an event type that is not known here.
            Unknown(Value),
            /// There is no `data`, or it is `null`.
            Empty,
            /// `data` of a known event type that is not as documented.
            Unreadable {
                /// All of `data`.
                value: Value,
                /// What is not as documented; names members, and shows nothing of their values.
                reason: String,
            },
        }

        impl Payload {
            /// `updateTime`, where the payload has one.
            #[must_use]
            pub const fn update_time(&self) -> Option<&Timestamp> {
                match self {
                    $(Self::$name(payload) => payload.update_time.as_ref(),)+
                    Self::Unknown(_) | Self::Empty | Self::Unreadable { .. } => None,
                }
            }

            /// What reads the payload of a known event type.
            fn reader(event_type: &EventType) -> Option<Reader> {
                match event_type {
                    $(EventType::$name => Some(|fields| $name::read(fields).map(Self::$name)),)+
                    EventType::Other(_) => None,
                }
            }
        }
    };
}

payloads! {
    /// `touch`
    Touch,
    /// `temperature`
    Temperature,
    /// `objectPresent`
    ObjectPresent,
    /// `humidity`
    Humidity,
    /// `objectPresentCount`
    ObjectPresentCount,
    /// `touchCount`
    TouchCount,
    /// `waterPresent`
    WaterPresent,
    /// `co2`
    Co2,
    /// `pressure`
    Pressure,
    /// `motion`
    Motion,
    /// `deskOccupancy`
    DeskOccupancy,
    /// `contact`
    Contact,
    /// `probeWireStatus`
    ProbeWireStatus,
    /// `batteryStatus`
    BatteryStatus,
    /// `networkStatus`
    NetworkStatus,
    /// `labelsChanged`
    LabelsChanged,
    /// `connectionStatus`
    ConnectionStatus,
    /// `ethernetStatus`
    EthernetStatus,
    /// `cellularStatus`
    CellularStatus,
}

impl Payload {
    /// Reads `data`, and gives what stands in it beside the member named after the event type.
    pub fn of(event_type: &EventType, data: Value) -> (Self, Map<String, Value>) {
        if data.is_null() {
            return (Self::Empty, Map::new());
        }
        let Some(reader) = Self::reader(event_type) else { return (Self::Unknown(data), Map::new()) };
        read(event_type, reader, &data).unwrap_or_else(|unfit| {
            (Self::Unreadable { value: data, reason: unfit.reason(event_type) }, Map::new())
        })
    }
}

fn read(
    event_type: &EventType,
    reader: Reader,
    data: &Value,
) -> Result<(Payload, Map<String, Value>), Unfit> {
    let members = data.as_object().ok_or(Unfit::Data)?;
    let name = event_type.as_str();
    match members.get(name) {
        Some(Value::Object(payload)) => {
            let beside = members.iter().filter(|(key, _)| *key != name);
            let beside = beside.map(|(key, value)| (key.clone(), value.clone())).collect();
            Ok((reader(Fields::of(payload))?, beside))
        }
        // DT does not key this one. Accepting it keyed, too, costs nothing.
        _ if *event_type == EventType::LabelsChanged => Ok((reader(Fields::of(members))?, Map::new())),
        Some(_) => Err(Unfit::Payload { absent: false }),
        None => Err(Unfit::Payload { absent: true }),
    }
}

//! The trait of event types, and the macro that makes enums and tables from their list (`types/mod.rs`).

use serde_json::{Map, Value};

use super::members::Object;
use super::reading::Readings;
use super::simulation::Moment;

/// The properties of an event type, except for the members of its payload ([`Object`]).
pub trait KnownType: Object {
    /// The name of the event type: the value of `event.eventType`, and the key below `event.data`.
    const NAME: &'static str;
    /// Whether `data` is `{"<name>": {…}}`. If `false`, `data` contains the members of the payload directly.
    const IS_KEYED: bool = true;
    /// Which devices send this event type, and when.
    const SENT: Sent;

    /// Makes a random payload, from the whole range of values that DT may send.
    fn sample(moment: &mut Moment<'_>) -> Self;

    /// Returns the payload that a device sends after `last`, or its first payload.
    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self;

    /// Adds the quantities that the payload contains to `readings`; none for payloads without any.
    fn report<'a>(&'a self, readings: &mut Readings<'a>);

    /// Adds the members that clients require when they read an event, but omit when they publish one by DT's emulator API.
    fn fill_in(_members: &mut Map<String, Value>, _update_time: &str) {}
}

/// Which devices send an event type, and when (DT's pages "Devices" and "Events").
pub(in crate::event) struct Sent {
    /// The device types that send this event type. A device type is known to the simulation if an event type lists it here.
    pub by: &'static [&'static str],
    /// The devices that send this event type in addition to those in `by`.
    pub others: Others,
    /// The occasion on which devices send this event type.
    pub when: When,
}

/// The devices that send an event type in addition to the device types listed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum Others {
    /// No other device.
    No,
    /// All sensors, but not Cloud Connectors.
    Sensors,
    /// All other devices, including Cloud Connectors.
    All,
    /// Only devices for which a client publishes the event by the emulator's API.
    Published,
}

/// The occasion on which devices send an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum When {
    /// At each heartbeat.
    Heartbeat,
    /// When the state of the device changes.
    StateChange,
    /// Once a day.
    Daily,
    /// When a person touches the device.
    Touch,
    /// When an operator changes something, such as a label. Simulated devices send no event of this kind.
    ByHand,
}

/// Makes [`EventType`](super::EventType), [`Payload`](super::Payload) and their tables from the list of event types. Each line
/// has the module, the payload and the description of an event type.
macro_rules! event_types {
    ($($module:ident::$name:ident: $doc:literal,)+) => {
        $(mod $module;)+

        /// The payload of each event type: what `event.data` holds, from DT's page "Events".
        ///
        /// Rules for all payloads:
        /// - A measured value is an `f64`, since DT writes both `27` and `24.9`; a count is an `i64`.
        /// - A member that some events lack is optional: an `Option`, an empty list or an empty text.
        /// - `update_time` is the member `updateTime`, the time of the event in recent deliveries.
        /// - `extra` contains unknown members, and optional ones of another type than documented.
        /// - Only a required member that is missing or of another type makes a payload
        ///   [`Payload::Unreadable`](super::Payload::Unreadable).
        /// - The members are in the order in which DT writes them; `Serialize` writes them in that order.
        pub mod payload {
            $(pub use super::$module::*;)+
        }

        $crate::event::open_enum::open_enum! {
            /// The type of an event: `event.eventType`.
            ///
            /// The known ones are those of DT's page "Events". An unknown one is no error.
            ///
            /// # Examples
            ///
            /// ```
            /// use dt_verify::event::EventType;
            ///
            /// assert_eq!(EventType::from("touch"), EventType::Touch);
            /// assert_eq!(EventType::from("smell").as_str(), "smell");
            /// assert!(EventType::KNOWN.contains(&EventType::Touch));
            /// ```
            EventType {
                $(#[doc = $doc] $name = <payload::$name as KnownType>::NAME,)+
            }
        }

        /// The payload of an event, by event type: `event.data`.
        ///
        /// `Serialize` writes `data` as DT does: members in DT's order.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Payload {
            $(#[doc = $doc] $name(payload::$name),)+
            /// The `data` of an unknown event type.
            Unknown(Value),
            /// `data` is absent or `null`.
            Empty,
            /// The `data` of a known event type that is not as documented.
            Unreadable {
                /// The whole of `data`, as received.
                value: Value,
                /// The difference from the documentation. It names members and shows no values.
                reason: String,
            },
        }

        impl Payload {
            /// Returns `updateTime`, if the payload has one.
            #[must_use]
            pub const fn update_time(&self) -> Option<&Timestamp> {
                match self {
                    $(Self::$name(payload) => payload.update_time.as_ref(),)+
                    Self::Unknown(_) | Self::Empty | Self::Unreadable { .. } => None,
                }
            }

            /// Adds the quantities that the payload contains to the readings.
            pub(in crate::event) fn report<'a>(&'a self, readings: &mut Readings<'a>) {
                match self {
                    $(Self::$name(payload) => payload.report(readings),)+
                    Self::Unknown(_) | Self::Empty | Self::Unreadable { .. } => {}
                }
            }

            /// Returns the name of a member whose value DT would not send, and the values that it would. `None` if there is no
            /// such member, or the event type is unknown.
            pub(in crate::event) fn undocumented(&self) -> Option<(&'static str, String)> {
                match self {
                    $(Self::$name(payload) => payload.undocumented(),)+
                    Self::Unknown(_) | Self::Empty | Self::Unreadable { .. } => None,
                }
            }
        }

        impl Serialize for Payload {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$name(payload) => data_of(payload, serializer),)+
                    Self::Unknown(value) | Self::Unreadable { value, .. } => value.serialize(serializer),
                    Self::Empty => serializer.serialize_unit(),
                }
            }
        }

        impl EventType {
            /// Reads the members of a payload; `None` for an unknown type.
            pub(in crate::event) fn read(&self, fields: Fields<'_>) -> Option<Result<Payload, Unfit>> {
                match self {
                    $(Self::$name => Some(payload::$name::read(fields).map(Payload::$name)),)+
                    Self::Other(_) => None,
                }
            }

            /// Returns whether `data` has the payload below a key named after the event type.
            const fn is_keyed(&self) -> bool {
                match self {
                    $(Self::$name => payload::$name::IS_KEYED,)+
                    Self::Other(_) => true,
                }
            }

            /// Returns which devices send this event type, and when; `None` for an unknown type.
            pub(in crate::event) const fn sent(&self) -> Option<&'static Sent> {
                match self {
                    $(Self::$name => Some(&payload::$name::SENT),)+
                    Self::Other(_) => None,
                }
            }

            /// Makes a random payload; `None` for an unknown type.
            pub(in crate::event) fn sample(&self, moment: &mut Moment<'_>) -> Option<Payload> {
                match self {
                    $(Self::$name => Some(Payload::$name(payload::$name::sample(moment))),)+
                    Self::Other(_) => None,
                }
            }

            /// Returns the payload that a device sends after `last`; `None` for an unknown type.
            pub(in crate::event) fn next(
                &self,
                last: Option<&Payload>,
                moment: &mut Moment<'_>,
            ) -> Option<Payload> {
                match self {
                    $(Self::$name => {
                        let last = match last {
                            Some(Payload::$name(last)) => Some(last),
                            _ => None,
                        };
                        Some(Payload::$name(payload::$name::next(last, moment)))
                    })+
                    Self::Other(_) => None,
                }
            }

            /// Adds the members that clients omit when they publish an event of this type, but require when they read it.
            pub(in crate::event) fn fill_in(&self, members: &mut Map<String, Value>, update_time: &str) {
                match self {
                    $(Self::$name => payload::$name::fill_in(members, update_time),)+
                    Self::Other(_) => {}
                }
            }
        }
    };
}
pub(in crate::event) use event_types;

//! What an event type is made of, and what the table of them (`types/mod.rs`) turns into.

use serde_json::{Map, Value};

use super::members::Object;
use super::simulation::Moment;

/// Everything that is particular to one event type, beside the members of its payload ([`Object`]).
pub(in crate::event) trait KnownType: Object {
    /// Its name: `event.eventType`, and the key below `event.data`.
    const NAME: &'static str;
    /// Whether `data` is `{"<name>": {…}}`. If not, the members are in `data` itself.
    const IS_KEYED: bool = true;
    /// Which devices send it, and when.
    const SENT: Sent;

    /// Makes up a payload, from the whole range of what DT may send.
    fn sample(moment: &mut Moment<'_>) -> Self;

    /// Returns what a device sends next after `last`; without it, the first payload of the device's life.
    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self;

    /// Adds the members that clients leave out when they publish by DT's emulator API, and need when they read.
    fn fill_in(_members: &mut Map<String, Value>, _update_time: &str) {}
}

/// Which devices send an event type, and when (DT's pages "Devices" and "Events").
pub(in crate::event) struct Sent {
    /// Device types of which this is an event type of their own. A new device type is known by being named here.
    pub(in crate::event) by: &'static [&'static str],
    /// Which other devices send it.
    pub(in crate::event) others: Others,
    /// When devices send it.
    pub(in crate::event) when: When,
}

/// The devices that send an event type that is not one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum Others {
    /// None.
    No,
    /// All sensors, but not Cloud Connectors.
    Sensors,
    /// All devices.
    All,
    /// All devices can, but here only those send it for which it is published.
    Published,
}

/// When devices send an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum When {
    /// At each heartbeat.
    Heartbeat,
    /// When the state of the device changes.
    StateChange,
    /// Once a day.
    Daily,
    /// When somebody touches the device.
    Touch,
    /// When somebody changes something by hand. A simulated device never does.
    ByHand,
}

/// Makes [`EventType`](super::EventType), [`Payload`](super::Payload) and all that depends on the event type from a
/// table: a line has the module and the payload of an event type, and what it says.
macro_rules! event_types {
    ($($module:ident::$name:ident: $doc:literal,)+) => {
        $(mod $module;)+

        /// The payload of each event type: what `event.data` holds, from DT's page "Events".
        ///
        /// Rules for all of them:
        /// - What is measured is an `f64`, as DT writes `27` and `24.9` alike; what is counted is an `i64`.
        /// - A member that DT's clients have ever had to do without is optional: an `Option`, an empty list or text.
        /// - `update_time` is the member `updateTime`, the event's own time in recent deliveries.
        /// - `extra` holds the members that are not known here, and optional ones that are not of the documented type.
        /// - Only a required member that is missing or of another type makes a payload
        ///   [`Payload::Unreadable`](super::Payload::Unreadable).
        /// - The members are in the order in which DT writes them; `Serialize` writes them in that order.
        pub mod payload {
            $(pub use super::$module::*;)+
        }

        $crate::event::open_enum::open_enum! {
            /// What kind of event it is: `event.eventType`.
            ///
            /// The known ones are those of DT's page "Events". There will be others, so nothing fails on them.
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

        /// What happened, by event type: `event.data`.
        ///
        /// `Serialize` writes `data` as DT does: members in DT's order.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Payload {
            $(#[doc = $doc] $name(payload::$name),)+
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
            /// Returns `updateTime`, where the payload has one.
            #[must_use]
            pub const fn update_time(&self) -> Option<&Timestamp> {
                match self {
                    $(Self::$name(payload) => payload.update_time.as_ref(),)+
                    Self::Unknown(_) | Self::Empty | Self::Unreadable { .. } => None,
                }
            }

            /// Returns what of it DT would not send, for a known event type.
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
            /// Reads the members of a payload; `None` for a type that is not known here.
            pub(in crate::event) fn read(&self, fields: Fields<'_>) -> Option<Result<Payload, Unfit>> {
                match self {
                    $(Self::$name => Some(payload::$name::read(fields).map(Payload::$name)),)+
                    Self::Other(_) => None,
                }
            }

            /// Returns whether `data` is keyed by the event type.
            const fn is_keyed(&self) -> bool {
                match self {
                    $(Self::$name => payload::$name::IS_KEYED,)+
                    Self::Other(_) => true,
                }
            }

            /// Returns which devices send it, and when; `None` for a type that is not known here.
            pub(in crate::event) const fn sent(&self) -> Option<&'static Sent> {
                match self {
                    $(Self::$name => Some(&payload::$name::SENT),)+
                    Self::Other(_) => None,
                }
            }

            /// Makes up a payload; `None` for a type that is not known here.
            pub(in crate::event) fn sample(&self, moment: &mut Moment<'_>) -> Option<Payload> {
                match self {
                    $(Self::$name => Some(Payload::$name(payload::$name::sample(moment))),)+
                    Self::Other(_) => None,
                }
            }

            /// Returns what a device sends next after `last`; `None` for a type that is not known here.
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

            /// Adds the members that clients leave out when they publish.
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

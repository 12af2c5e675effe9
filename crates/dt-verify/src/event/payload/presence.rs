//! What happened at a sensor: touches, objects, water, motion, desks, doors.

use serde_json::{Map, Value};

use super::fields::{Fields, Unfit};
use crate::event::event_type::open_enum;
use crate::event::timestamp::Timestamp;

open_enum! {
    /// `state` of [`ObjectPresent`] and [`WaterPresent`].
    PresenceState {
        /// It is there.
        Present = "PRESENT",
        /// It is not there.
        NotPresent = "NOT_PRESENT",
    }
}

open_enum! {
    /// `state` of [`Motion`].
    MotionState {
        /// Something moves.
        Detected = "MOTION_DETECTED",
        /// Nothing moves.
        NotDetected = "NO_MOTION_DETECTED",
    }
}

open_enum! {
    /// `state` of [`DeskOccupancy`].
    DeskOccupancyState {
        /// Somebody is at the desk.
        Occupied = "OCCUPIED",
        /// Nobody is at the desk.
        NotOccupied = "NOT_OCCUPIED",
    }
}

open_enum! {
    /// One of the `remarks` of [`DeskOccupancy`].
    DeskRemark {
        /// The state was found out with less data than usual. From the tests of DT's Python client.
        IncompleteData = "INCOMPLETE_DATA",
    }
}

open_enum! {
    /// `state` of [`Contact`].
    ContactState {
        /// The door or window is open.
        Open = "OPEN",
        /// It is closed.
        Closed = "CLOSED",
    }
}

/// Makes the payloads that are a `state` and nothing else, and those that are a `total`.
macro_rules! single_member {
    ($($(#[$doc:meta])* $name:ident { $(#[$member_doc:meta])* $member:ident: $type:ty = $reader:ident($wire:literal) })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq)]
            #[non_exhaustive]
            pub struct $name {
                $(#[$member_doc])*
                pub $member: $type,
                /// When it happened.
                pub update_time: Option<Timestamp>,
                /// Members not known here, or not of the documented type.
                pub extra: Map<String, Value>,
            }

            impl $name {
                pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
                    Ok(Self {
                        $member: fields.$reader($wire)?,
                        update_time: fields.time("updateTime"),
                        extra: fields.rest(),
                    })
                }
            }
        )+
    };
}

single_member! {
    /// `objectPresent`: sent when an object appears at a proximity sensor, or goes away.
    ObjectPresent {
        /// Whether the object is there now.
        state: PresenceState = text("state")
    }
    /// `waterPresent`: sent when water comes to a water detector, or goes away.
    WaterPresent {
        /// Whether there is water now.
        state: PresenceState = text("state")
    }
    /// `motion`: sent when motion begins or ends.
    Motion {
        /// Whether something moves now.
        state: MotionState = text("state")
    }
    /// `contact`: sent when a door or window is opened or closed.
    Contact {
        /// Whether it is open now.
        state: ContactState = text("state")
    }
    /// `objectPresentCount`: sent with each heartbeat.
    ObjectPresentCount {
        /// How often objects appeared or went away, both together, in the sensor's life.
        total: i64 = count("total")
    }
    /// `touchCount`: sent with each heartbeat.
    TouchCount {
        /// How often the sensor was touched in its life.
        total: i64 = count("total")
    }
}

/// `touch`: sent when a sensor is touched.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Touch {
    /// When it was touched.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `deskOccupancy`: sent when a desk is taken or left.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeskOccupancy {
    /// Whether the desk is taken now.
    pub state: DeskOccupancyState,
    /// What to bear in mind about the state.
    pub remarks: Vec<DeskRemark>,
    /// When it changed.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

impl Touch {
    #[expect(clippy::unnecessary_wraps, reason = "all payloads are read alike; this one has nothing to miss")]
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self { update_time: fields.time("updateTime"), extra: fields.rest() })
    }
}

impl DeskOccupancy {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            state: fields.text("state")?,
            remarks: fields.texts("remarks"),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

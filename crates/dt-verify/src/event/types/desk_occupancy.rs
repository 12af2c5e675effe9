//! `deskOccupancy`: members and trigger from DT's page "Events"; the order of the members from an event of a real sensor
//! (of 2025) in the tests of a public integration; the remark from the tests of DT's Python client.

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

text_member! {
    /// The state of a desk, in `state` of [`DeskOccupancy`].
    DeskOccupancyState {
        /// A person is at the desk.
        Occupied = "OCCUPIED",
        /// No person is at the desk.
        NotOccupied = "NOT_OCCUPIED",
    }
}

text_member! {
    /// One of the `remarks` of [`DeskOccupancy`].
    DeskRemark {
        /// The state was determined with less data than usual.
        IncompleteData = "INCOMPLETE_DATA",
    }
}

object! {
    /// `deskOccupancy`: sent when a desk is taken or left.
    DeskOccupancy {
        /// Whether the desk is occupied since this event.
        required "state" state: DeskOccupancyState,
        /// `updateTime`: when the state changed.
        optional "updateTime" update_time: Option<Timestamp>,
        /// Remarks on the reliability of the state.
        optional "remarks" remarks: Vec<DeskRemark>,
    }
}

impl KnownType for DeskOccupancy {
    const NAME: &'static str = "deskOccupancy";
    const SENT: Sent = Sent { by: &["deskOccupancy"], others: Others::No, when: When::StateChange };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let state = moment.rng.pick(DeskOccupancyState::Occupied, &[DeskOccupancyState::NotOccupied]);
        let remarks = moment.rng.pick(Vec::new(), &[Vec::new(), vec![DeskRemark::IncompleteData]]);
        Self { state, update_time: moment.time(), remarks, extra: Map::new() }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let state = moment.by_state(DeskOccupancyState::Occupied, DeskOccupancyState::NotOccupied);
        Self { state, update_time: moment.time(), remarks: Vec::new(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text(Self::NAME, self.state.as_str());
    }

    fn fill_in(members: &mut Map<String, Value>, _update_time: &str) {
        members.entry("remarks").or_insert(json!([]));
    }
}

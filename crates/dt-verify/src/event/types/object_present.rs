//! `objectPresent`: members and trigger from DT's page "Events".

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

text_member! {
    /// Whether an object or water is present, in `state` of [`ObjectPresent`] and
    /// [`WaterPresent`](crate::event::payload::WaterPresent).
    PresenceState {
        /// The object, or the water, is present.
        Present = "PRESENT",
        /// The object, or the water, is absent.
        NotPresent = "NOT_PRESENT",
    }
}

object! {
    /// `objectPresent`: sent when an object appears at a proximity sensor, or goes away.
    ObjectPresent {
        /// Whether the object is present since this event.
        required "state" state: PresenceState,
        /// `updateTime`: when the object appeared or went away.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for ObjectPresent {
    const NAME: &'static str = "objectPresent";
    const SENT: Sent = Sent { by: &["proximity"], others: Others::No, when: When::StateChange };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let state = moment.rng.pick(PresenceState::Present, &[PresenceState::NotPresent]);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let state = moment.by_state(PresenceState::Present, PresenceState::NotPresent);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text(Self::NAME, self.state.as_str());
    }
}

//! `waterPresent`: members and trigger from DT's page "Events".

use serde_json::Map;

use super::object_present::PresenceState;
use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

object! {
    /// `waterPresent`: sent when a water detector detects water, or no longer does.
    WaterPresent {
        /// Whether water is present since this event.
        required "state" state: PresenceState,
        /// `updateTime`: when the state changed.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for WaterPresent {
    const NAME: &'static str = "waterPresent";
    const SENT: Sent = Sent { by: &["waterDetector"], others: Others::No, when: When::StateChange };

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

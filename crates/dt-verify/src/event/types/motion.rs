//! `motion`: members and trigger from DT's page "Events".

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

text_member! {
    /// The state of a motion sensor, in `state` of [`Motion`].
    MotionState {
        /// The sensor detects motion.
        Detected = "MOTION_DETECTED",
        /// The sensor detects no motion.
        NotDetected = "NO_MOTION_DETECTED",
    }
}

object! {
    /// `motion`: sent when motion begins or ends.
    Motion {
        /// Whether the sensor detects motion since this event.
        required "state" state: MotionState,
        /// `updateTime`: when motion began or ended.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for Motion {
    const NAME: &'static str = "motion";
    const SENT: Sent = Sent { by: &["motion"], others: Others::No, when: When::StateChange };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let state = moment.rng.pick(MotionState::Detected, &[MotionState::NotDetected]);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let state = moment.by_state(MotionState::Detected, MotionState::NotDetected);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text(Self::NAME, self.state.as_str());
    }
}

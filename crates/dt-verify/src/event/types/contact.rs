//! `contact`: members and trigger from DT's page "Events".

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

text_member! {
    /// The state of a door or window, in `state` of [`Contact`].
    ContactState {
        /// The door or window is open.
        Open = "OPEN",
        /// The door or window is closed.
        Closed = "CLOSED",
    }
}

object! {
    /// `contact`: sent when a door or window is opened or closed.
    Contact {
        /// Whether the door or window is open or closed since this event.
        required "state" state: ContactState,
        /// `updateTime`: when the door or window was opened or closed.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for Contact {
    const NAME: &'static str = "contact";
    const SENT: Sent = Sent { by: &["contact"], others: Others::No, when: When::StateChange };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let state = moment.rng.pick(ContactState::Open, &[ContactState::Closed]);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let state = moment.by_state(ContactState::Open, ContactState::Closed);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text(Self::NAME, self.state.as_str());
    }
}

//! `touch`: sent when a sensor is touched. All devices send it; a touch sensor sends nothing else of its own.

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

object! {
    /// `touch`: sent when a sensor is touched.
    Touch {
        /// `updateTime`: when the sensor was touched.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for Touch {
    const NAME: &'static str = "touch";
    const SENT: Sent = Sent { by: &["touch"], others: Others::All, when: When::Touch };

    fn sample(moment: &mut Moment<'_>) -> Self {
        Self::next(None, moment)
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        Self { update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.number(Self::NAME, None, 1.0);
    }
}

//! `touchCount`: members and trigger from DT's page "Events".

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

object! {
    /// `touchCount`: sent with each heartbeat.
    TouchCount {
        /// The number of times that the sensor was touched since it was made.
        required "total" total: i64,
        /// `updateTime`: when the sensor sent the count.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for TouchCount {
    const NAME: &'static str = "touchCount";
    const SENT: Sent = Sent { by: &["touchCounter"], others: Others::No, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let total = moment.rng.from(0, 100_000);
        Self { total, update_time: moment.time(), extra: Map::new() }
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let total = match last {
            Some(last) => last.total.saturating_add(moment.rng.from(0, 3)),
            None => moment.rng.from(0, 10_000),
        };
        Self { total, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.count(Self::NAME, self.total);
    }
}

//! `pressure`: members and trigger from DT's page "Events". That CO₂ sensors send it is from the page "Devices".

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::{Drift, Moment};
use crate::event::timestamp::Timestamp;

object! {
    /// `pressure`: sent with each heartbeat.
    Pressure {
        /// Air pressure in pascal.
        required "pascal" pascal: f64,
        /// `updateTime`: when the pressure was measured.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

const PASCAL: Drift =
    Drift { first: (99_000.0, 103_000.0), step: 20.0, limits: (95_000.0, 105_000.0), resolution: 1.0 };

impl KnownType for Pressure {
    const NAME: &'static str = "pressure";
    const SENT: Sent = Sent { by: &["co2"], others: Others::No, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let pascal = 97_000.0 + f64::from(moment.rng.below(6_000));
        Self { pascal, update_time: moment.time(), extra: Map::new() }
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let pascal = moment.drift(last.map(|last| last.pascal), &PASCAL);
        Self { pascal, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.number(Self::NAME, unit::PASCAL, self.pascal);
    }
}

//! `co2`: members and trigger from DT's page "Events".

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::{Drift, Moment};
use crate::event::timestamp::Timestamp;

object! {
    /// `co2`: sent with each heartbeat.
    Co2 {
        /// CO₂ concentration in parts per million.
        required "ppm" ppm: f64,
        /// `updateTime`: when the concentration was measured.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

const PPM: Drift = Drift { first: (420.0, 820.0), step: 15.0, limits: (400.0, 2_500.0), resolution: 1.0 };

impl KnownType for Co2 {
    const NAME: &'static str = "co2";
    const SENT: Sent = Sent { by: &["co2"], others: Others::No, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let ppm = 400.0 + f64::from(moment.rng.below(1_600));
        Self { ppm, update_time: moment.time(), extra: Map::new() }
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let ppm = moment.drift(last.map(|last| last.ppm), &PPM);
        Self { ppm, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.number(Self::NAME, unit::PARTS_PER_MILLION, self.ppm);
    }
}

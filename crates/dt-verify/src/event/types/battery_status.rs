//! `batteryStatus`: members from DT's page "Events", which does not say how often it is sent. Simulated devices send it daily.

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

object! {
    /// `batteryStatus`: how often it is sent is not documented.
    BatteryStatus {
        /// The remaining charge in percent, in coarse steps.
        required "percentage" percentage: f64,
        /// `updateTime`: when the charge was measured.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for BatteryStatus {
    const NAME: &'static str = "batteryStatus";
    const SENT: Sent = Sent { by: &[], others: Others::Sensors, when: When::Daily };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let percentage = moment.rng.pick(100.0, &[90.0, 60.0, 10.0]);
        Self { percentage, update_time: moment.time(), extra: Map::new() }
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let percentage =
            last.map_or_else(|| moment.rng.pick(100.0, &[90.0, 80.0, 70.0]), |last| last.percentage);
        Self { percentage, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.number(Self::NAME, unit::PERCENT, self.percentage);
    }
}

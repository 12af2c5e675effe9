//! `temperature`: members and triggers from DT's pages "Events" and "Devices", the order of the members from the request
//! that the tests of DT's Python package `dtintegrations` have (of 2024).

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::{Drift, Moment};
use crate::event::timestamp::Timestamp;

object! {
    /// `temperature`: sent with each heartbeat, by first-generation sensors also on touch.
    Temperature {
        /// Temperature in °C.
        required "value" value: f64,
        /// `updateTime`: when the temperature was measured.
        optional "updateTime" update_time: Option<Timestamp>,
        /// The measurements since the last heartbeat. Events from before 2021 have none.
        optional "samples" samples: Vec<TemperatureSample>,
        /// Whether the event was delivered late, after a gap. Events from before 2024 do not have it.
        optional "isBackfilled" is_backfilled: Option<bool>,
    }
}

object! {
    /// One of the `samples` of a [`Temperature`].
    TemperatureSample {
        /// Temperature in °C.
        required "value" value: f64,
        /// `sampleTime`: when the sample was measured, as interpolated by DT.
        optional "sampleTime" sample_time: Option<Timestamp>,
    }
}

const CELSIUS: Drift = Drift { first: (18.0, 24.0), step: 0.1, limits: (-30.0, 45.0), resolution: 100.0 };

impl KnownType for Temperature {
    const NAME: &'static str = "temperature";
    const SENT: Sent = Sent { by: &["temperature"], others: Others::No, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let mut samples = vec![TemperatureSample::sample(moment, moment.time())];
        for time in moment.earlier_times() {
            samples.push(TemperatureSample::sample(moment, Some(time)));
        }
        Self::measured(samples, moment.time())
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let value = moment.drift(last.map(|last| last.value), &CELSIUS);
        let sample = TemperatureSample { value, sample_time: moment.time(), extra: Map::new() };
        Self::measured(vec![sample], moment.time())
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        if self.samples.is_empty() {
            readings.number(Self::NAME, unit::CELSIUS, self.value);
        }
        for sample in &self.samples {
            readings.sample(Self::NAME, unit::CELSIUS, sample.sample_time.as_ref(), sample.value);
        }
    }

    fn fill_in(members: &mut Map<String, Value>, update_time: &str) {
        let value = members.get("value").cloned().unwrap_or_default();
        let samples = json!([{"value": value, "sampleTime": update_time}]);
        members.entry("samples").or_insert(samples);
        members.entry("isBackfilled").or_insert(false.into());
    }
}

impl Temperature {
    /// Makes a payload of its samples, the newest first.
    fn measured(samples: Vec<TemperatureSample>, update_time: Option<Timestamp>) -> Self {
        Self {
            value: samples.first().map_or(0.0, |newest| newest.value),
            update_time,
            samples,
            is_backfilled: Some(false),
            extra: Map::new(),
        }
    }
}

impl TemperatureSample {
    fn sample(moment: &mut Moment<'_>, sample_time: Option<Timestamp>) -> Self {
        Self { value: moment.rng.tenths(-300, 600), sample_time, extra: Map::new() }
    }
}

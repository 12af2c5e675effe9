//! `humidity`: members and triggers from DT's page "Events"; the order of the members from an event of an emulated sensor
//! (of 2025) in the tests of a public integration.

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::{Drift, Moment};
use crate::event::timestamp::Timestamp;

object! {
    /// `humidity`: sent with each heartbeat and on touch.
    Humidity {
        /// Temperature in °C.
        required "temperature" temperature: f64,
        /// Relative humidity in percent.
        required "relativeHumidity" relative_humidity: f64,
        /// The measurements since the last heartbeat. Events from before November 2024 have none.
        optional "samples" samples: Vec<HumiditySample>,
        /// `updateTime`: when temperature and humidity were measured.
        optional "updateTime" update_time: Option<Timestamp>,
        /// Whether the event was delivered late, after a gap. Events from before December 2024 do not have it.
        optional "isBackfilled" is_backfilled: Option<bool>,
    }
}

object! {
    /// One of the `samples` of a [`Humidity`].
    HumiditySample {
        /// Temperature in °C.
        required "temperature" temperature: f64,
        /// Relative humidity in percent.
        required "relativeHumidity" relative_humidity: f64,
        /// `sampleTime`: when the sample was measured, as interpolated by DT.
        optional "sampleTime" sample_time: Option<Timestamp>,
    }
}

const CELSIUS: Drift = Drift { first: (18.0, 24.0), step: 0.1, limits: (-30.0, 45.0), resolution: 100.0 };
const PERCENT: Drift = Drift { first: (30.0, 55.0), step: 0.3, limits: (5.0, 98.0), resolution: 100.0 };

impl KnownType for Humidity {
    const NAME: &'static str = "humidity";
    const SENT: Sent = Sent { by: &["humidity", "co2"], others: Others::No, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let mut samples = vec![HumiditySample::sample(moment, moment.time())];
        for time in moment.earlier_times() {
            samples.push(HumiditySample::sample(moment, Some(time)));
        }
        Self::measured(samples, moment.time())
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let temperature = moment.drift(last.map(|last| last.temperature), &CELSIUS);
        let relative_humidity = moment.drift(last.map(|last| last.relative_humidity), &PERCENT);
        let sample_time = moment.time();
        let sample = HumiditySample { temperature, relative_humidity, sample_time, extra: Map::new() };
        Self::measured(vec![sample], moment.time())
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        if self.samples.is_empty() {
            readings.number("temperature", unit::CELSIUS, self.temperature);
            readings.number("relativeHumidity", unit::PERCENT, self.relative_humidity);
        }
        for sample in &self.samples {
            let time = sample.sample_time.as_ref();
            readings.sample("temperature", unit::CELSIUS, time, sample.temperature);
            readings.sample("relativeHumidity", unit::PERCENT, time, sample.relative_humidity);
        }
    }

    fn fill_in(members: &mut Map<String, Value>, update_time: &str) {
        let member = |name: &str| members.get(name).cloned().unwrap_or_default();
        let (celsius, percent) = (member("temperature"), member("relativeHumidity"));
        let sample = json!({"temperature": celsius, "relativeHumidity": percent, "sampleTime": update_time});
        members.entry("samples").or_insert(json!([sample]));
        members.entry("isBackfilled").or_insert(false.into());
    }
}

impl Humidity {
    /// Makes a payload from its samples, the newest first.
    fn measured(samples: Vec<HumiditySample>, update_time: Option<Timestamp>) -> Self {
        let newest = samples.first();
        Self {
            temperature: newest.map_or(0.0, |newest| newest.temperature),
            relative_humidity: newest.map_or(0.0, |newest| newest.relative_humidity),
            samples,
            update_time,
            is_backfilled: Some(false),
            extra: Map::new(),
        }
    }
}

impl HumiditySample {
    fn sample(moment: &mut Moment<'_>, sample_time: Option<Timestamp>) -> Self {
        let temperature = moment.rng.tenths(-100, 500);
        let relative_humidity = moment.rng.below(101).into();
        Self { temperature, relative_humidity, sample_time, extra: Map::new() }
    }
}

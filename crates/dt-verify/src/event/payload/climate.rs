//! What a sensor measured: temperature, humidity, CO₂ and pressure.

use serde_json::{Map, Value};

use super::fields::{Fields, Unfit};
use crate::event::timestamp::Timestamp;

/// `temperature`: sent with each heartbeat, by first-generation sensors also on touch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Temperature {
    /// Temperature in °C.
    pub value: f64,
    /// What was measured since the last heartbeat. Events of before 2021 have none.
    pub samples: Vec<TemperatureSample>,
    /// Whether the event was delivered late, after a gap. Events of before 2024 do not say.
    pub is_backfilled: Option<bool>,
    /// When it was measured.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// One of the `samples` of a [`Temperature`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TemperatureSample {
    /// Temperature in °C.
    pub value: f64,
    /// When it was measured, which DT interpolates.
    pub sample_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `humidity`: sent with each heartbeat and on touch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Humidity {
    /// Temperature in °C.
    pub temperature: f64,
    /// Relative humidity in percent.
    pub relative_humidity: f64,
    /// What was measured since the last heartbeat. Events of before November 2024 have none.
    pub samples: Vec<HumiditySample>,
    /// Whether the event was delivered late, after a gap. Events of before December 2024 do not say.
    pub is_backfilled: Option<bool>,
    /// When it was measured.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// One of the `samples` of a [`Humidity`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HumiditySample {
    /// Temperature in °C.
    pub temperature: f64,
    /// Relative humidity in percent.
    pub relative_humidity: f64,
    /// When it was measured, which DT interpolates.
    pub sample_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `co2`: sent with each heartbeat.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Co2 {
    /// Concentration in parts per million.
    pub ppm: f64,
    /// When it was measured.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `pressure`: sent with each heartbeat.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// Air pressure in pascal.
    pub pascal: f64,
    /// When it was measured.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

impl Temperature {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            value: fields.number("value")?,
            samples: fields.objects("samples", TemperatureSample::read),
            is_backfilled: fields.optional("isBackfilled", Value::as_bool),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl TemperatureSample {
    fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            value: fields.number("value")?,
            sample_time: fields.time("sampleTime"),
            extra: fields.rest(),
        })
    }
}

impl Humidity {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            temperature: fields.number("temperature")?,
            relative_humidity: fields.number("relativeHumidity")?,
            samples: fields.objects("samples", HumiditySample::read),
            is_backfilled: fields.optional("isBackfilled", Value::as_bool),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl HumiditySample {
    fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            temperature: fields.number("temperature")?,
            relative_humidity: fields.number("relativeHumidity")?,
            sample_time: fields.time("sampleTime"),
            extra: fields.rest(),
        })
    }
}

impl Co2 {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self { ppm: fields.number("ppm")?, update_time: fields.time("updateTime"), extra: fields.rest() })
    }
}

impl Pressure {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            pascal: fields.number("pascal")?,
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

//! The state of a sensor itself: its battery, its radio, the wires of its probe.

use serde_json::{Map, Value};

use super::fields::{Fields, Unfit};
use crate::event::event_type::open_enum;
use crate::event::timestamp::Timestamp;

open_enum! {
    /// `state` of [`ProbeWireStatus`].
    ProbeWireState {
        /// The wires are not in one of the ways that work.
        InvalidWireConfiguration = "INVALID_WIRE_CONFIGURATION",
        /// The probe's coefficients do not work.
        InvalidCoefficientConfiguration = "INVALID_COEFFICIENT_CONFIGURATION",
        /// Two wires are in.
        TwoWire = "TWO_WIRE",
        /// Three wires are in.
        ThreeWire = "THREE_WIRE",
        /// Four wires are in.
        FourWire = "FOUR_WIRE",
    }
}

open_enum! {
    /// `transmissionMode` of [`NetworkStatus`].
    TransmissionMode {
        /// The sensor sends as usual.
        LowPowerStandard = "LOW_POWER_STANDARD_MODE",
        /// The sensor sends with more power, which drains its battery.
        HighPowerBoost = "HIGH_POWER_BOOST_MODE",
    }
}

/// `probeWireStatus`: sent when the wires of a temperature probe are plugged or unplugged.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProbeWireStatus {
    /// How the wires are now.
    pub state: ProbeWireState,
    /// When it changed.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `batteryStatus`: how often it is sent is not documented.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BatteryStatus {
    /// What is left, in percent, in coarse steps.
    pub percentage: f64,
    /// When it was measured.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// `networkStatus`: sent with each heartbeat and beside each other event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// Signal strength in percent, at the Cloud Connector that hears the sensor best.
    pub signal_strength: f64,
    /// Received signal strength at the same; DT names no unit, the values are those of dBm.
    pub rssi: f64,
    /// All Cloud Connectors that hear the sensor.
    pub cloud_connectors: Vec<CloudConnector>,
    /// How the sensor sends.
    pub transmission_mode: Option<TransmissionMode>,
    /// When it was measured.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

/// One of the `cloudConnectors` of a [`NetworkStatus`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CloudConnector {
    /// The Cloud Connector's device id; `emulated-ccon` for emulated sensors.
    pub id: String,
    /// Signal strength in percent.
    pub signal_strength: Option<f64>,
    /// Received signal strength, as in [`NetworkStatus::rssi`].
    pub rssi: Option<f64>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

impl ProbeWireStatus {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            state: fields.text("state")?,
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl BatteryStatus {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            percentage: fields.number("percentage")?,
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl NetworkStatus {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            signal_strength: fields.number("signalStrength")?,
            rssi: fields.number("rssi")?,
            cloud_connectors: fields.objects("cloudConnectors", CloudConnector::read),
            transmission_mode: fields
                .optional("transmissionMode", |value| value.as_str().map(TransmissionMode::from)),
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}

impl CloudConnector {
    fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            id: fields.text("id")?,
            signal_strength: fields.optional("signalStrength", Value::as_f64),
            rssi: fields.optional("rssi", Value::as_f64),
            extra: fields.rest(),
        })
    }
}

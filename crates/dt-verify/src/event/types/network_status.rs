//! `networkStatus`: members and trigger from DT's page "Events"; the order of the members from a stream in the tests of
//! DT's Python client.

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::{Drift, Moment};
use crate::event::timestamp::Timestamp;
use crate::xid;

text_member! {
    /// How a sensor transmits, in `transmissionMode` of [`NetworkStatus`].
    TransmissionMode {
        /// The sensor transmits with normal power.
        LowPowerStandard = "LOW_POWER_STANDARD_MODE",
        /// The sensor transmits with more power, which drains its battery faster.
        HighPowerBoost = "HIGH_POWER_BOOST_MODE",
    }
}

object! {
    /// `networkStatus`: sent with each heartbeat and beside each other event.
    NetworkStatus {
        /// The signal strength in percent, at the Cloud Connector with the best reception.
        required "signalStrength" signal_strength: f64,
        /// Received signal strength at the same Cloud Connector. DT names no unit; the values look like dBm.
        required "rssi" rssi: f64,
        /// `updateTime`: when the signal was measured.
        optional "updateTime" update_time: Option<Timestamp>,
        /// All Cloud Connectors that receive the sensor's signal.
        optional "cloudConnectors" cloud_connectors: Vec<CloudConnector>,
        /// How the sensor transmits; `None` if the event does not say it.
        optional "transmissionMode" transmission_mode: Option<TransmissionMode>,
    }
}

object! {
    /// One of the `cloudConnectors` of a [`NetworkStatus`].
    CloudConnector {
        /// The Cloud Connector's device id; `emulated-ccon` for emulated sensors.
        required "id" id: String,
        /// Signal strength in percent.
        optional "signalStrength" signal_strength: Option<f64>,
        /// Received signal strength, as in [`NetworkStatus::rssi`].
        optional "rssi" rssi: Option<f64>,
    }
}

const SIGNAL: Drift = Drift { first: (40.0, 100.0), step: 2.0, limits: (5.0, 100.0), resolution: 1.0 };

/// The Cloud Connector of DT's emulated sensors.
const EMULATED: &str = "emulated-ccon";

impl KnownType for NetworkStatus {
    const NAME: &'static str = "networkStatus";
    const SENT: Sent = Sent { by: &[], others: Others::Sensors, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let signal = f64::from(moment.rng.below(100)) + 1.0;
        let rssi = -40.0 - f64::from(moment.rng.below(70));
        let id = xid(1_500_000_000, moment.rng.next_u64().to_be_bytes());
        let others = [TransmissionMode::HighPowerBoost];
        let mode = moment.rng.pick(TransmissionMode::LowPowerStandard, &others);
        Self::heard_by(id, (signal, rssi), mode, moment)
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let signal = moment.drift(last.map(|last| last.signal_strength), &SIGNAL);
        // From about -110 dBm at 0 % to -50 dBm at 100 %.
        let rssi = (signal * 0.6).floor() - 110.0;
        Self::heard_by(EMULATED.to_owned(), (signal, rssi), TransmissionMode::LowPowerStandard, moment)
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.number("signalStrength", unit::PERCENT, self.signal_strength);
        readings.number("rssi", unit::DBM, self.rssi);
        if let Some(mode) = &self.transmission_mode {
            readings.text("transmissionMode", mode.as_str());
        }
    }

    /// Adds `cloudConnectors` with `rssi`, which DT's Python client 1.7.3 reads, but does not publish.
    fn fill_in(members: &mut Map<String, Value>, _update_time: &str) {
        let rssi = members.entry("rssi").or_insert(0.into()).clone();
        members.entry("transmissionMode").or_insert(TransmissionMode::LowPowerStandard.as_str().into());
        let published = members.remove("cloud_connectors");
        let mut list = members.remove("cloudConnectors").or(published).unwrap_or_else(|| json!([]));
        for heard_by in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            heard_by.entry("rssi").or_insert_with(|| rssi.clone());
        }
        if list.as_array().is_some_and(Vec::is_empty) {
            let signal = members.get("signalStrength").cloned().unwrap_or_default();
            list = json!([{"id": EMULATED, "signalStrength": signal, "rssi": rssi}]);
        }
        members.insert("cloudConnectors".to_owned(), list);
    }
}

impl NetworkStatus {
    fn heard_by(
        id: String,
        (signal_strength, rssi): (f64, f64),
        mode: TransmissionMode,
        moment: &Moment<'_>,
    ) -> Self {
        let (signal, strength) = (Some(signal_strength), Some(rssi));
        let heard_by = CloudConnector { id, signal_strength: signal, rssi: strength, extra: Map::new() };
        Self {
            signal_strength,
            rssi,
            update_time: moment.time(),
            cloud_connectors: vec![heard_by],
            transmission_mode: Some(mode),
            extra: Map::new(),
        }
    }
}

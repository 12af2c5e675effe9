//! `cellularStatus`: members and trigger from DT's page "Events", values from the tests of its Python client.

use serde_json::{Map, Value, json};

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::{Readings, unit};
use crate::event::simulation::{Drift, Moment};
use crate::event::timestamp::Timestamp;

object! {
    /// `cellularStatus`: sent when the cellular signal of a Cloud Connector changes.
    CellularStatus {
        /// Signal strength in percent.
        required "signalStrength" signal_strength: f64,
        /// Errors, as in [`EthernetStatus::errors`](crate::event::payload::EthernetStatus::errors).
        optional "errors" errors: Vec<Value>,
        /// `updateTime`: when the cellular signal changed.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

const SIGNAL: Drift = Drift { first: (40.0, 100.0), step: 2.0, limits: (5.0, 100.0), resolution: 1.0 };

impl KnownType for CellularStatus {
    const NAME: &'static str = "cellularStatus";
    const SENT: Sent = Sent { by: &["ccon"], others: Others::No, when: When::Heartbeat };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let signal_strength = f64::from(moment.rng.below(100)) + 1.0;
        Self { signal_strength, errors: Vec::new(), update_time: moment.time(), extra: Map::new() }
    }

    fn next(last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        let signal_strength = moment.drift(last.map(|last| last.signal_strength), &SIGNAL);
        Self { signal_strength, errors: Vec::new(), update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.number("signalStrength", unit::PERCENT, self.signal_strength);
    }

    fn fill_in(members: &mut Map<String, Value>, _update_time: &str) {
        members.entry("errors").or_insert(json!([]));
    }
}

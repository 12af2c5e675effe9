//! `probeWireStatus`: members and trigger from DT's page "Events". Only the Temperature Probe Sensor sends it, which has no
//! device type of its own (DT's page "Devices").

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::open_enum::text_member;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

text_member! {
    /// The state of a probe's wires, in `state` of [`ProbeWireStatus`].
    ProbeWireState {
        /// The wires are connected in a way that does not work.
        InvalidWireConfiguration = "INVALID_WIRE_CONFIGURATION",
        /// The probe's coefficients are invalid.
        InvalidCoefficientConfiguration = "INVALID_COEFFICIENT_CONFIGURATION",
        /// Two wires are connected.
        TwoWire = "TWO_WIRE",
        /// Three wires are connected.
        ThreeWire = "THREE_WIRE",
        /// Four wires are connected.
        FourWire = "FOUR_WIRE",
    }
}

object! {
    /// `probeWireStatus`: sent when the wires of a temperature probe are plugged or unplugged.
    ProbeWireStatus {
        /// The state of the wires.
        required "state" state: ProbeWireState,
        /// `updateTime`: when the state of the wires changed.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for ProbeWireStatus {
    const NAME: &'static str = "probeWireStatus";
    const SENT: Sent = Sent { by: &["temperature"], others: Others::No, when: When::ByHand };

    fn sample(moment: &mut Moment<'_>) -> Self {
        use ProbeWireState::{
            FourWire, InvalidCoefficientConfiguration, InvalidWireConfiguration, ThreeWire, TwoWire,
        };
        let others = [TwoWire, FourWire, InvalidWireConfiguration, InvalidCoefficientConfiguration];
        let state = moment.rng.pick(ThreeWire, &others);
        Self { state, update_time: moment.time(), extra: Map::new() }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        Self { state: ProbeWireState::ThreeWire, update_time: moment.time(), extra: Map::new() }
    }

    fn report<'a>(&'a self, readings: &mut Readings<'a>) {
        readings.text(Self::NAME, self.state.as_str());
    }
}

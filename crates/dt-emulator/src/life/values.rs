//! What a device measures: values that drift around what is usual in a building.

use serde_json::{Value, json};

use crate::state::Now;
use dt_verify::event::{Dice, EventType, rfc3339_micros};

/// How often the battery is reported, in milliseconds.
const BATTERY_EVERY: i64 = 24 * 3_600_000;

/// The chances, per heartbeat, that a device is touched and that its state changes.
const TOUCHED: f64 = 0.02;
const CHANGED: f64 = 0.2;

/// How a device is doing.
pub(super) struct Vitals {
    device_type: String,
    celsius: f64,
    percent: f64,
    ppm: i64,
    pascal: i64,
    total: i64,
    on: bool,
    signal: u32,
    battery: u32,
    battery_due: i64,
    /// Nothing was sent yet: states are told once at the beginning.
    first: bool,
}

impl Vitals {
    pub(super) fn new(device_type: &str, dice: &mut Dice) -> Self {
        Self {
            device_type: device_type.to_owned(),
            celsius: dice.tenths(180, 60),
            percent: dice.tenths(300, 250),
            ppm: dice.from(420, 400),
            pascal: dice.from(99_000, 4_000),
            total: dice.from(0, 10_000),
            on: dice.chance(0.5),
            signal: dice.below(60).saturating_add(40),
            battery: dice.below(4).saturating_mul(10).saturating_add(70),
            battery_due: 0,
            first: true,
        }
    }

    /// What the device sends at a heartbeat: event types and the objects `data`.
    pub(super) fn beat(&mut self, dice: &mut Dice, now: Now) -> Vec<(EventType, Value)> {
        let time = rfc3339_micros(now.micros());
        self.drift(dice);
        let mut events = Vec::new();
        let changed = self.first || dice.chance(CHANGED);
        if changed && !self.first {
            self.on = !self.on;
        }
        self.first = false;
        let mut send = |event_type: EventType, payload: Value| {
            let data = json!({event_type.as_str(): payload});
            events.push((event_type, data));
        };
        let state = |yes: &'static str, no: &'static str| json!({"state": if self.on { yes } else { no }, "updateTime": time});
        match self.device_type.as_str() {
            "temperature" => send(EventType::Temperature, self.temperature(&time)),
            "humidity" => send(EventType::Humidity, self.humidity(&time)),
            "co2" => {
                send(EventType::Co2, json!({"ppm": self.ppm, "updateTime": time}));
                send(EventType::Pressure, json!({"pascal": self.pascal, "updateTime": time}));
                send(EventType::Humidity, self.humidity(&time));
            }
            "proximityCounter" => {
                send(EventType::ObjectPresentCount, json!({"total": self.total, "updateTime": time}));
            }
            "touchCounter" => send(EventType::TouchCount, json!({"total": self.total, "updateTime": time})),
            "proximity" if changed => send(EventType::ObjectPresent, state("PRESENT", "NOT_PRESENT")),
            "waterDetector" if changed => send(EventType::WaterPresent, state("PRESENT", "NOT_PRESENT")),
            "motion" if changed => send(EventType::Motion, state("MOTION_DETECTED", "NO_MOTION_DETECTED")),
            "contact" if changed => send(EventType::Contact, state("OPEN", "CLOSED")),
            "deskOccupancy" if changed => {
                let state = if self.on { "OCCUPIED" } else { "NOT_OCCUPIED" };
                send(EventType::DeskOccupancy, json!({"state": state, "remarks": [], "updateTime": time}));
            }
            "ccon" => self.cloud_connector(&time, changed, &mut send),
            _ => {}
        }
        if self.device_type != "ccon" {
            send(EventType::NetworkStatus, network_status(self.signal, &time));
        }
        if now.millis() >= self.battery_due && self.device_type != "ccon" {
            self.battery_due = now.millis().saturating_add(BATTERY_EVERY);
            send(EventType::BatteryStatus, json!({"percentage": self.battery, "updateTime": time}));
        }
        if dice.chance(TOUCHED) {
            send(EventType::Touch, json!({"updateTime": time}));
        }
        events
    }

    fn drift(&mut self, dice: &mut Dice) {
        let mut step = |value: f64, by: f64, low: f64, high: f64| {
            let moved = value + by * dice.tenths(-10, 21);
            (moved.clamp(low, high) * 100.0).round() / 100.0
        };
        self.celsius = step(self.celsius, 0.1, -30.0, 45.0);
        self.percent = step(self.percent, 0.3, 5.0, 98.0);
        self.ppm = self.ppm.saturating_add(dice.from(-15, 31)).clamp(400, 2_500);
        self.pascal = self.pascal.saturating_add(dice.from(-20, 41)).clamp(95_000, 105_000);
        self.total = self.total.saturating_add(dice.from(0, 3));
        self.signal = self.signal.saturating_add(dice.below(5)).saturating_sub(2).clamp(5, 100);
    }

    fn temperature(&self, time: &str) -> Value {
        let samples = json!([{"value": self.celsius, "sampleTime": time}]);
        json!({"value": self.celsius, "samples": samples, "isBackfilled": false, "updateTime": time})
    }

    fn humidity(&self, time: &str) -> Value {
        let (celsius, percent) = (self.celsius, self.percent);
        let samples = json!([{"temperature": celsius, "relativeHumidity": percent, "sampleTime": time}]);
        json!({"temperature": celsius, "relativeHumidity": percent, "samples": samples, "isBackfilled": false, "updateTime": time})
    }

    fn cloud_connector(&self, time: &str, changed: bool, send: &mut impl FnMut(EventType, Value)) {
        if changed {
            let (connection, available) = if self.on {
                ("ETHERNET", vec!["ETHERNET", "CELLULAR"])
            } else {
                ("CELLULAR", vec!["CELLULAR"])
            };
            let payload = json!({"connection": connection, "available": available, "updateTime": time});
            send(EventType::ConnectionStatus, payload);
            let address = if self.on { "10.0.0.1" } else { "" };
            let payload = json!({"macAddress": "f0:b5:b7:00:0a:08", "ipAddress": address, "errors": [], "updateTime": time});
            send(EventType::EthernetStatus, payload);
        }
        let payload = json!({"signalStrength": self.signal, "errors": [], "updateTime": time});
        send(EventType::CellularStatus, payload);
    }
}

fn network_status(signal: u32, time: &str) -> Value {
    // From about -110 dBm at 0 % to -50 dBm at 100 %.
    let rssi = i64::from(signal).saturating_mul(3).checked_div(5).unwrap_or(0).saturating_sub(110);
    json!({
        "signalStrength": signal,
        "rssi": rssi,
        "cloudConnectors": [{"id": "emulated-ccon", "signalStrength": signal, "rssi": rssi}],
        "transmissionMode": "LOW_POWER_STANDARD_MODE",
        "updateTime": time,
    })
}

/// The object `data` of one event of a type that a device sends by itself; `touch` for any other.
pub(super) fn any(event_type: &EventType, dice: &mut Dice, now: Now) -> Value {
    let device_type = match event_type {
        EventType::Temperature => "temperature",
        EventType::ObjectPresent => "proximity",
        EventType::Humidity => "humidity",
        EventType::ObjectPresentCount => "proximityCounter",
        EventType::TouchCount => "touchCounter",
        EventType::WaterPresent => "waterDetector",
        EventType::Co2 | EventType::Pressure => "co2",
        EventType::Motion => "motion",
        EventType::DeskOccupancy => "deskOccupancy",
        EventType::Contact => "contact",
        EventType::ConnectionStatus | EventType::EthernetStatus | EventType::CellularStatus => "ccon",
        _ => "touch",
    };
    let beat = Vitals::new(device_type, dice).beat(dice, now);
    let found = beat.into_iter().find(|(found, _)| found == event_type).map(|(_, data)| data);
    let touch = || json!({event_type.as_str(): {"updateTime": rfc3339_micros(now.micros())}});
    found.unwrap_or_else(touch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::DEVICE_TYPES;
    use dt_verify::event::Payload;

    #[test]
    fn every_device_sends_what_the_core_reads() {
        let mut dice = Dice(1);
        for (device_type, types) in DEVICE_TYPES {
            let mut vitals = Vitals::new(device_type, &mut dice);
            let mut seen = std::collections::BTreeSet::new();
            for beat in 0..200 {
                for (event_type, data) in vitals.beat(&mut dice, Now(beat * 60_000_000)) {
                    let (payload, extra) = Payload::of(&event_type, data);
                    assert!(!matches!(payload, Payload::Unreadable { .. }), "{payload:?}");
                    assert!(extra.is_empty());
                    seen.insert(event_type);
                }
            }
            assert!(types.iter().all(|wanted| seen.contains(wanted)), "{device_type}: {seen:?}");
            assert!(seen.contains(&EventType::Touch), "{device_type}: {seen:?}");
        }
    }

    #[test]
    fn the_same_seed_lives_the_same_life() {
        let life = |seed| {
            let mut dice = Dice(seed);
            let mut vitals = Vitals::new("co2", &mut dice);
            (0..20).map(|_| vitals.beat(&mut dice, Now(0))).collect::<Vec<_>>()
        };
        assert_eq!(life(5), life(5));
        assert_ne!(life(5), life(6));
    }
}

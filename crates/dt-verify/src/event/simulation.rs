//! Simulated devices, for emulators of DT: their types, the events that they send, and the events that may be published for
//! them. Receiving events does not need this module.

use serde_json::{Map, Value};

use super::event_type::{Others, Sent, When};
use super::members::Fields;
pub use super::rng::Rng;
use super::timestamp::Timestamp;
use super::types::{EventType, Payload};

/// The time between two daily reports of a device, in microseconds.
const DAY: i64 = 24 * 3_600 * 1_000_000;

/// The probabilities, per heartbeat, that a device is touched (`TOUCHED`) and that its state changes (`CHANGED`).
const TOUCHED: f64 = 0.02;
const CHANGED: f64 = 0.2;

/// The time between two samples of one event, in microseconds.
const SAMPLE_INTERVAL: i64 = 300_000_000;

/// The type of Cloud Connectors. All other devices are sensors.
const CLOUD_CONNECTOR: &str = "ccon";

/// Returns all device types: those of DT's page "Devices".
#[must_use]
pub fn device_types() -> Vec<&'static str> {
    let mut device_types = Vec::new();
    for device_type in EventType::KNOWN.iter().filter_map(EventType::sent).flat_map(|sent| sent.by) {
        if !device_types.contains(device_type) {
            device_types.push(device_type);
        }
    }
    device_types
}

/// Returns the event types that a simulated device of this type sends by itself.
#[must_use]
pub fn sent_by(device_type: &str) -> Vec<EventType> {
    let sends = |sent: &Sent| match sent.others {
        _ if sent.when == When::ByHand => false,
        _ if sent.by.contains(&device_type) => true,
        Others::No | Others::Published => false,
        Others::Sensors => device_type != CLOUD_CONNECTOR,
        Others::All => true,
    };
    EventType::KNOWN.into_iter().filter(|known| known.sent().is_some_and(sends)).collect()
}

/// Returns whether a device of this type may send this event type.
#[must_use]
pub fn may_send(device_type: &str, event_type: &EventType) -> bool {
    event_type.sent().is_some_and(|sent| match sent.others {
        _ if sent.by.contains(&device_type) => true,
        Others::No => false,
        Others::Sensors => device_type != CLOUD_CONNECTOR,
        Others::All | Others::Published => true,
    })
}

/// Returns the event type of a new device's first event: one of its own, or `touch` if it has none.
pub fn first_event(device_type: &str, rng: &mut Rng, unix_micros: i64) -> (EventType, Payload) {
    let is_own = |known: &EventType| {
        known.sent().is_some_and(|sent| sent.when != When::ByHand && sent.by.contains(&device_type))
    };
    let event_type = EventType::KNOWN.into_iter().find(is_own).unwrap_or(EventType::Touch);
    let active = rng.chance(0.5);
    let payload = event_type.next(None, &mut Moment { rng, unix_micros, active });
    (event_type, payload.unwrap_or(Payload::Empty))
}

/// A simulated device. Its values drift, its state changes at random, and it is touched at random.
///
/// # Examples
///
/// ```
/// use dt_verify::event::simulation::{DeviceModel, Rng};
/// use dt_verify::event::{EventType, Payload};
///
/// let mut device = DeviceModel::new("temperature", Rng::new(7));
/// let events = device.heartbeat(1_700_000_000_000_000);
/// let temperature = events.iter().find(|(event_type, _)| *event_type == EventType::Temperature);
/// assert!(matches!(temperature, Some((_, Payload::Temperature(now))) if now.value > 0.0));
/// ```
#[derive(Debug)]
pub struct DeviceModel {
    rng: Rng,
    /// The event types that the device sends, each with its last payload.
    sends: Vec<(EventType, Option<Payload>)>,
    /// The state of the device, which all its event types share.
    active: bool,
    /// The time of the next daily events, in Unix microseconds.
    daily_due: i64,
    /// Whether the device has sent its first events, which report all states.
    has_sent: bool,
}

impl DeviceModel {
    /// Creates a device of this type. A device of an unknown type sends the events that all devices send.
    #[must_use]
    pub fn new(device_type: &str, mut rng: Rng) -> Self {
        let sends = sent_by(device_type).into_iter().map(|event_type| (event_type, None)).collect();
        let active = rng.chance(0.5);
        Self { rng, sends, active, daily_due: i64::MIN, has_sent: false }
    }

    /// Returns the events that the device sends at a heartbeat, at `unix_micros` in Unix microseconds.
    pub fn heartbeat(&mut self, unix_micros: i64) -> Vec<(EventType, Payload)> {
        let changes = self.has_sent && self.rng.chance(CHANGED);
        let tells_state = changes || !self.has_sent;
        let is_touched = self.rng.chance(TOUCHED);
        let is_daily = unix_micros >= self.daily_due;
        self.active ^= changes;
        self.has_sent = true;
        if is_daily {
            self.daily_due = unix_micros.saturating_add(DAY);
        }
        let mut events = Vec::new();
        for (event_type, last) in &mut self.sends {
            let is_time = event_type.sent().is_some_and(|sent| match sent.when {
                When::Heartbeat => true,
                When::StateChange => tells_state,
                When::Daily => is_daily,
                When::Touch => is_touched,
                When::ByHand => false,
            });
            if is_time {
                let mut moment = Moment { rng: &mut self.rng, unix_micros, active: self.active };
                *last = event_type.next(last.as_ref(), &mut moment);
                events.extend(last.clone().map(|payload| (event_type.clone(), payload)));
            }
        }
        events
    }
}

/// The context in which a payload is made: the time, the random numbers and the state of the device.
pub(in crate::event) struct Moment<'a> {
    pub rng: &'a mut Rng,
    pub unix_micros: i64,
    /// The state of the device: `true` if an object is present, something moves, a door is open, or the best connection is in
    /// use.
    pub active: bool,
}

/// The parameters of a value that changes a little from event to event.
pub(in crate::event) struct Drift {
    /// The range of the first value, as minimum and maximum.
    pub first: (f64, f64),
    /// The largest change from one event to the next.
    pub step: f64,
    /// The range of all values, as minimum and maximum.
    pub limits: (f64, f64),
    /// The number of steps in one unit: 100 for two decimal places.
    pub resolution: f64,
}

impl Moment<'_> {
    /// Returns the time of the event.
    pub(in crate::event) fn time(&self) -> Option<Timestamp> {
        Some(Timestamp::from_unix_micros(self.unix_micros))
    }

    /// Returns the times of up to two earlier samples, the newest first.
    pub(in crate::event) fn earlier_times(&mut self) -> Vec<Timestamp> {
        let before = |back: i64| self.unix_micros.saturating_sub(back.saturating_mul(SAMPLE_INTERVAL));
        (1..=self.rng.from(0, 3)).map(before).map(Timestamp::from_unix_micros).collect()
    }

    /// Returns the next value after `last`; without `last`, a random value of the first range.
    pub(in crate::event) fn drift(&mut self, last: Option<f64>, drift: &Drift) -> f64 {
        let Drift { first: (from, to), step, limits: (low, high), resolution } = *drift;
        // In thousandths of the range.
        let mut between =
            |from: f64, to: f64| from + (to - from) * f64::from(self.rng.below(1_001)) / 1_000.0;
        let value = match last {
            Some(last) => last + between(-step, step),
            None => between(from, to),
        };
        (value.clamp(low, high) * resolution).round() / resolution
    }

    /// Returns the first argument if the device is active, otherwise the second one.
    pub(in crate::event) fn by_state<T>(&self, active: T, inactive: T) -> T {
        if self.active { active } else { inactive }
    }
}

/// Why a payload cannot be completed for publishing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteError {
    /// The event type is unknown.
    #[error("\"{}\" is no event type", .0.escape_debug())]
    UnknownType(String),
    /// A member that events of this type always have is missing.
    #[error("{event_type}.{member} is missing")]
    Missing {
        /// The event type of the payload, such as `touch`.
        event_type: String,
        /// The name of the missing member.
        member: &'static str,
    },
    /// The value of a member is not one that DT sends.
    #[error("{event_type}.{member} is not {wanted}")]
    Undocumented {
        /// The event type of the payload, such as `touch`.
        event_type: String,
        /// The name of the member with an undocumented value.
        member: &'static str,
        /// The values that DT sends, such as "a number".
        wanted: String,
    },
}

/// Completes the payload that a client publishes by DT's emulator API: adds members such as `samples` and `isBackfilled`, which
/// DT's own client omits when it publishes, and needs when it reads.
///
/// `update_time` becomes the member `updateTime`. Members that are `null` count as absent.
///
/// # Errors
///
/// Returns [`CompleteError`] if DT would never send such an event.
pub fn complete(
    event_type: &EventType,
    mut members: Map<String, Value>,
    update_time: &str,
) -> Result<Payload, CompleteError> {
    let name = event_type.as_str();
    members.retain(|_, value| !value.is_null());
    members.insert("updateTime".to_owned(), update_time.into());
    event_type.fill_in(&mut members, update_time);
    let undocumented =
        |member, wanted| CompleteError::Undocumented { event_type: name.to_owned(), member, wanted };
    let read = event_type.read(Fields::of(&members));
    let payload = read.ok_or_else(|| CompleteError::UnknownType(name.to_owned()))?.map_err(|unfit| {
        if unfit.is_absent {
            return CompleteError::Missing { event_type: name.to_owned(), member: unfit.name };
        }
        undocumented(unfit.name, unfit.wanted.to_owned())
    })?;
    match payload.undocumented() {
        None => Ok(payload),
        Some((member, wanted)) => Err(undocumented(member, wanted)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn life(device_type: &str, seed: u64) -> Vec<(EventType, Payload)> {
        let mut device = DeviceModel::new(device_type, Rng::new(seed));
        (0..300_i64).flat_map(|hour| device.heartbeat(hour.saturating_mul(HOUR))).collect()
    }

    #[test]
    fn every_device_sends_all_its_types_and_nothing_odd() {
        for device_type in device_types() {
            let mut seen = BTreeSet::new();
            for (event_type, payload) in life(device_type, 1) {
                assert!(may_send(device_type, &event_type), "{device_type} {event_type}");
                assert_eq!(payload.undocumented(), None, "{payload:?}");
                let data = serde_json::from_str(&payload.to_json()).unwrap();
                assert_eq!(Payload::of(&event_type, data), (payload, Map::new()));
                seen.insert(event_type);
            }
            let all: BTreeSet<_> = sent_by(device_type).into_iter().collect();
            assert_eq!(seen, all, "{device_type}");
            assert!(seen.contains(&EventType::Touch), "{device_type}");
        }
    }

    #[test]
    fn devices_send_what_dt_documents() {
        let sent_by = |device_type| {
            let names = sent_by(device_type).into_iter().map(|event_type| event_type.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sent_by("temperature"), "touch temperature batteryStatus networkStatus");
        assert_eq!(sent_by("co2"), "touch humidity co2 pressure batteryStatus networkStatus");
        assert_eq!(sent_by("ccon"), "touch connectionStatus ethernetStatus cellularStatus");
        assert!(may_send("temperature", &EventType::ProbeWireStatus));
        assert!(may_send("motion", &EventType::ConnectionStatus));
        assert!(!may_send("motion", &EventType::ProbeWireStatus));
        assert!(!may_send("ccon", &EventType::NetworkStatus));
        assert!(!may_send("ccon", &"smell".into()));
        let twelve = "touch temperature proximity humidity proximityCounter touchCounter waterDetector co2 motion \
                      deskOccupancy contact ccon";
        for device_type in twelve.split(' ') {
            assert!(device_types().contains(&device_type), "{device_type}");
        }
    }

    #[test]
    fn the_same_seed_lives_the_same_life() {
        assert_eq!(life("co2", 5), life("co2", 5));
        assert_ne!(life("co2", 5), life("co2", 6));
    }

    #[test]
    fn values_drift_and_the_battery_is_reported_once_a_day() {
        let life = life("temperature", 3);
        let values: Vec<f64> = life
            .iter()
            .filter_map(|(_, payload)| match payload {
                Payload::Temperature(temperature) => Some(temperature.value),
                _ => None,
            })
            .collect();
        assert_eq!(values.len(), 300);
        assert!(values.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.111), "{values:?}");
        assert!(values.windows(2).any(|pair| pair[0] != pair[1]));
        let battery = life.iter().filter(|(event_type, _)| *event_type == EventType::BatteryStatus).count();
        assert_eq!(battery, 300_usize.div_ceil(24));
    }

    #[test]
    fn the_first_event_is_of_a_type_of_its_own() {
        let mut rng = Rng::new(1);
        for (device_type, expected) in
            [("co2", "humidity"), ("ccon", "connectionStatus"), ("unknown", "touch")]
        {
            let (event_type, payload) = first_event(device_type, &mut rng, 0);
            assert_eq!((event_type.as_str(), payload.undocumented()), (expected, None));
        }
    }

    #[test]
    fn what_is_complete_stays_as_it_is() {
        for known in EventType::KNOWN.iter().filter(|known| **known != EventType::LabelsChanged) {
            let mut rng = Rng::new(9);
            let mut moment = Moment { rng: &mut rng, unix_micros: HOUR, active: true };
            let payload = known.sample(&mut moment).unwrap();
            let data: Value = serde_json::from_str(&payload.to_json()).unwrap();
            let members = data[known.as_str()].as_object().unwrap().clone();
            let time = payload.update_time().unwrap().to_string();
            assert_eq!(complete(known, members, &time), Ok(payload));
        }
    }

    #[test]
    fn what_dt_would_not_send_is_an_error() {
        let error = |event_type: &str, members: Value| {
            let members = members.as_object().unwrap().clone();
            complete(&event_type.into(), members, "2026-01-01T00:00:00Z").unwrap_err().to_string()
        };
        assert_eq!(error("smell\n", json!({})), "\"smell\\n\" is no event type");
        assert_eq!(error("temperature", json!({"value": null})), "temperature.value is missing");
        assert_eq!(error("temperature", json!({"value": "21"})), "temperature.value is not a number");
        assert_eq!(error("touchCount", json!({"total": 1.5})), "touchCount.total is not a whole number");
        assert_eq!(error("contact", json!({"state": "AJAR"})), "contact.state is not one of OPEN, CLOSED");
        assert_eq!(
            error("temperature", json!({"value": 1, "isBackfilled": "no"})),
            "temperature.isBackfilled is not true or false"
        );
        assert_eq!(
            error(
                "networkStatus",
                json!({"signalStrength": 1, "cloudConnectors": [{"id": "c", "rssi": "-80"}]})
            ),
            "networkStatus.cloudConnectors is not a list in which each item is an object whose rssi is a number"
        );
    }
}

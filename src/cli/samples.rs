//! Sample events for `sign --count` and `send`.

use super::ids::Run;
use super::{Failure, complain, usage};
use dt_verify::event::{EventType, Sample};
use dt_verify::xid;

/// The number of devices of each event type, so that receivers that work per device have several.
const DEVICES_PER_TYPE: u64 = 10;

/// The creation time in the ids of devices, in Unix seconds.
const DEVICES_CREATED: i64 = 1_600_000_000;

/// The sample events of one run. Each device has one event type.
#[derive(Debug)]
pub struct Samples {
    types: Vec<EventType>,
    project: String,
    /// The prefix of the ids of devices: `emu` for emulated devices.
    device_prefix: &'static str,
    run: Run,
}

impl Samples {
    /// Creates the sample events of a run, with these types in turn, of devices of a project.
    pub const fn new(types: Vec<EventType>, project: String, run: Run) -> Self {
        Self { types, project, device_prefix: "", run }
    }

    /// Assigns ids of emulated devices to the devices.
    #[must_use]
    pub fn emulated(self) -> Self {
        Self { device_prefix: "emu", ..self }
    }

    /// Returns the body of event number `number`, at a time in Unix milliseconds. Its values depend only on the number.
    pub fn body(&self, number: u64, unix_millis: i64) -> String {
        let count = u64::try_from(self.types.len()).unwrap_or(u64::MAX);
        let round = number.checked_div(count).unwrap_or(0);
        let index = number.checked_rem(count).and_then(|index| usize::try_from(index).ok());
        let event_type = index.and_then(|index| self.types.get(index)).unwrap_or(&EventType::Touch).clone();
        let of_type = EventType::KNOWN.iter().position(|known| *known == event_type);
        let of_type = u64::try_from(of_type.unwrap_or(EventType::KNOWN.len())).unwrap_or(0);
        let device = of_type.saturating_mul(DEVICES_PER_TYPE).saturating_add(round % DEVICES_PER_TYPE);
        let sample = Sample {
            event_type,
            event_id: &self.run.event_id(number, unix_millis.div_euclid(1_000)),
            project: &self.project,
            device: &format!(
                "{}{}",
                self.device_prefix,
                xid(DEVICES_CREATED, scatter(device.saturating_add(1)))
            ),
            unix_millis,
            seed: number,
        };
        sample.body()
    }
}

/// Reads `--event`. Returns all known types without it. An unknown type is accepted with a note on standard error, since DT may
/// add types, and receivers have to accept them.
pub fn event_types(name: Option<&str>) -> Result<Vec<EventType>, Failure> {
    let Some(name) = name else { return Ok(EventType::KNOWN.to_vec()) };
    if name.is_empty() {
        return Err(usage("--event: found \"\"; expected a type such as touch or temperature"));
    }
    let event_type = EventType::from(name);
    if !event_type.is_known() {
        let known = EventType::KNOWN.map(|known| known.to_string()).join(", ");
        let name = name.escape_debug();
        complain(&format!("note: --event \"{name}\" is not a known type; expected {known}"));
    }
    Ok(vec![event_type])
}

/// Spreads consecutive numbers over all 64 bits. Different numbers have different results, since the factor is odd.
const fn scatter(nth: u64) -> [u8; 8] {
    nth.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn types_take_turns_and_ids_differ() {
        let samples =
            Samples::new(EventType::KNOWN.to_vec(), "p".to_owned(), Run::known(u64::MAX - 1, 7)).emulated();
        let (mut ids, mut types, mut kinds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let count = EventType::KNOWN.len() * 10;
        for event in 0..count {
            let body = samples.body(event as u64, 1_700_000_000_000);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let text = |pointer: &str| body.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            assert!(ids.insert(text("/event/eventId")));
            types.insert(text("/event/eventType"));
            assert!(text("/metadata/deviceId").starts_with("emu"));
            kinds.insert((text("/metadata/deviceId"), text("/metadata/deviceType")));
        }
        assert_eq!(types.len(), EventType::KNOWN.len());
        let devices: BTreeSet<_> = kinds.iter().map(|(device, _)| device).collect();
        assert_eq!((devices.len(), kinds.len()), (count, count), "a device keeps its type");
    }
}

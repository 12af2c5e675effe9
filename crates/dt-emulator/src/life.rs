//! Life: devices that send events by themselves, at a heartbeat, with values that drift as real ones do.
//!
//! At each heartbeat a device sends its own events and `networkStatus`, as DT's sensors do; between them, at random, it
//! is touched, and its state changes. All numbers come from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::api::add_device;
use super::cloud::Cloud;
use super::state::{Device, Labels, MAX_DEVICES, Now, Published, State};
use dt_verify::event::simulation::{self, DeviceModel, Rng};

/// How many devices of which type are to live: `temperature:20,humidity:5`.
///
/// # Examples
///
/// ```
/// use dt_emulator::Population;
///
/// let devices: Population = "temperature:20,humidity:5,touch".parse().unwrap();
/// assert_eq!(devices.len(), 26);
/// assert!("toaster:1".parse::<Population>().is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Population(BTreeMap<&'static str, usize>);

/// Not a population.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PopulationError {
    /// There is no device type of that name.
    #[error("there is no device type \"{0}\"; allowed are {known}", known = simulation::device_types().join(", "))]
    UnknownType(String),
    /// What follows the colon is no number of devices.
    #[error("\"{0}\" is no number of devices from 1 to {MAX_DEVICES}, all types together")]
    BadCount(String),
}

impl PopulationError {
    /// Stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownType(_) => "device_type_unknown",
            Self::BadCount(_) => "device_count",
        }
    }
}

impl Population {
    /// How many devices there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().copied().fold(0, usize::saturating_add)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Population {
    type Err = PopulationError;

    fn from_str(text: &str) -> Result<Self, PopulationError> {
        let device_types = simulation::device_types();
        let mut population = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, count) = part.split_once(':').unwrap_or((part, "1"));
            let known = device_types.iter().find(|known| **known == name);
            let known = known.ok_or_else(|| PopulationError::UnknownType(name.to_owned()))?;
            let bad = || PopulationError::BadCount(count.to_owned());
            let more = count.parse::<usize>().ok().filter(|count| *count > 0).ok_or_else(bad)?;
            let sum = population.0.entry(known).or_default();
            *sum = sum.saturating_add(more);
            if population.len() > MAX_DEVICES {
                return Err(bad());
            }
        }
        Ok(population)
    }
}

/// Makes the devices of a population that are not there yet.
pub(crate) fn settle(state: &mut State, project: &str, population: &Population, now: Now) {
    for (device_type, wanted) in &population.0 {
        let lives = |device: &&Device| device.lively && device.device_type == *device_type;
        let there =
            state.projects.get(project).map_or(0, |place| place.devices.values().filter(lives).count());
        for number in there..*wanted {
            let id = format!("emu{}", state.id(now));
            let name = format!("{device_type} {}", number.saturating_add(1));
            let labels = Labels::from([("name".to_owned(), name)]);
            // A project that is full stays as it is.
            let _added = add_device(state, project, Device::new(id, (*device_type).to_owned(), labels, true));
        }
    }
}

/// A device's place: project and id.
type Place = (Arc<str>, Arc<str>);

/// All that lives.
struct Pulse {
    interval: i64,
    /// Each has its own random numbers, so that its values do not depend on when the others beat.
    models: BTreeMap<Place, DeviceModel>,
    due: BTreeSet<(i64, Place)>,
}

impl Pulse {
    /// Spreads the first heartbeats of all devices that are to live over one interval.
    fn new(state: &mut State, interval: i64, now: Now) -> Self {
        let mut pulse = Self { interval, models: BTreeMap::new(), due: BTreeSet::new() };
        let mut places: Vec<(Place, String)> = Vec::new();
        for (project, place) in &state.projects {
            for device in place.devices.values().filter(|device| device.lively) {
                let name = (Arc::from(project.as_str()), Arc::from(device.id.as_str()));
                places.push((name, device.device_type.clone()));
            }
        }
        for (number, (place, device_type)) in (0_u32..).zip(places) {
            let phase = phase(number, interval);
            pulse.due.insert((now.millis().saturating_add(phase), place.clone()));
            let rng = Rng::new(state.rng.next_u64());
            pulse.models.insert(place, DeviceModel::new(&device_type, rng));
        }
        pulse
    }

    /// Lets everything beat that is due. A device that was deleted beats no more.
    fn beat(&mut self, state: &mut State, now: Now, published: &mut Vec<Published>) {
        while let Some((due, _)) = self.due.first()
            && *due <= now.millis()
            && let Some((due, place)) = self.due.pop_first()
        {
            let (project, device) = (&*place.0, &*place.1);
            let Some(model) = self.models.get_mut(&place) else { continue };
            if state.device(project, device).is_none() {
                self.models.remove(&place);
                continue;
            }
            for (event_type, payload) in model.heartbeat(now.micros()) {
                published.extend(state.publish(
                    (project, device),
                    &event_type,
                    &payload.to_json(),
                    None,
                    now,
                ));
            }
            // What could not beat in time beats late, not twice.
            let next = due.saturating_add(self.interval);
            let next = if next > now.millis() { next } else { now.millis().saturating_add(self.interval) };
            self.due.insert((next, place));
        }
    }
}

/// Returns when a device sends first, in milliseconds from the start. Multiples of the golden ratio fill the interval evenly
/// however many devices there are, and devices of one type, whose numbers follow each other, do not send in a row.
fn phase(number: u32, interval: i64) -> i64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let share = i128::from(number.wrapping_mul(GOLDEN));
    // At most the interval, since the share of 2^32 is below 1.
    i64::try_from(i128::from(interval).saturating_mul(share) >> 32).unwrap_or(0)
}

/// Lets devices live until told to stop.
pub(crate) async fn run(cloud: Arc<Cloud>, interval: Duration, mut stop: watch::Receiver<bool>) {
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let mut pulse = cloud.with_state(|state, now| Pulse::new(state, interval, now));
    loop {
        cloud.publishing(|state, now, published| pulse.beat(state, now, published));
        let next = pulse.due.first().map(|(due, _)| *due);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = cloud.time().sleep_until(next) => {}
        }
    }
}

/// Publishes `count` events at once, spread over all devices. Whether there is any device.
pub(crate) fn burst(state: &mut State, count: u32, now: Now, published: &mut Vec<Published>) -> bool {
    let mut devices = Vec::new();
    for (project, place) in &state.projects {
        for device in place.devices.values() {
            devices.push((project.clone(), device.id.clone(), device.device_type.clone()));
        }
    }
    for (_, (project, device, device_type)) in (0..count).zip(devices.iter().cycle()) {
        let (event_type, payload) = simulation::first_event(device_type, &mut state.rng, now.micros());
        published.extend(state.publish((project, device), &event_type, &payload.to_json(), None, now));
    }
    !devices.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn populations_are_read() {
        let population: Population = "temperature:2, ccon,temperature:3".parse().unwrap();
        assert_eq!(population.len(), 6);
        assert!("".parse::<Population>().unwrap().is_empty());
        for (text, code) in [
            ("toaster:1", "device_type_unknown"),
            ("ccon:0", "device_count"),
            ("ccon:x", "device_count"),
            ("ccon:10001", "device_count"),
            ("ccon:9999,touch:2", "device_count"),
        ] {
            assert_eq!(text.parse::<Population>().unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn every_device_beats_once_an_interval() {
        let mut state = State::new(7, 100);
        settle(&mut state, "p", &"temperature:3,touch:2".parse().unwrap(), Now(0));
        settle(&mut state, "p", &"temperature:3,touch:2".parse().unwrap(), Now(0));
        assert_eq!(state.projects["p"].devices.len(), 5, "nobody is made twice");
        let mut pulse = Pulse::new(&mut state, 1_000, Now(0));
        let mut published = Vec::new();
        for millis in 0..10_000 {
            pulse.beat(&mut state, Now(millis * 1_000), &mut published);
        }
        let count = |wanted: &str| published.iter().filter(|p| &*p.event.event_type == wanted).count();
        assert_eq!((count("temperature"), count("networkStatus")), (30, 50));
        let gone = state.projects["p"].devices.keys().next().unwrap().clone();
        state.projects.get_mut("p").unwrap().devices.remove(&gone);
        published.clear();
        for millis in 10_000..11_000 {
            pulse.beat(&mut state, Now(millis * 1_000), &mut published);
        }
        assert!(published.iter().all(|p| *p.event.device != *gone));
        assert_eq!(pulse.due.len(), 4);
    }

    #[test]
    fn first_heartbeats_fill_the_interval_in_a_mixed_order() {
        for count in [5_u32, 25, 1_000] {
            let mut phases: Vec<i64> = (0..count).map(|number| phase(number, 1_000_000)).collect();
            let in_a_row = phases.windows(2).filter(|pair| (pair[1] - pair[0]).abs() < 200_000).count();
            assert_eq!(in_a_row, 0, "{phases:?}");
            phases.sort_unstable();
            phases.push(1_000_000);
            let widest = phases.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(widest <= 2_700_000 / i64::from(count), "{count}: {widest}");
        }
        assert!(phase(u32::MAX, i64::MAX) < i64::MAX);
    }

    #[test]
    fn a_burst_is_as_large_as_asked() {
        let mut state = State::new(7, 100);
        let mut published = Vec::new();
        assert!(!burst(&mut state, 5, Now(0), &mut published));
        settle(&mut state, "p", &"temperature:2,touch".parse().unwrap(), Now(0));
        assert!(burst(&mut state, 10, Now(0), &mut published));
        assert_eq!(published.len(), 10);
    }
}

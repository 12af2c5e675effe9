//! The heartbeats: devices that send events by themselves, with values that drift as real ones do, and bursts.
//!
//! At each heartbeat a device sends its own events and `networkStatus`, as DT's sensors do. Between heartbeats, at random,
//! it is touched, and its state changes. All numbers come from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cloud::Cloud;
use super::state::{DeviceRef, NewEvent, Now, Published, State};
use dt_verify::event::simulation::{self, DeviceModel, Rng};

/// The identity of a device: the id of its project, and its own id.
type DeviceKey = (Arc<str>, Arc<str>);

/// Determines when each device with a heartbeat sends next, and what it sends.
struct HeartbeatScheduler {
    /// The time between two heartbeats of a device, in milliseconds of the emulated clock.
    interval: i64,
    /// The models of the devices. Each has random numbers of its own, so that its values do not depend on when other devices
    /// send.
    models: BTreeMap<DeviceKey, DeviceModel>,
    due: BTreeSet<(i64, DeviceKey)>,
}

impl HeartbeatScheduler {
    /// Spreads the first heartbeats of all devices that have one over one interval.
    fn new(state: &mut State, interval: i64, now: Now) -> Self {
        let mut scheduler = Self { interval, models: BTreeMap::new(), due: BTreeSet::new() };
        let mut devices: Vec<(DeviceKey, String)> = Vec::new();
        for (project_id, project) in &state.projects {
            for device in project.devices.values().filter(|device| device.has_heartbeat) {
                let key = (Arc::from(project_id.as_str()), Arc::from(device.id.as_str()));
                devices.push((key, device.device_type.clone()));
            }
        }
        for (number, (key, device_type)) in (0_u32..).zip(devices) {
            let phase = phase(number, interval);
            scheduler.due.insert((now.millis().saturating_add(phase), key.clone()));
            let rng = Rng::new(state.rng.next_u64());
            scheduler.models.insert(key, DeviceModel::new(&device_type, rng));
        }
        scheduler
    }

    /// Publishes the events of all devices whose heartbeat is due, and schedules the next ones. A deleted device is
    /// forgotten; a transferred one continues in its new project.
    fn publish_due(&mut self, state: &mut State, now: Now, published: &mut Vec<Published>) {
        while let Some((due, _)) = self.due.first()
            && *due <= now.millis()
            && let Some((due, mut key)) = self.due.pop_first()
        {
            if state.device(DeviceRef { project: &key.0, device: &key.1 }).is_none() {
                let (model, project) = (self.models.remove(&key), state.project_of(&key.1));
                let (Some(model), Some(project)) = (model, project) else { continue };
                key.0 = project.into();
                self.models.insert(key.clone(), model);
            }
            let device = DeviceRef { project: &key.0, device: &key.1 };
            let Some(model) = self.models.get_mut(&key) else { continue };
            for (event_type, payload) in model.heartbeat(now.micros()) {
                let event = NewEvent { device, event_type: &event_type, data: &payload.to_json() };
                published.extend(state.publish(event, None, now));
            }
            // A heartbeat that is late is published late, not twice.
            let next = due.saturating_add(self.interval);
            let next = if next > now.millis() { next } else { now.millis().saturating_add(self.interval) };
            self.due.insert((next, key));
        }
    }
}

/// Returns the time of a device's first heartbeat, in milliseconds from the start. Multiples of the golden ratio fill the
/// interval evenly for any number of devices, and devices of one type, whose numbers are consecutive, do not send in a row.
fn phase(number: u32, interval: i64) -> i64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let share = i128::from(number.wrapping_mul(GOLDEN));
    // At most the interval, since the share of 2^32 is below 1.
    i64::try_from(i128::from(interval).saturating_mul(share) >> 32).unwrap_or(0)
}

/// Publishes heartbeats until `stop` is true. `interval` is in emulated time.
pub async fn run(cloud: Arc<Cloud>, interval: Duration, mut stop: watch::Receiver<bool>) {
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let mut scheduler = cloud.with_state(|state, now| HeartbeatScheduler::new(state, interval, now));
    loop {
        cloud.publishing(|state, now, published| scheduler.publish_due(state, now, published));
        let next = scheduler.due.first().map(|(due, _)| *due);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = cloud.time().sleep_until(next) => {}
        }
    }
}

/// Publishes `count` events at once, spread over all devices. Returns `false` if there are no devices.
pub fn burst(state: &mut State, count: u32, now: Now, published: &mut Vec<Published>) -> bool {
    let mut devices = Vec::new();
    for (project_id, project) in &state.projects {
        for device in project.devices.values() {
            devices.push((project_id.clone(), device.id.clone(), device.device_type.clone()));
        }
    }
    for (_, (project, device, device_type)) in (0..count).zip(devices.iter().cycle()) {
        let (event_type, payload) = simulation::first_event(device_type, &mut state.rng, now.micros());
        let device = DeviceRef { project, device };
        let event = NewEvent { device, event_type: &event_type, data: &payload.to_json() };
        published.extend(state.publish(event, None, now));
    }
    !devices.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Population;

    #[test]
    fn every_device_has_one_heartbeat_an_interval() {
        let mut state = State::new(7);
        let population: Population = "temperature:3,touch:2".parse().unwrap();
        population.create_missing(&mut state, "p", Now(0));
        let mut scheduler = HeartbeatScheduler::new(&mut state, 1_000, Now(0));
        let mut published = Vec::new();
        for millis in 0..10_000 {
            scheduler.publish_due(&mut state, Now(millis * 1_000), &mut published);
        }
        let count = |wanted: &str| published.iter().filter(|p| &*p.event.event_type == wanted).count();
        assert_eq!((count("temperature"), count("networkStatus")), (30, 50));
        let gone = state.projects["p"].devices.keys().next().unwrap().clone();
        state.projects.get_mut("p").unwrap().devices.remove(&gone);
        published.clear();
        for millis in 10_000..11_000 {
            scheduler.publish_due(&mut state, Now(millis * 1_000), &mut published);
        }
        assert!(published.iter().all(|p| *p.event.device != *gone));
        assert_eq!(scheduler.due.len(), 4);
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
    fn a_burst_has_the_requested_size() {
        let mut state = State::new(7);
        let mut published = Vec::new();
        assert!(!burst(&mut state, 5, Now(0), &mut published));
        let population: Population = "temperature:2,touch".parse().unwrap();
        population.create_missing(&mut state, "p", Now(0));
        assert!(burst(&mut state, 10, Now(0), &mut published));
        assert_eq!(published.len(), 10);
    }
}

//! What the cloud knows: projects with their devices and connectors, the events of the past, the ledger.
//!
//! It all lives under one lock and is changed by short functions that never wait. How much there may be of everything
//! is bounded here and in the queue, the history and the ledger.

mod connector;
mod device;
mod event;
mod file;
mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use connector::url_warning;
pub(crate) use connector::{Connector, Settings, Status};
pub(crate) use device::{Device, Labels, MAX_LABELS, TooManyLabels, is_label};
pub(crate) use event::{Published, StoredEvent};
pub(crate) use file::{StateFile, StateFileError, document};
pub(crate) use history::{History, Position, position};

use super::engine::{Fate, Item, Ledger};
use super::faults::Faults;
use dt_verify::event::simulation::Rng;
use dt_verify::event::{EventType, Payload, Timestamp, rfc3339_micros};
use dt_verify::xid;

/// How many projects, and devices of one project, there may be.
pub(crate) const MAX_PROJECTS: usize = 1_000;
pub(crate) const MAX_DEVICES: usize = 10_000;
/// How many connectors a project may have: a limit of DT's.
pub(crate) const MAX_CONNECTORS: usize = 10;

/// How long the display name of a project may be, in bytes.
pub(crate) const MAX_NAME: usize = 4_096;

/// How long an event that is held back by the fault `reorder` or a copy of one waits at most, in milliseconds.
const MAX_HOLD: u32 = 10_000;

/// A project: it exists as soon as it is named.
#[derive(Default)]
pub(crate) struct Project {
    /// Not empty; `None` when the project has only its id.
    pub(crate) display_name: Option<String>,
    pub(crate) devices: BTreeMap<String, Device>,
    pub(crate) connectors: BTreeMap<String, Connector>,
}

impl Project {
    /// What the project is called, if its id is `id`.
    pub(crate) fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.display_name.as_deref().unwrap_or(id)
    }
}

/// Everything.
pub(crate) struct State {
    pub(crate) projects: BTreeMap<String, Project>,
    pub(crate) history: History,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Faults,
    /// Since when the fault `outage` is set, in Unix milliseconds of the emulated clock.
    pub(crate) outage_since: Option<i64>,
    /// For what devices do; for what faults do to events as they are queued; for attempts, whose order the machine decides;
    /// for calls of the API. Apart, so that none changes the others' numbers.
    pub(crate) rng: Rng,
    queue_rng: Rng,
    pub(crate) attempt_rng: Rng,
    pub(crate) api_rng: Rng,
    incarnations: u64,
    machine: [u8; 5],
    counter: u32,
    pings: u32,
    next_number: u64,
    /// Counts changes, so that whoever keeps the state knows whether there is something to write.
    pub(crate) changes: u64,
}

/// Whether a text can be the id of a project, a device or a connector.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// When something happened: the emulated clock, read once.
#[derive(Clone, Copy)]
pub(crate) struct Now(pub(crate) i64);

impl Now {
    pub(crate) const fn micros(self) -> i64 {
        self.0
    }

    pub(crate) const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl State {
    pub(crate) fn new(seed: u64, most_entries: usize) -> Self {
        let mut rng = Rng::new(seed);
        let [a, b, c, d, e, ..] = rng.next_u64().to_be_bytes();
        Self {
            projects: BTreeMap::new(),
            history: History::default(),
            ledger: Ledger::new(most_entries),
            faults: Faults::default(),
            outage_since: None,
            queue_rng: Rng::new(rng.next_u64()),
            attempt_rng: Rng::new(rng.next_u64()),
            api_rng: Rng::new(rng.next_u64()),
            rng,
            incarnations: 0,
            machine: [a, b, c, d, e],
            counter: 0,
            pings: 0,
            next_number: 0,
            changes: 0,
        }
    }

    /// Makes an id as DT does.
    pub(crate) fn id(&mut self, now: Now) -> String {
        self.counter = self.counter.wrapping_add(1);
        let [a, b, c, d, e] = self.machine;
        let [_, x, y, z] = self.counter.to_be_bytes();
        xid(now.seconds(), [a, b, c, d, e, x, y, z])
    }

    /// Makes an id for a `ping`. It has a counter of its own, since pings must not change the ids of events, and
    /// another machine, since the id must not be that of an event.
    pub(crate) fn ping_id(&mut self, now: Now) -> String {
        self.pings = self.pings.wrapping_add(1);
        let [a, b, c, d, e] = self.machine;
        let [_, x, y, z] = self.pings.to_be_bytes();
        xid(now.seconds(), [!a, b, c, d, e, x, y, z])
    }

    /// A number that no connector has had since the start, to tell those of one name apart.
    pub(crate) fn incarnation(&mut self) -> u64 {
        self.incarnations = self.incarnations.saturating_add(1);
        self.incarnations
    }

    /// Sets all faults. The time of an outage that ends does not count for the five days of failures.
    pub(crate) fn set_faults(&mut self, faults: Faults, now: Now) {
        let now = now.millis();
        match self.outage_since {
            None if faults.outage => self.outage_since = Some(now),
            Some(began) if !faults.outage => {
                self.outage_since = None;
                for connector in
                    self.projects.values_mut().flat_map(|project| project.connectors.values_mut())
                {
                    connector.failing_since = connector.failing_since.map(|since| {
                        let lasted = now.saturating_sub(since.max(began));
                        since.saturating_add(lasted)
                    });
                }
            }
            _ => {}
        }
        self.faults = faults;
    }

    /// The project of that name, which exists from now on. `None` when there are too many.
    pub(crate) fn project(&mut self, id: &str) -> Option<&mut Project> {
        if !self.projects.contains_key(id) && self.projects.len() >= MAX_PROJECTS {
            return None;
        }
        Some(self.projects.entry(id.to_owned()).or_default())
    }

    pub(crate) fn device(&mut self, project: &str, device: &str) -> Option<&mut Device> {
        self.projects.get_mut(project)?.devices.get_mut(device)
    }

    /// Publishes an event: it enters the history, the device and the queues of all connectors that want it.
    /// `data` is the object `data` as JSON. `timestamp` is now, unless the event says otherwise. `None` without the device.
    pub(crate) fn publish(
        &mut self,
        (project_id, device_id): (&str, &str),
        event_type: &EventType,
        data: &str,
        timestamp: Option<&Timestamp>,
        now: Now,
    ) -> Option<Published> {
        self.projects.get(project_id)?.devices.get(device_id)?;
        let (text, micros) = match timestamp.and_then(|time| Some((time, time.instant()?))) {
            Some((time, instant)) => (time.as_str().to_owned(), instant.as_microsecond()),
            None => (rfc3339_micros(now.micros()), now.micros()),
        };
        let (id, number) = (self.id(now), self.next_number);
        self.next_number = number.saturating_add(1);
        self.changes = self.changes.saturating_add(1);
        let place = (project_id, device_id);
        let event = StoredEvent::new(number, id, place, event_type.as_str(), data, (&text, micros));
        let event = Arc::new(event);
        self.history.push(Arc::clone(&event));
        let Self { projects, ledger, faults, queue_rng: rng, .. } = self;
        let project = projects.get_mut(project_id)?;
        let device = project.devices.get_mut(device_id)?;
        // An event that is published late must not hide a newer one.
        match device.latest.get(event_type.as_str()) {
            Some(known) if known.micros > event.micros => {}
            _ => {
                device.latest.insert(event_type.as_str().to_owned(), Arc::clone(&event));
            }
        }
        for connector in project.connectors.values_mut() {
            if connector.is_active() && connector.wants(event_type.as_str()) {
                enqueue(connector, device, &event, ledger, faults, rng, now);
            }
        }
        let device_type = device.device_type.as_str().into();
        Some(Published { event, device_type, labels: Arc::new(device.labels.clone()) })
    }

    /// Changes labels and publishes that, if it changed anything. Without the device nothing does.
    pub(crate) fn change_labels(
        &mut self,
        place: (&str, &str),
        set: &Labels,
        remove: &BTreeSet<String>,
        now: Now,
    ) -> Result<Option<Published>, TooManyLabels> {
        let Some(device) = self.device(place.0, place.1) else { return Ok(None) };
        let change = device.change_labels(set, remove)?;
        if change.added.is_empty() && change.modified.is_empty() && change.removed.is_empty() {
            return Ok(None);
        }
        let data = Payload::LabelsChanged(change).to_json();
        Ok(self.publish(place, &EventType::LabelsChanged, &data, None, now))
    }

    /// Queues the latest event of each type of each device for one connector. `None` when there is no such connector.
    pub(crate) fn synchronize(&mut self, project: &str, connector: &str, now: Now) -> Option<()> {
        let Self { projects, ledger, faults, queue_rng: rng, .. } = self;
        let Project { devices, connectors, .. } = projects.get_mut(project)?;
        let connector = connectors.get_mut(connector)?;
        self.changes = self.changes.saturating_add(1);
        if connector.is_active() {
            for device in devices.values() {
                for event in device.latest.values() {
                    if connector.wants(&event.event_type) {
                        enqueue(connector, device, event, ledger, faults, rng, now);
                    }
                }
            }
        }
        Some(())
    }
}

/// Queues an event for a connector; twice, or for later, if a fault says so.
fn enqueue(
    connector: &mut Connector,
    device: &Device,
    event: &Arc<StoredEvent>,
    ledger: &mut Ledger,
    faults: &Faults,
    rng: &mut Rng,
    now: Now,
) {
    let now = now.millis();
    let entry = ledger.open(&connector.id, event, now);
    let mut hold = |share: f64| if rng.chance(share) { rng.from(1, MAX_HOLD) } else { 0 };
    let delay = i64::from(faults.delay_millis).saturating_add(hold(faults.reorder));
    let copy = hold(faults.duplicate);
    let item = Item {
        event: Arc::clone(event),
        body: event.delivery(device, &connector.settings.labels).into(),
        queued_at: now,
        due: now.saturating_add(delay),
        attempts: 0,
        first_tried_at: None,
        entry,
    };
    let copy = (copy > 0).then(|| Item { due: item.due.saturating_add(copy), ..item.clone() });
    for item in std::iter::once(item).chain(copy) {
        for gone in connector.queue.push(item) {
            ledger.decide(gone.entry, Fate::Overflowed, now);
        }
    }
}

/// Empties the queue of a connector that is disabled or deleted.
pub(crate) fn drop_queue(connector: &mut Connector, ledger: &mut Ledger, now: i64) {
    for item in connector.queue.clear() {
        ledger.decide(item.entry, Fate::Dropped, now);
    }
}

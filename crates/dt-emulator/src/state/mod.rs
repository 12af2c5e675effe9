//! The state of the cloud: projects with their devices and connectors, the event history, and the ledger.
//!
//! One lock protects the whole state, and short functions that never wait change it. The sizes are limited in this file, in the
//! queue, the history and the ledger.

mod connector;
mod device;
mod event;
mod file;
mod history;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use connector::Connector;
pub(crate) use device::{Device, Labels, MAX_LABELS, TooManyLabels, is_label};
pub use event::HistoryEvent;
pub(crate) use event::{DeviceRef, NewEvent, Published, StoredEvent};
pub(crate) use file::{StateFile, StateFileError, document};
pub(crate) use history::{DEFAULT_EVENTS, History, Position, position};
pub use settings::url_warning;
pub(crate) use settings::{ConnectorStatus, Settings};

use super::engine::{DEFAULT_ENTRIES, DeliveryStatus, Ledger, QueuedEvent, RetryPauses};
use super::faults::Faults;
use super::sequence::Sequence;
use dt_verify::event::simulation::Rng;
use dt_verify::event::{EventType, Payload, Timestamp, rfc3339_micros};
use dt_verify::xid;

/// The largest number of projects.
pub const MAX_PROJECTS: usize = 1_000;

/// The largest number of devices of a project.
pub const MAX_DEVICES: usize = 10_000;

/// The largest number of connectors of a project: a limit of DT's.
pub const MAX_CONNECTORS: usize = 10;

/// The largest length of the display name of a project, in bytes.
pub const MAX_NAME: usize = 4_096;

/// The longest delay of an event by the fault `reorder`, and of a copy by the fault `duplicate`, in milliseconds.
const MAX_HOLD: u32 = 10_000;

/// A project. It exists as soon as a request names it.
#[derive(Default)]
pub struct Project {
    /// The display name of the project, not empty; `None` if the project has only its id.
    pub display_name: Option<String>,
    pub devices: BTreeMap<String, Device>,
    pub connectors: BTreeMap<String, Connector>,
}

impl Project {
    /// Returns the display name, or `id`, the project's id, if it has none.
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.display_name.as_deref().unwrap_or(id)
    }
}

/// The state of the cloud.
pub struct State {
    pub projects: BTreeMap<String, Project>,
    pub history: History,
    pub ledger: Ledger,
    pub faults: Faults,
    pub retry_pauses: RetryPauses,
    /// The time at which the fault `outage` was set, in Unix milliseconds of the emulated clock; `None` without an outage.
    pub outage_since: Option<i64>,
    /// The random numbers of devices. Each use has its own, so that it does not change the numbers of the others.
    pub rng: Rng,
    /// The random numbers of faults that change how events are queued.
    queue_rng: Rng,
    /// The random numbers of attempts, whose order depends on the machine.
    pub attempt_rng: Rng,
    /// The random numbers of calls of the API.
    pub api_rng: Rng,
    incarnations: Sequence,
    machine: [u8; 5],
    counter: u32,
    pings: u32,
    next_number: Sequence,
    /// The number of changes: the state is saved if it differs from that of the last save.
    pub changes: u64,
}

/// Returns whether a text can be the id of a project, a device or a connector.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The time of the emulated clock in Unix microseconds, read once for each operation.
#[derive(Clone, Copy)]
pub struct Now(pub i64);

impl Now {
    pub const fn micros(self) -> i64 {
        self.0
    }

    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl State {
    /// Returns an empty state with the default capacities and pauses.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let [a, b, c, d, e, ..] = rng.next_u64().to_be_bytes();
        Self {
            projects: BTreeMap::new(),
            history: History::new(DEFAULT_EVENTS),
            ledger: Ledger::new(DEFAULT_ENTRIES),
            faults: Faults::default(),
            retry_pauses: RetryPauses::default(),
            outage_since: None,
            queue_rng: Rng::new(rng.next_u64()),
            attempt_rng: Rng::new(rng.next_u64()),
            api_rng: Rng::new(rng.next_u64()),
            rng,
            incarnations: Sequence::default(),
            machine: [a, b, c, d, e],
            counter: 0,
            pings: 0,
            next_number: Sequence::default(),
            changes: 0,
        }
    }

    /// Records that the state has changed, so that it is saved.
    pub fn mark_changed(&mut self) {
        // Only compared for equality.
        self.changes = self.changes.wrapping_add(1);
    }

    /// Returns a new id of the form of DT's ids.
    pub fn id(&mut self, now: Now) -> String {
        self.counter = self.counter.wrapping_add(1);
        let [a, b, c, d, e] = self.machine;
        let [_, x, y, z] = self.counter.to_be_bytes();
        xid(now.seconds(), [a, b, c, d, e, x, y, z])
    }

    /// Returns a new id of a `ping`. It has its own counter, since pings must not change the ids of events, and another
    /// machine part, since no event may have the same id.
    pub fn ping_id(&mut self, now: Now) -> String {
        self.pings = self.pings.wrapping_add(1);
        let [a, b, c, d, e] = self.machine;
        let [_, x, y, z] = self.pings.to_be_bytes();
        xid(now.seconds(), [!a, b, c, d, e, x, y, z])
    }

    /// Returns a number that no connector has had since the start. It distinguishes connectors with the same name.
    pub const fn incarnation(&mut self) -> u64 {
        self.incarnations.next()
    }

    /// Sets all faults. The duration of an outage does not count for the five days of failures.
    pub fn set_faults(&mut self, faults: Faults, now: Now) {
        let now = now.millis();
        match self.outage_since {
            None if faults.outage => self.outage_since = Some(now),
            Some(start) if !faults.outage => {
                self.outage_since = None;
                for connector in
                    self.projects.values_mut().flat_map(|project| project.connectors.values_mut())
                {
                    connector.failing_since = connector.failing_since.map(|since| {
                        let lasted = now.saturating_sub(since.max(start));
                        since.saturating_add(lasted)
                    });
                }
            }
            _ => {}
        }
        self.faults = faults;
    }

    /// Returns the project with this id, and creates it if necessary. Returns `None` if there are too many projects.
    pub fn project(&mut self, id: &str) -> Option<&mut Project> {
        if !self.projects.contains_key(id) && self.projects.len() >= MAX_PROJECTS {
            return None;
        }
        Some(self.projects.entry(id.to_owned()).or_default())
    }

    pub fn device(&mut self, name: DeviceRef<'_>) -> Option<&mut Device> {
        self.projects.get_mut(name.project)?.devices.get_mut(name.device)
    }

    /// Returns the id of the project of a device; `None` if no project has the device.
    pub fn project_of(&self, device: &str) -> Option<&str> {
        let mut projects = self.projects.iter();
        projects.find(|(_, project)| project.devices.contains_key(device)).map(|(id, _)| id.as_str())
    }

    /// Publishes an event: [stores](Self::store) it, and adds it to the queues of all connectors that forward its type.
    pub fn publish(
        &mut self,
        new: NewEvent<'_>,
        timestamp: Option<&Timestamp>,
        now: Now,
    ) -> Option<Published> {
        let DeviceRef { project, device } = new.device;
        let event = self.store(new, timestamp, now)?;
        let Self { projects, ledger, faults, queue_rng: rng, .. } = self;
        let project = projects.get_mut(project)?;
        let device = project.devices.get(device)?;
        let mut enqueuer = Enqueuer { ledger, faults, rng, now: now.millis() };
        for connector in project.connectors.values_mut() {
            if connector.is_active() && connector.wants(&event.event_type) {
                enqueuer.enqueue(connector, device, &event);
            }
        }
        let device_type = device.device_type.as_str().into();
        Some(Published { event, device_type, labels: Arc::new(device.labels.clone()) })
    }

    /// Adds an event to the history and to its device. `timestamp` is `now` by default. Returns `None` if the device does not
    /// exist.
    pub fn store(
        &mut self,
        new: NewEvent<'_>,
        timestamp: Option<&Timestamp>,
        now: Now,
    ) -> Option<Arc<StoredEvent>> {
        self.device(new.device)?;
        let (text, micros) = match timestamp.and_then(|time| Some((time, time.instant()?))) {
            Some((time, instant)) => (time.as_str().to_owned(), instant.as_microsecond()),
            None => (rfc3339_micros(now.micros()), now.micros()),
        };
        let (id, number) = (self.id(now), self.next_number.next());
        self.mark_changed();
        let event = Arc::new(StoredEvent::new(number, id, new, (&text, micros)));
        let delay = i64::from(self.faults.index_delay_millis).saturating_mul(1_000);
        self.history.push(Arc::clone(&event), now.micros().saturating_add(delay));
        let device = self.device(new.device)?;
        // An event that is published late must not hide a newer one.
        match device.latest.get(&*event.event_type) {
            Some(latest) if latest.micros > event.micros => {}
            _ => {
                device.latest.insert(event.event_type.as_ref().to_owned(), Arc::clone(&event));
            }
        }
        Some(event)
    }

    /// Changes the labels of a device. If a label has changed, publishes a `labelsChanged` event and returns it. Returns `None` if
    /// no label has changed, or if the device does not exist.
    pub fn change_labels(
        &mut self,
        name: DeviceRef<'_>,
        set: &Labels,
        remove: &BTreeSet<String>,
        now: Now,
    ) -> Result<Option<Published>, TooManyLabels> {
        let Some(device) = self.device(name) else { return Ok(None) };
        let change = device.change_labels(set, remove)?;
        if change.added.is_empty() && change.modified.is_empty() && change.removed.is_empty() {
            return Ok(None);
        }
        let data = Payload::LabelsChanged(change).to_json();
        let event = NewEvent { device: name, event_type: &EventType::LabelsChanged, data: &data };
        Ok(self.publish(event, None, now))
    }

    /// Queues the latest event of each type of each device for one connector. Returns `None` if the connector does not exist.
    pub fn synchronize(&mut self, project: &str, connector: &str, now: Now) -> Option<()> {
        let Self { projects, ledger, faults, queue_rng: rng, .. } = self;
        let Project { devices, connectors, .. } = projects.get_mut(project)?;
        let connector = connectors.get_mut(connector)?;
        let mut enqueuer = Enqueuer { ledger, faults, rng, now: now.millis() };
        if connector.is_active() {
            for device in devices.values() {
                for event in device.latest.values() {
                    if connector.wants(&event.event_type) {
                        enqueuer.enqueue(connector, device, event);
                    }
                }
            }
        }
        self.mark_changed();
        Some(())
    }
}

/// Queues events for connectors, with the faults of the queue.
struct Enqueuer<'a> {
    ledger: &'a mut Ledger,
    faults: &'a Faults,
    rng: &'a mut Rng,
    /// The emulated time, in Unix milliseconds.
    now: i64,
}

impl Enqueuer<'_> {
    /// Queues an event for a connector. The faults `delay`, `reorder` and `duplicate` delay it or queue a copy as well.
    fn enqueue(&mut self, connector: &mut Connector, device: &Device, event: &Arc<StoredEvent>) {
        let Self { ledger, faults, rng, now } = self;
        let now = *now;
        let entry = ledger.open(&connector.id, event, now);
        let mut hold = |share: f64| if rng.chance(share) { rng.from(1, MAX_HOLD) } else { 0 };
        let delay = i64::from(faults.delay_millis).saturating_add(hold(faults.reorder));
        let copy = hold(faults.duplicate);
        let queued = QueuedEvent {
            event: Arc::clone(event),
            body: event.delivery(device, &connector.settings.labels).into(),
            queued_at: now,
            due: now.saturating_add(delay),
            attempts: 0,
            first_tried_at: None,
            entry,
        };
        let copy = (copy > 0).then(|| QueuedEvent { due: queued.due.saturating_add(copy), ..queued.clone() });
        for queued in std::iter::once(queued).chain(copy) {
            for removed in connector.queue.push(queued) {
                ledger.decide(removed.entry, DeliveryStatus::Overflowed, now);
            }
        }
    }
}

/// Disables a connector as DT does after five days of failures. `now` is in Unix milliseconds of the emulated clock.
pub fn system_disable(connector: &mut Connector, ledger: &mut Ledger, now: i64) {
    connector.settings.status = ConnectorStatus::SystemDisabled;
    connector.disabled_at = Some(now);
    drop_queue(connector, ledger, now);
}

/// Empties the queue of a connector that is disabled or deleted. `now` is in Unix milliseconds of the emulated clock.
pub fn drop_queue(connector: &mut Connector, ledger: &mut Ledger, now: i64) {
    for removed in connector.queue.clear() {
        ledger.decide(removed.entry, DeliveryStatus::Dropped, now);
    }
}

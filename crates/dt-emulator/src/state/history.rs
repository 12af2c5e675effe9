//! The event history: one queue for the events of all devices, so that one size limit applies to it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::StoredEvent;

/// The largest number of events in the history; beyond it, the oldest are removed. DT removes events after 31 days. Here their
/// age does not matter, since a client may publish an event with a time long ago.
pub const MAX_EVENTS: usize = 40_000;

/// The largest size of the JSON of all events, in bytes; beyond it, the oldest events are removed.
const MAX_BYTES: usize = 64 << 20;

/// A position in the order of events: the `timestamp` in Unix microseconds, then the number of the event.
pub type Position = (i64, u64);

/// Returns the position of an event. A late event has a position before newer ones.
pub fn position(event: &StoredEvent) -> Position {
    (event.micros, event.number)
}

/// The events of all devices, in the order in which they were published.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<Arc<StoredEvent>>", into = "VecDeque<Arc<StoredEvent>>")]
pub struct History {
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
}

impl From<VecDeque<Arc<StoredEvent>>> for History {
    fn from(events: VecDeque<Arc<StoredEvent>>) -> Self {
        let bytes = events.iter().map(|event| event.json.len()).fold(0, usize::saturating_add);
        Self { events, bytes }
    }
}

impl From<History> for VecDeque<Arc<StoredEvent>> {
    fn from(history: History) -> Self {
        history.events
    }
}

impl History {
    pub fn push(&mut self, event: Arc<StoredEvent>) {
        self.bytes = self.bytes.saturating_add(event.json.len());
        self.events.push_back(event);
        while (self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES)
            && let Some(removed) = self.events.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(removed.json.len());
        }
    }

    /// Returns the events before the position `before` for which `wanted` is true, newest first.
    pub fn newest_first(
        &self,
        before: Option<Position>,
        wanted: impl Fn(&StoredEvent) -> bool,
    ) -> Vec<&Arc<StoredEvent>> {
        let is_before = |event: &StoredEvent| before.is_none_or(|before| position(event) < before);
        let mut found: Vec<_> =
            self.events.iter().filter(|event| is_before(event) && wanted(event)).collect();
        found.sort_unstable_by_key(|event| Reverse(position(event)));
        found
    }

    /// Removes the events of a deleted device.
    pub fn forget(&mut self, device: &str) {
        self.events.retain(|event| &*event.device != device);
        self.bytes = self.events.iter().map(|event| event.json.len()).fold(0, usize::saturating_add);
    }
}

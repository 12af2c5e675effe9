//! The events of the past: one ring for all devices, so that its size has one bound.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::StoredEvent;

/// How many events are remembered at most; the oldest go first. About 600 bytes each. DT forgets after 31 days; here an
/// event may be published with a time of long ago, so age does not count.
pub(crate) const MAX_EVENTS: usize = 40_000;

/// How many bytes of JSON are remembered at most; then the oldest go as well.
const MAX_BYTES: usize = 64 << 20;

/// A place in the order of time: `timestamp` in Unix microseconds, then the number of the event.
pub(crate) type Position = (i64, u64);

/// The position of an event. One that is published late comes before those that are newer than it.
pub(crate) fn position(event: &StoredEvent) -> Position {
    (event.micros, event.number)
}

/// The events of all devices, in the order in which they were published.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<Arc<StoredEvent>>", into = "VecDeque<Arc<StoredEvent>>")]
pub(crate) struct History {
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
    pub(crate) fn push(&mut self, event: Arc<StoredEvent>) {
        self.bytes = self.bytes.saturating_add(event.json.len());
        self.events.push_back(event);
        while (self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES)
            && let Some(gone) = self.events.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(gone.json.len());
        }
    }

    /// Returns the events that `wanted` says yes to, the newest first, from those before the position `before`.
    pub(crate) fn newest_first(
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

    /// Forgets the events of a device that is deleted.
    pub(crate) fn forget(&mut self, device: &str) {
        self.events.retain(|event| &*event.device != device);
        self.bytes = self.events.iter().map(|event| event.json.len()).fold(0, usize::saturating_add);
    }
}

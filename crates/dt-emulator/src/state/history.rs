//! The event history: one queue for the events of all devices, so that one size limit applies to it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Now;
use super::event::StoredEvent;

/// The default of the largest number of events in the history; beyond it, the oldest are removed.
pub const DEFAULT_EVENTS: usize = 40_000;

/// The largest average size of the JSON of all events, in bytes; beyond it, the oldest events are removed.
const BYTES_PER_EVENT: usize = 1_600;

/// The age up to which events are shown, in microseconds: DT keeps them for 31 days.
const MAX_AGE: i64 = 31 * 86_400 * 1_000_000;

/// A position in the order of events: the `timestamp` in Unix microseconds, then the number of the event.
pub type Position = (i64, u64);

/// Returns the position of an event. A late event has a position before newer ones.
pub fn position(event: &StoredEvent) -> Position {
    (event.micros, event.number)
}

/// An event, and the time from which it is shown, in Unix microseconds of the emulated clock.
struct Indexed {
    event: Arc<StoredEvent>,
    from: i64,
}

/// The events of all devices, in the order in which they were published.
pub struct History {
    events: VecDeque<Indexed>,
    /// The size of the JSON of all events, in bytes.
    bytes: usize,
    /// The largest number of events.
    capacity: usize,
}

impl History {
    pub const fn new(capacity: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, capacity }
    }

    /// Adds an event, which is shown from the time `from` on, in Unix microseconds of the emulated clock.
    pub fn push(&mut self, event: Arc<StoredEvent>, from: i64) {
        self.bytes = self.bytes.saturating_add(event.json.len());
        self.events.push_back(Indexed { event, from });
        let max_bytes = self.capacity.saturating_mul(BYTES_PER_EVENT);
        while (self.events.len() > self.capacity || self.bytes > max_bytes)
            && let Some(removed) = self.events.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(removed.event.json.len());
        }
    }

    /// Returns all events in the order in which they were published, also those that are not shown.
    pub fn all(&self) -> impl Iterator<Item = &Arc<StoredEvent>> {
        self.events.iter().map(|indexed| &indexed.event)
    }

    /// Returns the events for which `wanted` is true, in the order of their positions: those that are indexed and at most 31 days
    /// old.
    pub fn shown(&self, now: Now, wanted: impl Fn(&StoredEvent) -> bool) -> Vec<&Arc<StoredEvent>> {
        let now = now.micros();
        let oldest = now.saturating_sub(MAX_AGE);
        let is_shown = |Indexed { event, from }: &&Indexed| *from <= now && event.micros >= oldest;
        let events = self.events.iter().filter(is_shown).map(|indexed| &indexed.event);
        let mut found: Vec<_> = events.filter(|event| wanted(event)).collect();
        found.sort_unstable_by_key(|event| position(event));
        found
    }

    /// Removes the events of a deleted device.
    pub fn forget(&mut self, device: &str) {
        self.events.retain(|indexed| &*indexed.event.device != device);
        self.bytes = self.all().map(|event| event.json.len()).fold(0, usize::saturating_add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{DeviceRef, NewEvent};
    use dt_verify::event::EventType;

    fn event(number: u64, micros: i64, size: usize) -> Arc<StoredEvent> {
        let data = format!("\"{}\"", "x".repeat(size));
        let device = DeviceRef { project: "p", device: "d" };
        let new = NewEvent { device, event_type: &EventType::Touch, data: &data };
        Arc::new(StoredEvent::new(number, number.to_string(), new, ("", micros)))
    }

    fn ids(history: &History, now: i64) -> Vec<&str> {
        history.shown(Now(now), |_| true).into_iter().map(|event| &*event.id).collect()
    }

    #[test]
    fn an_event_is_shown_once_it_is_indexed_and_until_it_is_too_old() {
        let mut history = History::new(10);
        history.push(event(1, 100, 0), 110);
        history.push(event(2, 105, 0), 105);
        history.push(event(3, 50, 0), 108);
        assert_eq!(ids(&history, 105), ["2"]);
        assert_eq!(ids(&history, 109), ["3", "2"]);
        assert_eq!(ids(&history, 110), ["3", "1", "2"]);
        assert_eq!(ids(&history, 50 + MAX_AGE), ["3", "1", "2"]);
        assert_eq!(ids(&history, 51 + MAX_AGE), ["1", "2"]);
        assert_eq!(history.all().count(), 3);
    }

    #[test]
    fn the_number_of_events_and_their_size_are_limited() {
        let mut history = History::new(3);
        for number in 0..5 {
            history.push(event(number, 0, 0), 0);
        }
        assert_eq!(ids(&history, 0), ["2", "3", "4"]);
        history.push(event(5, 0, 3 * BYTES_PER_EVENT - 150), 0);
        assert_eq!(ids(&history, 0), ["5"], "one that nearly fills it");
        history.forget("d");
        history.push(event(6, 0, 0), 0);
        assert_eq!(ids(&history, 0), ["6"]);
    }
}

//! The queue of one connector: its undelivered events, and the times of their next attempts and their expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sequence::Sequence;
use crate::state::StoredEvent;

/// The largest number of events in a queue; beyond it, the oldest are removed. DT's documentation does not say what DT does.
pub const MAX_QUEUE: usize = 100_000;

/// The largest size of all bodies in a queue, in bytes; beyond it, the oldest events are removed.
pub const MAX_QUEUE_BYTES: usize = 128 << 20;

/// The largest number of requests in progress for one connector. DT does not wait for the response before it sends the next
/// request.
pub const MAX_IN_FLIGHT: usize = 64;

/// An event in the queue of one connector.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct QueuedEvent {
    pub event: Arc<StoredEvent>,
    pub body: Arc<str>,
    /// When the event was queued, in Unix milliseconds of the emulated clock.
    pub queued_at: i64,
    /// When the next attempt is due, in Unix milliseconds of the emulated clock.
    pub due: i64,
    pub attempts: u32,
    /// When the first attempt was made, in Unix milliseconds of the emulated clock; `None` before it.
    pub first_tried_at: Option<i64>,
    /// The number of the event's entry in the ledger. Copies of an event share one entry.
    pub entry: u64,
}

/// The events of one connector, by their number in the queue.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Queue {
    next: Sequence,
    #[serde(rename = "items")]
    events: BTreeMap<u64, QueuedEvent>,
    /// The due times and numbers of events without a request in progress.
    #[serde(skip)]
    ready: BTreeSet<(i64, u64)>,
    #[serde(skip)]
    in_flight: BTreeSet<u64>,
    /// The size of all bodies in the queue, in bytes.
    #[serde(skip)]
    bytes: usize,
}

impl Queue {
    /// Adds an event. Returns the events that were removed because the queue is full.
    pub(crate) fn push(&mut self, event: QueuedEvent) -> Vec<QueuedEvent> {
        let mut removed = Vec::new();
        let bytes = event.body.len();
        while self.events.len() >= MAX_QUEUE || self.bytes.saturating_add(bytes) > MAX_QUEUE_BYTES {
            let Some(oldest) = self.oldest_ready().and_then(|number| self.remove(number)) else { break };
            removed.push(oldest);
        }
        let number = self.next.next();
        self.ready.insert((event.due, number));
        self.bytes = self.bytes.saturating_add(bytes);
        self.events.insert(number, event);
        removed
    }

    /// Completes a queue that was read from a file: no request is in progress, and each event gets a new entry in the ledger.
    pub(crate) fn restore(&mut self, mut open_entry: impl FnMut(&QueuedEvent) -> u64) {
        for (number, event) in &mut self.events {
            event.entry = open_entry(event);
            self.ready.insert((event.due, *number));
            self.bytes = self.bytes.saturating_add(event.body.len());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns the number of requests in progress.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the number of the oldest event without a request in progress; `None` if there is none.
    fn oldest_ready(&self) -> Option<u64> {
        self.events.keys().find(|number| !self.in_flight.contains(number)).copied()
    }

    fn remove(&mut self, number: u64) -> Option<QueuedEvent> {
        self.in_flight.remove(&number);
        let event = self.events.remove(&number)?;
        self.ready.remove(&(event.due, number));
        self.bytes = self.bytes.saturating_sub(event.body.len());
        Some(event)
    }

    /// Removes and returns the events that were queued at `oldest` or before and have no request in progress.
    pub(crate) fn expire(&mut self, oldest: i64) -> Vec<QueuedEvent> {
        let mut expired = Vec::new();
        while let Some(number) = self.oldest_ready()
            && self.events.get(&number).is_some_and(|event| event.queued_at <= oldest)
        {
            expired.extend(self.remove(number));
        }
        expired
    }

    /// Returns the next event that is due, and counts its request as in progress. `None` if no event is due, or no further
    /// request may be made.
    pub(crate) fn take(&mut self, now: i64) -> Option<(u64, &mut QueuedEvent)> {
        let (due, number) = *self.ready.first()?;
        if due > now || self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        self.ready.pop_first();
        self.in_flight.insert(number);
        self.events.get_mut(&number).map(|event| (number, event))
    }

    /// Removes an event whose request has succeeded.
    pub(crate) fn done(&mut self, number: u64) -> Option<QueuedEvent> {
        self.remove(number)
    }

    /// Schedules the next attempt of an event whose request has failed for `due`.
    pub(crate) fn again(&mut self, number: u64, due: i64) {
        self.in_flight.remove(&number);
        if let Some(event) = self.events.get_mut(&number) {
            event.due = due;
            self.ready.insert((due, number));
        }
    }

    /// Returns an event by its number; `None` if it was removed.
    pub(crate) fn get(&self, number: u64) -> Option<&QueuedEvent> {
        self.events.get(&number)
    }

    /// Removes and returns all events. The results of requests in progress then change nothing.
    pub(crate) fn clear(&mut self) -> Vec<QueuedEvent> {
        self.ready.clear();
        self.in_flight.clear();
        self.bytes = 0;
        std::mem::take(&mut self.events).into_values().collect()
    }

    /// Returns when the next attempt is due, in Unix milliseconds of the emulated clock; `None` if a request has to end first.
    pub(crate) fn next_due(&self) -> Option<i64> {
        self.ready.first().filter(|_| self.in_flight.len() < MAX_IN_FLIGHT).map(|(due, _)| *due)
    }

    /// Returns when the next event expires, in Unix milliseconds of the emulated clock; `None` if there is none. `retention` is
    /// in milliseconds.
    pub(crate) fn next_expiry(&self, retention: i64) -> Option<i64> {
        let oldest = self.events.get(&self.oldest_ready()?)?;
        Some(oldest.queued_at.saturating_add(retention))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{DeviceRef, NewEvent};
    use dt_verify::event::EventType;

    fn queued(queued_at: i64) -> QueuedEvent {
        let new = NewEvent {
            device: DeviceRef { project: "p", device: "d" },
            event_type: &EventType::Touch,
            data: "{}",
        };
        QueuedEvent {
            event: Arc::new(StoredEvent::new(0, "e".into(), new, ("", 0))),
            body: "{}".into(),
            queued_at,
            due: queued_at,
            attempts: 0,
            first_tried_at: None,
            entry: 0,
        }
    }

    #[test]
    fn the_event_that_is_due_first_is_taken_first() {
        let mut queue = Queue::default();
        queue.push(queued(30));
        queue.push(queued(10));
        assert!(queue.take(9).is_none());
        let (first, taken) = queue.take(40).unwrap();
        assert_eq!(taken.queued_at, 10);
        queue.again(first, 50);
        assert_eq!(queue.take(40).unwrap().1.queued_at, 30);
        assert!(queue.take(49).is_none());
        assert_eq!(queue.take(50).unwrap().0, first);
        assert!(queue.done(first).is_some());
        assert!(queue.done(first).is_none());
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn old_events_expire_unless_a_request_is_in_progress() {
        let mut queue = Queue::default();
        for at in [0, 1, 2] {
            queue.push(queued(at));
        }
        let (number, _) = queue.take(0).unwrap();
        assert_eq!((queue.next_due(), queue.next_expiry(100)), (Some(1), Some(101)));
        assert_eq!(queue.expire(1).len(), 1);
        assert_eq!(queue.len(), 2);
        queue.again(number, 500);
        assert_eq!(queue.expire(1).len(), 1);
        assert_eq!((queue.next_due(), queue.next_expiry(100)), (Some(2), Some(102)));
    }

    #[test]
    fn requests_in_progress_are_limited() {
        let mut queue = Queue::default();
        for _ in 0..=MAX_IN_FLIGHT {
            queue.push(queued(0));
        }
        let taken = std::iter::from_fn(|| queue.take(0).map(|(number, _)| number)).count();
        assert_eq!(taken, MAX_IN_FLIGHT);
        assert_eq!((queue.next_due(), queue.next_expiry(100)), (None, Some(100)));
    }

    #[test]
    fn a_full_queue_removes_the_oldest() {
        let mut queue = Queue::default();
        let large: Arc<str> = "x".repeat(MAX_QUEUE_BYTES / 4).into();
        for at in 0..5 {
            let removed = queue.push(QueuedEvent { body: Arc::clone(&large), ..queued(at) });
            assert_eq!(
                removed.iter().map(|event| event.queued_at).collect::<Vec<_>>(),
                if at < 4 { vec![] } else { vec![0] }
            );
        }
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.clear().len(), 4);
        assert!(
            (0..10).all(|at| queue.push(queued(at)).is_empty()),
            "the bytes of removed events do not count"
        );
    }

    #[test]
    fn a_cleared_queue_ignores_requests_in_progress() {
        let mut queue = Queue::default();
        queue.push(queued(0));
        let (number, _) = queue.take(0).unwrap();
        assert_eq!(queue.clear().len(), 1);
        queue.again(number, 5);
        assert!(queue.take(10).is_none() && queue.done(number).is_none());
    }
}

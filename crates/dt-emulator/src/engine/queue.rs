//! The queue of one connector: what is to be sent, when it is tried next, and when it is too old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::StoredEvent;

/// How many events a queue holds; then the oldest go, which DT's documentation does not mention.
pub(crate) const MAX_QUEUE: usize = 100_000;

/// How many bytes of bodies a queue holds; then the oldest go as well.
pub(crate) const MAX_QUEUE_BYTES: usize = 128 << 20;

/// How many requests of one connector are under way at once. DT does not wait for one to finish before the next.
pub(crate) const MAX_IN_FLIGHT: usize = 64;

/// One event on its way to one connector.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) event: Arc<StoredEvent>,
    pub(crate) body: Arc<str>,
    /// When it was queued, in Unix milliseconds of the emulated clock.
    pub(crate) queued_at: i64,
    /// When it is tried next.
    pub(crate) due: i64,
    pub(crate) attempts: u32,
    /// For which time the tokens of the first attempt were made.
    pub(crate) first_tried_at: Option<i64>,
    /// Its entry in the ledger; copies share one.
    pub(crate) entry: u64,
}

/// The events of one connector, by their number in the queue.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Queue {
    next: u64,
    items: BTreeMap<u64, Item>,
    /// Those that no request is under way for.
    #[serde(skip)]
    ready: BTreeSet<(i64, u64)>,
    #[serde(skip)]
    in_flight: BTreeSet<u64>,
    /// Of all bodies.
    #[serde(skip)]
    bytes: usize,
}

impl Queue {
    /// Adds an event. Gives back those that had to go, if the queue is full.
    pub(crate) fn push(&mut self, item: Item) -> Vec<Item> {
        let mut gone = Vec::new();
        let bytes = item.body.len();
        while self.items.len() >= MAX_QUEUE || self.bytes.saturating_add(bytes) > MAX_QUEUE_BYTES {
            let Some(removed) = self.oldest_ready().and_then(|number| self.remove(number)) else { break };
            gone.push(removed);
        }
        let number = self.next;
        self.next = number.saturating_add(1);
        self.ready.insert((item.due, number));
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.insert(number, item);
        gone
    }

    /// Makes a queue from a file ready: no request is under way, and each item gets a new entry in the ledger.
    pub(crate) fn restore(&mut self, mut open_entry: impl FnMut(&Item) -> u64) {
        for (number, item) in &mut self.items {
            item.entry = open_entry(item);
            self.ready.insert((item.due, *number));
            self.bytes = self.bytes.saturating_add(item.body.len());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many requests are under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The oldest that no request is under way for; requests under way are few.
    fn oldest_ready(&self) -> Option<u64> {
        self.items.keys().find(|number| !self.in_flight.contains(number)).copied()
    }

    fn remove(&mut self, number: u64) -> Option<Item> {
        self.in_flight.remove(&number);
        let item = self.items.remove(&number)?;
        self.ready.remove(&(item.due, number));
        self.bytes = self.bytes.saturating_sub(item.body.len());
        Some(item)
    }

    /// Takes out what was queued at `oldest` or before, save what a request is under way for.
    pub(crate) fn expire(&mut self, oldest: i64) -> Vec<Item> {
        let mut gone = Vec::new();
        while let Some(number) = self.oldest_ready()
            && self.items.get(&number).is_some_and(|item| item.queued_at <= oldest)
        {
            gone.extend(self.remove(number));
        }
        gone
    }

    /// The next one that is due, if another request may be made. It counts as under way from now on.
    pub(crate) fn take(&mut self, now: i64) -> Option<(u64, &mut Item)> {
        let (due, number) = *self.ready.first()?;
        if due > now || self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        self.ready.pop_first();
        self.in_flight.insert(number);
        self.items.get_mut(&number).map(|item| (number, item))
    }

    /// A request has ended well.
    pub(crate) fn done(&mut self, number: u64) -> Option<Item> {
        self.remove(number)
    }

    /// A request has failed: tries again at `due`.
    pub(crate) fn again(&mut self, number: u64, due: i64) {
        self.in_flight.remove(&number);
        if let Some(item) = self.items.get_mut(&number) {
            item.due = due;
            self.ready.insert((due, number));
        }
    }

    /// How often the item was tried, and when it was queued; `None` when it has gone.
    pub(crate) fn get(&self, number: u64) -> Option<&Item> {
        self.items.get(&number)
    }

    /// Empties the queue. Requests under way find nothing when they end.
    pub(crate) fn clear(&mut self) -> Vec<Item> {
        self.ready.clear();
        self.in_flight.clear();
        self.bytes = 0;
        std::mem::take(&mut self.items).into_values().collect()
    }

    /// When something is due next, unless a request has to end first.
    pub(crate) fn next_due(&self) -> Option<i64> {
        self.ready.first().filter(|_| self.in_flight.len() < MAX_IN_FLIGHT).map(|(due, _)| *due)
    }

    /// When something is too old next, given how long events are kept.
    pub(crate) fn next_expiry(&self, retention: i64) -> Option<i64> {
        let oldest = self.items.get(&self.oldest_ready()?)?;
        Some(oldest.queued_at.saturating_add(retention))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(queued_at: i64) -> Item {
        let event = StoredEvent::new(0, "e".into(), ("p", "d"), "touch", "{}", ("", 0));
        Item {
            event: Arc::new(event),
            body: "{}".into(),
            queued_at,
            due: queued_at,
            attempts: 0,
            first_tried_at: None,
            entry: 0,
        }
    }

    #[test]
    fn what_is_due_first_is_taken_first() {
        let mut queue = Queue::default();
        queue.push(item(30));
        queue.push(item(10));
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
    fn what_is_too_old_goes_unless_it_is_under_way() {
        let mut queue = Queue::default();
        for at in [0, 1, 2] {
            queue.push(item(at));
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
    fn requests_under_way_are_bounded() {
        let mut queue = Queue::default();
        for _ in 0..=MAX_IN_FLIGHT {
            queue.push(item(0));
        }
        let taken = std::iter::from_fn(|| queue.take(0).map(|(number, _)| number)).count();
        assert_eq!(taken, MAX_IN_FLIGHT);
        assert_eq!((queue.next_due(), queue.next_expiry(100)), (None, Some(100)));
    }

    #[test]
    fn a_full_queue_lets_the_oldest_go() {
        let mut queue = Queue::default();
        let large: Arc<str> = "x".repeat(MAX_QUEUE_BYTES / 4).into();
        for at in 0..5 {
            let gone = queue.push(Item { body: Arc::clone(&large), ..item(at) });
            assert_eq!(
                gone.iter().map(|item| item.queued_at).collect::<Vec<_>>(),
                if at < 4 { vec![] } else { vec![0] }
            );
        }
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.clear().len(), 4);
        assert!((0..10).all(|at| queue.push(item(at)).is_empty()), "the bytes of what has gone do not count");
    }

    #[test]
    fn a_cleared_queue_forgets_requests_under_way() {
        let mut queue = Queue::default();
        queue.push(item(0));
        let (number, _) = queue.take(0).unwrap();
        assert_eq!(queue.clear().len(), 1);
        queue.again(number, 5);
        assert!(queue.take(10).is_none() && queue.done(number).is_none());
    }
}

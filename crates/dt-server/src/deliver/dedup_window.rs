//! The de-duplication window of a sink: the ids of the events that it has received, so that copies are not delivered again. The
//! window is limited in number and in age. It exists only in memory, and is therefore empty after a restart.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use hashlink::LinkedHashMap;
use tokio::sync::oneshot;

use super::from_requests::Undelivered;

/// The identity of an event: its connector and its event id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub connector: Arc<str>,
    pub event_id: Arc<str>,
}

/// The result of delivering a record to a sink.
pub type DeliveryResult = Result<(), Undelivered>;
/// Receives the result of a record that is being delivered.
pub type Waiter = oneshot::Receiver<DeliveryResult>;

/// The result of looking up an event in the window.
#[derive(Debug)]
pub enum Lookup {
    /// The event is not in the window: the caller has to deliver it. The waiter receives the result.
    New(Waiter),
    /// An earlier copy of the event is being delivered. The waiter receives its result.
    Pending(Waiter),
    /// The sink has received the event.
    Delivered,
}

/// The ids of the events that are being delivered to a sink, and of those that it has received.
#[derive(Debug)]
pub struct DedupWindow {
    max_ids: usize,
    max_age_ms: i64,
    /// The events that are being delivered, each with the channels to the requests that wait for the result.
    pending: HashMap<Key, Vec<oneshot::Sender<DeliveryResult>>>,
    /// The delivered events, oldest first, each with the time of its delivery in Unix milliseconds.
    delivered: LinkedHashMap<Key, i64, RandomState>,
    /// When the last event was received, in Unix milliseconds. Ids expire by this time. It is trusted, since the event's token
    /// was valid then; if the system clock jumps ahead, ids do not expire.
    last_event_ms: i64,
}

impl DedupWindow {
    pub fn new(max_ids: usize, max_age: Duration) -> Self {
        let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let (pending, delivered) = (HashMap::new(), LinkedHashMap::with_hasher(RandomState::new()));
        Self { max_ids, max_age_ms, pending, delivered, last_event_ms: 0 }
    }

    /// Looks an event up, and adds it as being delivered if it is new. `now_ms` is in Unix milliseconds.
    pub fn enter(&mut self, key: &Key, now_ms: i64) -> Lookup {
        self.last_event_ms = now_ms;
        self.forget_old();
        if self.delivered.contains_key(key) {
            return Lookup::Delivered;
        }
        let (sender, waiter) = oneshot::channel();
        match self.pending.get_mut(key) {
            Some(waiters) => {
                // While a sink hangs, each retry leaves a waiter behind.
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(sender);
                Lookup::Pending(waiter)
            }
            None => {
                self.pending.insert(key.clone(), vec![sender]);
                Lookup::New(waiter)
            }
        }
    }

    /// Records the result of an event that was being delivered, and sends it to the waiters.
    pub fn resolve(&mut self, key: Key, result: &DeliveryResult) {
        let waiters = self.pending.remove(&key);
        if result.is_ok() {
            // Moves it to the end if it is in the map already.
            self.delivered.insert(key, self.last_event_ms);
        }
        self.forget_old();
        for waiter in waiters.into_iter().flatten() {
            // It fails if the request has been answered already, by its deadline.
            let _gone = waiter.send(result.clone());
        }
    }

    fn forget_old(&mut self) {
        while let Some((_, since)) = self.delivered.front() {
            let too_old = self.last_event_ms.saturating_sub(*since) >= self.max_age_ms;
            if !too_old && self.delivered.len() <= self.max_ids {
                break;
            }
            self.delivered.pop_front();
        }
    }

    /// Returns the number of delivered ids.
    pub fn len(&self) -> usize {
        self.delivered.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key { connector: Arc::from("c"), event_id: Arc::from(id) }
    }

    fn delivered(window: &mut DedupWindow, id: &str, now: i64) {
        assert!(matches!(window.enter(&key(id), now), Lookup::New(_)));
        window.resolve(key(id), &Ok(()));
    }

    #[test]
    fn a_delivered_event_is_known_until_its_time_is_over() {
        let mut window = DedupWindow::new(10, Duration::from_secs(72 * 3600));
        delivered(&mut window, "a", 0);
        assert!(matches!(window.enter(&key("a"), 71 * 3_600_000), Lookup::Delivered));
        assert!(matches!(window.enter(&key("a"), 72 * 3_600_000), Lookup::New(_)));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut window = DedupWindow::new(2, Duration::from_secs(3600));
        for id in ["a", "b", "c"] {
            delivered(&mut window, id, 0);
        }
        assert_eq!(window.len(), 2);
        assert!(matches!(window.enter(&key("b"), 1), Lookup::Delivered));
        assert!(matches!(window.enter(&key("a"), 1), Lookup::New(_)));
    }

    #[test]
    fn a_copy_waits_for_the_first_and_hears_the_same() {
        let mut window = DedupWindow::new(2, Duration::from_secs(3600));
        let Lookup::New(mut first) = window.enter(&key("a"), 0) else { panic!("not new") };
        let Lookup::Pending(mut copy) = window.enter(&key("a"), 0) else { panic!("not pending") };
        let down = Undelivered::SinkUnavailable { error: "down".to_owned() };
        window.resolve(key("a"), &Err(down.clone()));
        assert_eq!(first.try_recv().unwrap(), Err(down.clone()));
        assert_eq!(copy.try_recv().unwrap(), Err(down));
        assert!(matches!(window.enter(&key("a"), 0), Lookup::New(_)), "a failed event may come again");
    }

    #[test]
    fn those_who_gave_up_are_not_kept() {
        let mut window = DedupWindow::new(2, Duration::from_secs(3600));
        let Lookup::New(_first) = window.enter(&key("a"), 0) else { panic!("not new") };
        for _retry in 0..100 {
            assert!(matches!(window.enter(&key("a"), 0), Lookup::Pending(_given_up)));
        }
        let Some(waiters) = window.pending.get(&key("a")) else { panic!("not pending") };
        assert!(waiters.len() <= 2, "{} wait", waiters.len());
    }

    #[test]
    fn connectors_do_not_share_ids() {
        let mut window = DedupWindow::new(2, Duration::from_secs(3600));
        delivered(&mut window, "a", 0);
        let other = Key { connector: Arc::from("d"), event_id: Arc::from("a") };
        assert!(matches!(window.enter(&other, 0), Lookup::New(_)));
    }
}

//! The window of ids: which events a sink has, so that a copy of one is not delivered again. Bounded in number and in
//! time; in memory, so that it is empty after a restart.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use hashlink::LinkedHashMap;
use tokio::sync::oneshot;

use super::from_requests::Undelivered;

/// An event of a connector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) connector: Arc<str>,
    pub(super) event_id: Arc<str>,
}

pub(super) type Fate = Result<(), Undelivered>;
pub(super) type Waiter = oneshot::Receiver<Fate>;

/// What the window knows of an event.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing: deliver it. The waiter is told the result.
    New(Waiter),
    /// It is on its way. The waiter is told the result.
    Pending(Waiter),
    /// The sink has it.
    Delivered,
}

#[derive(Debug)]
pub(super) struct Window {
    max_ids: usize,
    max_age_ms: i64,
    /// On their way to the sink; these are told what becomes of each.
    pending: HashMap<Key, Vec<oneshot::Sender<Fate>>>,
    /// Since when the sink has had each, in Unix milliseconds; oldest first. Most of the memory of a full window is here.
    delivered: LinkedHashMap<Key, i64, RandomState>,
    /// When an event came last, in Unix milliseconds. Its token was valid then, so DT's clock vouches for this time; by a
    /// clock that has jumped ahead since, everything would be too old.
    vouched: i64,
}

impl Window {
    pub(super) fn new(max_ids: usize, max_age: Duration) -> Self {
        let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let (pending, delivered) = (HashMap::new(), LinkedHashMap::with_hasher(RandomState::new()));
        Self { max_ids, max_age_ms, pending, delivered, vouched: 0 }
    }

    /// Looks an event up, and notes that it is on its way if it is new.
    pub(super) fn enter(&mut self, key: &Key, now_ms: i64) -> Known {
        self.vouched = now_ms;
        self.forget_old();
        if self.delivered.contains_key(key) {
            return Known::Delivered;
        }
        let (sender, waiter) = oneshot::channel();
        match self.pending.get_mut(key) {
            Some(waiters) => {
                // While a sink hangs, every retry waits here until its deadline.
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(sender);
                Known::Pending(waiter)
            }
            None => {
                self.pending.insert(key.clone(), vec![sender]);
                Known::New(waiter)
            }
        }
    }

    /// Notes what became of an event that was on its way, and tells whoever waits.
    pub(super) fn resolve(&mut self, key: Key, fate: &Fate) {
        let waiters = self.pending.remove(&key);
        if fate.is_ok() {
            // Behind all others, also if it is there.
            self.delivered.insert(key, self.vouched);
        }
        self.forget_old();
        for waiter in waiters.into_iter().flatten() {
            // A requester that has given up is not an error.
            let _gone = waiter.send(fate.clone());
        }
    }

    fn forget_old(&mut self) {
        while let Some((_, since)) = self.delivered.front() {
            let too_old = self.vouched.saturating_sub(*since) >= self.max_age_ms;
            if !too_old && self.delivered.len() <= self.max_ids {
                break;
            }
            self.delivered.pop_front();
        }
    }

    /// How many delivered events are known.
    pub(super) fn len(&self) -> usize {
        self.delivered.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key { connector: Arc::from("c"), event_id: Arc::from(id) }
    }

    fn delivered(window: &mut Window, id: &str, now: i64) {
        assert!(matches!(window.enter(&key(id), now), Known::New(_)));
        window.resolve(key(id), &Ok(()));
    }

    #[test]
    fn a_delivered_event_is_known_until_its_time_is_over() {
        let mut window = Window::new(10, Duration::from_secs(72 * 3600));
        delivered(&mut window, "a", 0);
        assert!(matches!(window.enter(&key("a"), 71 * 3_600_000), Known::Delivered));
        assert!(matches!(window.enter(&key("a"), 72 * 3_600_000), Known::New(_)));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut window = Window::new(2, Duration::from_secs(3600));
        for id in ["a", "b", "c"] {
            delivered(&mut window, id, 0);
        }
        assert_eq!(window.len(), 2);
        assert!(matches!(window.enter(&key("b"), 1), Known::Delivered));
        assert!(matches!(window.enter(&key("a"), 1), Known::New(_)));
    }

    #[test]
    fn a_copy_waits_for_the_first_and_hears_the_same() {
        let mut window = Window::new(2, Duration::from_secs(3600));
        let Known::New(mut first) = window.enter(&key("a"), 0) else { panic!("not new") };
        let Known::Pending(mut copy) = window.enter(&key("a"), 0) else { panic!("not pending") };
        let down = Undelivered::SinkUnavailable { error: "down".to_owned() };
        window.resolve(key("a"), &Err(down.clone()));
        assert_eq!(first.try_recv().unwrap(), Err(down.clone()));
        assert_eq!(copy.try_recv().unwrap(), Err(down));
        assert!(matches!(window.enter(&key("a"), 0), Known::New(_)), "a failed event may come again");
    }

    #[test]
    fn those_who_gave_up_are_not_kept() {
        let mut window = Window::new(2, Duration::from_secs(3600));
        let Known::New(_first) = window.enter(&key("a"), 0) else { panic!("not new") };
        for _retry in 0..100 {
            assert!(matches!(window.enter(&key("a"), 0), Known::Pending(_given_up)));
        }
        let Some(waiters) = window.pending.get(&key("a")) else { panic!("not pending") };
        assert!(waiters.len() <= 2, "{} wait", waiters.len());
    }

    #[test]
    fn connectors_do_not_share_ids() {
        let mut window = Window::new(2, Duration::from_secs(3600));
        delivered(&mut window, "a", 0);
        let other = Key { connector: Arc::from("d"), event_id: Arc::from("a") };
        assert!(matches!(window.enter(&other, 0), Known::New(_)));
    }
}

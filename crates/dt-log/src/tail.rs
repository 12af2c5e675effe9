//! The end of the log: the newest groups in memory, which workers read, and where they wait for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::SinkSet;
use crate::sync::{Condvar, Mutex, MutexGuard};
use dt_sink::record::Record;

/// How many bytes of bodies the newest groups hold together. A worker that is further behind reads segments. What goes round
/// through more memory is cold in every cache when it is written again: with 8 MiB an event costs 1 us of 22 more.
const MAX_BYTES: usize = 1 << 20;
/// What an event takes beside its body, about.
const EVENT_BYTES: usize = 512;

/// An event that was accepted, and the sinks that it is for.
pub(super) type Accepted = (Arc<Record>, SinkSet);

/// The end of the log.
#[derive(Debug)]
pub struct Tail {
    state: Mutex<TailState>,
    changed: Condvar,
    /// Wakes those who [`rest`](Self::rest): not with every group, each of which would cost them a context switch.
    rest_over: Condvar,
}

/// The events of one or more groups, in order.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) first_seq: i64,
    pub(super) events: Vec<Accepted>,
    bytes: usize,
}

#[derive(Debug)]
struct TailState {
    last_seq: i64,
    groups: VecDeque<Arc<Published>>,
    bytes: usize,
    /// The least number at which the rest of one of those who rest is over; `i64::MAX` when nobody rests.
    enough_at: i64,
    /// Until when workers may go on, once the service stops.
    stop_at: Option<Instant>,
    trouble: Option<String>,
    damage: Option<String>,
    /// How often an operator changed something that workers have to look at.
    changes: u64,
}

impl Tail {
    pub(super) fn new(last_seq: i64) -> Self {
        let state = TailState {
            last_seq,
            groups: VecDeque::new(),
            bytes: 0,
            enough_at: i64::MAX,
            stop_at: None,
            trouble: None,
            damage: None,
            changes: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), rest_over: Condvar::new() }
    }

    /// Shows a group to the workers, once it is durable.
    pub(super) fn publish(&self, first_seq: i64, events: Vec<Accepted>) {
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let size = |(record, _): &Accepted| record.body.len().saturating_add(EVENT_BYTES);
        let bytes = events.iter().map(size).sum();
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_add(bytes);
        state.groups.push_back(Arc::new(Published { first_seq, events, bytes }));
        while state.bytes > MAX_BYTES && state.groups.len() > 1 {
            let Some(oldest) = state.groups.pop_front() else { break };
            state.bytes = state.bytes.saturating_sub(oldest.bytes);
        }
        self.move_to(state, first_seq.saturating_add(count).saturating_sub(1));
    }

    /// Events up to a number were recovered; they are in the segments.
    pub(super) fn recovered(&self, last_seq: i64) {
        self.move_to(self.state.lock(), last_seq);
    }

    fn move_to(&self, mut state: MutexGuard<'_, TailState>, last_seq: i64) {
        state.last_seq = last_seq;
        if state.enough_at <= last_seq {
            // Those who want more say so again.
            state.enough_at = i64::MAX;
            self.rest_over.notify_all();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The groups from the one with the event after `seq` on; `None` where that one is not in memory any more.
    pub(super) fn after(&self, seq: i64) -> Option<Vec<Arc<Published>>> {
        let state = self.state.lock();
        let place = state.groups.partition_point(|group| group.first_seq <= seq.saturating_add(1));
        let place = place.checked_sub(1)?;
        Some(state.groups.range(place..).cloned().collect())
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.state.lock().trouble = trouble;
    }

    /// Why events cannot be stored, if they cannot.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }

    pub(super) fn set_damage(&self, damage: Option<String>) {
        self.state.lock().damage = damage;
    }

    /// What was found damaged, though events can be stored.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.state.lock().damage.clone()
    }

    /// The sequence number of the last event that is durable.
    #[must_use]
    pub fn last_seq(&self) -> i64 {
        self.state.lock().last_seq
    }

    /// The service stops: wakes everyone who waits, now and from now on. Until then workers may still deliver what is
    /// there.
    pub fn stop(&self, until: Instant) {
        self.state.lock().stop_at = Some(until);
        self.changed.notify_all();
        self.rest_over.notify_all();
    }

    /// Whether the service stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state.lock().stop_at.is_some()
    }

    /// Has the workers look: a replay was asked for, a sink was forgotten, or is another one now.
    pub fn wake(&self) {
        let mut state = self.state.lock();
        state.changes = state.changes.saturating_add(1);
        self.changed.notify_all();
        self.rest_over.notify_all();
    }

    /// Waits until there are events after `seq`, or an operator changed something since `changes`, or it is `until`.
    /// Returns how often an operator changed something; `None` when the service stops and there are no such events, or no
    /// time is left.
    pub fn wait(&self, seq: i64, changes: u64, until: Option<Instant>) -> Option<u64> {
        let mut state = self.state.lock();
        let is_time = || until.is_some_and(|until| until <= Instant::now());
        while state.last_seq <= seq && state.stop_at.is_none() && state.changes == changes && !is_time() {
            match until {
                None => self.changed.wait(&mut state),
                // Whether it timed out shows in `is_time`.
                Some(until) => drop(self.changed.wait_until(&mut state, until)),
            }
        }
        let goes_on = state.stop_at.is_none_or(|stop_at| state.last_seq > seq && Instant::now() < stop_at);
        goes_on.then_some(state.changes)
    }

    /// Waits until it is `until`, or there is an event with the number `enough_at`, or the service stops, or an operator
    /// changed something since `changes`. Groups before that one wake nobody here.
    pub fn rest(&self, enough_at: i64, changes: u64, until: Instant) {
        let mut state = self.state.lock();
        while state.last_seq < enough_at && state.stop_at.is_none() && state.changes == changes {
            state.enough_at = state.enough_at.min(enough_at);
            if self.rest_over.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
    }

    /// Waits for as long as `pause`, or until the service stops, or an operator changed something since `changes`.
    pub fn pause(&self, pause: Duration, changes: u64) {
        let mut state = self.state.lock();
        let Some(until) = Instant::now().checked_add(pause) else { return };
        while state.stop_at.is_none()
            && state.changes == changes
            && !self.changed.wait_until(&mut state, until).timed_out()
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: i64) -> Accepted {
        (Arc::new(Record::sample(&number.to_string())), SinkSet::new([1]))
    }

    #[test]
    fn a_rest_is_over_when_there_is_enough_and_not_before() {
        let long = Instant::now().checked_add(Duration::from_secs(3600)).expect("a time");
        let tail = Tail::new(0);
        std::thread::scope(|scope| {
            let resting = [(3, 0), (5, 0)].map(|(enough_at, changes)| {
                let tail = &tail;
                scope.spawn(move || {
                    tail.rest(enough_at, changes, long);
                    tail.last_seq()
                })
            });
            for seq in 1..=5 {
                tail.publish(seq, vec![sample(seq)]);
            }
            for (rested, enough_at) in resting.into_iter().zip([3, 5]) {
                assert!(rested.join().expect("no panic") >= enough_at);
            }
        });
        // What is there already, an operator, the time and a stop: none of them waits.
        tail.rest(5, 0, long);
        tail.rest(6, 0, Instant::now());
        tail.wake();
        tail.rest(6, 0, long);
        tail.stop(long);
        tail.rest(6, 1, long);
    }

    #[test]
    fn groups_are_found_by_the_event_before_them_until_they_are_too_many_bytes() {
        let tail = Tail::new(10);
        assert!(tail.after(10).is_none());
        tail.publish(11, vec![sample(11), sample(12)]);
        tail.publish(13, vec![sample(13)]);
        let firsts = |seq| -> Option<Vec<i64>> {
            Some(tail.after(seq)?.iter().map(|group| group.first_seq).collect())
        };
        assert_eq!(firsts(9), None);
        assert_eq!(firsts(10), Some(vec![11, 13]));
        assert_eq!(firsts(11), Some(vec![11, 13]));
        assert_eq!(firsts(12), Some(vec![13]));
        let large = Record { body: vec![b' '; MAX_BYTES].into(), ..Record::sample("large") };
        tail.publish(14, vec![(Arc::new(large), SinkSet::new([]))]);
        assert_eq!(firsts(12), None);
        assert_eq!(firsts(13), Some(vec![14]));
    }
}

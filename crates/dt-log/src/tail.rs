//! The end of the log: the newest groups in memory. Workers read these groups, and wait for new ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::SinkSet;
use crate::sync::{Condvar, Mutex, MutexGuard};
use dt_sink::record::Record;

/// The size limit of the groups in memory, in bytes. A worker that is further behind reads segments. A larger limit would be
/// slower, since memory that is reused later is no longer in the caches.
const MAX_BYTES: usize = 1 << 20;
/// The approximate size of an event in bytes, without its body.
const EVENT_BYTES: usize = 512;

/// An accepted event, and the sinks that it is for.
pub type Accepted = (Arc<Record>, SinkSet);

/// The end of the log, with the newest groups in memory.
#[derive(Debug)]
pub struct Tail {
    state: Mutex<TailState>,
    changed: Condvar,
    /// Wakes workers in [`rest`](Self::rest). It is separate from `changed`, so that they do not wake up for every group.
    rest_over: Condvar,
}

/// The subject of a finding. A finding only replaces an earlier one with the same subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FindingKind {
    /// The findings of the start.
    Start,
    /// The index of event ids was created anew since the start.
    NewIndex,
    /// Events were removed before the end of `retain`, to make room.
    ShortRetention,
}

/// The events of a group, in order.
#[derive(Debug)]
pub(super) struct Published {
    pub first_seq: i64,
    pub events: Vec<Accepted>,
    bytes: usize,
}

#[derive(Debug)]
struct TailState {
    last_seq: i64,
    groups: VecDeque<Arc<Published>>,
    bytes: usize,
    /// The smallest sequence number that a resting worker waits for; `i64::MAX` if none rests.
    enough_at: i64,
    /// The time until which workers may continue; `None` until the service stops.
    stop_at: Option<Instant>,
    last_error: Option<String>,
    /// Why event ids cannot be stored; `None` if they can.
    ids_error: Option<String>,
    /// The findings, each with the time until which it is reported, in Unix milliseconds.
    findings: BTreeMap<FindingKind, (String, i64)>,
    /// The number of changes by operators, by which workers notice a new one.
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
            last_error: None,
            ids_error: None,
            findings: BTreeMap::new(),
            changes: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), rest_over: Condvar::new() }
    }

    /// Publishes a durable group to the workers.
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

    /// Announces that events up to a sequence number are recovered. Workers read them from the segments.
    pub(super) fn recovered(&self, last_seq: i64) {
        self.move_to(self.state.lock(), last_seq);
    }

    fn move_to(&self, mut state: MutexGuard<'_, TailState>, last_seq: i64) {
        state.last_seq = last_seq;
        if state.enough_at <= last_seq {
            // Workers that wait for a later number set it again.
            state.enough_at = i64::MAX;
            self.rest_over.notify_all();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Returns the groups from the one that contains the event after `seq`; `None` if that group is no longer in memory.
    pub(super) fn after(&self, seq: i64) -> Option<Vec<Arc<Published>>> {
        let state = self.state.lock();
        let place = state.groups.partition_point(|group| group.first_seq <= seq.saturating_add(1));
        let place = place.checked_sub(1)?;
        Some(state.groups.range(place..).cloned().collect())
    }

    pub(super) fn set_last_error(&self, last_error: Option<String>) {
        self.state.lock().last_error = last_error;
    }

    /// Returns why events cannot be stored; `None` if they can.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.state.lock().last_error.clone()
    }

    /// Sets the error with which event ids cannot be stored, or clears it with `None`. Returns whether an error was set before.
    pub(super) fn set_ids_error(&self, error: Option<String>) -> bool {
        std::mem::replace(&mut self.state.lock().ids_error, error).is_some()
    }

    /// Reports a finding until the time `until`, in Unix milliseconds.
    pub(super) fn report(&self, kind: FindingKind, finding: String, until: i64) {
        self.state.lock().findings.insert(kind, (finding, until));
    }

    /// Withdraws a finding.
    pub(super) fn withdraw(&self, kind: FindingKind) {
        self.state.lock().findings.remove(&kind);
    }

    /// Removes the findings whose time has expired at `now`, in Unix milliseconds.
    pub(super) fn expire_findings(&self, now: i64) {
        self.state.lock().findings.retain(|_, (_, until)| *until > now);
    }

    /// Returns the findings about damage. Events can be stored in spite of them.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let state = self.state.lock();
        let findings = state.findings.values().map(|(finding, _)| finding);
        state.ids_error.iter().chain(findings).cloned().collect()
    }

    /// Returns the sequence number of the last durable event.
    #[must_use]
    pub fn last_seq(&self) -> i64 {
        self.state.lock().last_seq
    }

    /// Announces that the service stops: wakes every waiting worker, and lets later waits return at once. Workers may deliver the
    /// remaining events until `until`.
    pub fn stop(&self, until: Instant) {
        self.state.lock().stop_at = Some(until);
        self.changed.notify_all();
        self.rest_over.notify_all();
    }

    /// Returns whether the service is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state.lock().stop_at.is_some()
    }

    /// Wakes the workers after a change by an operator: a replay was requested, or a sink was forgotten or replaced.
    pub fn wake(&self) {
        let mut state = self.state.lock();
        state.changes = state.changes.wrapping_add(1);
        self.changed.notify_all();
        self.rest_over.notify_all();
    }

    /// Waits until there are events after `seq`, an operator has made a change since `changes`, or the time is `until`. Returns
    /// the number of changes; `None` if the service is stopping and there are no such events, or its time for delivering has
    /// expired.
    pub fn wait(&self, seq: i64, changes: u64, until: Option<Instant>) -> Option<u64> {
        let mut state = self.state.lock();
        let is_time = || until.is_some_and(|until| until <= Instant::now());
        while state.last_seq <= seq && state.stop_at.is_none() && state.changes == changes && !is_time() {
            match until {
                None => self.changed.wait(&mut state),
                // `is_time` checks the timeout.
                Some(until) => drop(self.changed.wait_until(&mut state, until)),
            }
        }
        let goes_on = state.stop_at.is_none_or(|stop_at| state.last_seq > seq && Instant::now() < stop_at);
        goes_on.then_some(state.changes)
    }

    /// Waits until the time is `until`, the event with the number `enough_at` exists, the service is stopping, or an operator has
    /// made a change since `changes`. Groups before that event do not wake the caller.
    pub fn rest(&self, enough_at: i64, changes: u64, until: Instant) {
        let mut state = self.state.lock();
        while state.last_seq < enough_at && state.stop_at.is_none() && state.changes == changes {
            state.enough_at = state.enough_at.min(enough_at);
            if self.rest_over.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
    }

    /// Waits for the duration `pause`; shorter if the service is stopping, or an operator has made a change since `changes`.
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
        // None of these waits: an event that is there, an expired time, a change by an operator, a stop.
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

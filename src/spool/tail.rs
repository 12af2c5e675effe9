//! How far the spool is: workers wait here for more, and requests see here whether it works.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::reader::{MAX_BYTES, Stored};
use crate::record::Record;

/// The end of the spool.
#[derive(Debug)]
pub struct Tail {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes those who [`rest`](Self::rest): not with every commit, each of which would cost them a context switch.
    rest_over: Condvar,
}

#[derive(Debug)]
struct State {
    last_seq: i64,
    /// The last records, in the order of their numbers: at least those that are not in the database.
    fresh: VecDeque<(i64, Arc<Record>)>,
    /// Whether the database has all that was accepted and delivered.
    is_settled: bool,
    /// The least number at which the rest of one of those who rest is over; `i64::MAX` when nobody rests.
    enough_at: i64,
    /// Until when workers may go on, once the service stops.
    stop_at: Option<Instant>,
    trouble: Option<String>,
    /// What was found damaged.
    damage: Option<String>,
    /// How often an operator changed something that workers have to look at.
    changes: u64,
}

impl Tail {
    pub(super) fn new(last_seq: i64) -> Self {
        Self {
            state: Mutex::new(State {
                last_seq,
                fresh: VecDeque::new(),
                is_settled: true,
                enough_at: i64::MAX,
                stop_at: None,
                trouble: None,
                damage: None,
                changes: 0,
            }),
            changed: Condvar::new(),
            rest_over: Condvar::new(),
        }
    }

    pub(super) fn moved_to(&self, last_seq: i64) {
        self.move_to(self.state.lock(), last_seq);
    }

    fn move_to(&self, mut state: MutexGuard<'_, State>, last_seq: i64) {
        state.last_seq = last_seq;
        if state.enough_at <= last_seq {
            // Those who want more say so again.
            state.enough_at = i64::MAX;
            self.rest_over.notify_all();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Records were accepted, or cursors moved, that the database has yet to learn of.
    pub(super) fn noted(&self, records: impl Iterator<Item = (i64, Arc<Record>)>, last_seq: i64) {
        let mut state = self.state.lock();
        state.fresh.extend(records);
        state.is_settled = false;
        if state.last_seq != last_seq {
            self.move_to(state, last_seq);
        }
    }

    /// The database has everything up to a number.
    pub(super) fn settled(&self, up_to: i64, is_all: bool) {
        let mut state = self.state.lock();
        while state.fresh.front().is_some_and(|(seq, _)| *seq <= up_to) {
            state.fresh.pop_front();
        }
        state.is_settled = is_all;
    }

    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().is_settled
    }

    /// Up to `limit` records after a number, if the next one is in memory; otherwise the first number that is.
    pub(super) fn fresh(&self, after: i64, limit: usize) -> Result<Vec<Stored>, Option<i64>> {
        let state = self.state.lock();
        let Some((first, _)) = state.fresh.front() else { return Err(None) };
        let Some(skipped) = after.saturating_add(1).checked_sub(*first).and_then(|n| usize::try_from(n).ok())
        else {
            return Err(Some(*first));
        };
        let mut bytes = 0_usize;
        let records = state.fresh.iter().skip(skipped).take(limit).take_while(|(_, record)| {
            let is_within = bytes <= MAX_BYTES;
            bytes = bytes.saturating_add(record.body.len());
            is_within
        });
        Ok(records.map(|(seq, record)| Stored { seq: *seq, record: Ok(Arc::clone(record)) }).collect())
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.state.lock().trouble = trouble;
    }

    /// What is wrong with the spool, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }

    pub(super) fn set_damage(&self, damage: String) {
        self.state.lock().damage = Some(damage);
    }

    /// What was found damaged, though events can be stored.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.state.lock().damage.clone()
    }

    /// The number of the last record.
    #[must_use]
    pub fn last_seq(&self) -> i64 {
        self.state.lock().last_seq
    }

    /// The service stops: wakes everyone who waits, now and from now on. Workers may bring what is there to their sinks
    /// until then.
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

    /// Has the workers look: cursors were moved back, letters are to be delivered again, or a sink is another one now.
    pub fn wake(&self) {
        let mut state = self.state.lock();
        state.changes = state.changes.saturating_add(1);
        self.changed.notify_all();
        self.rest_over.notify_all();
    }

    /// Waits until there are records after `seq`, or an operator changed something since `changes`, or it is `until`.
    /// Gives how often an operator changed something; `None` when the service stops and there are no such records, or
    /// no time is left.
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

    /// Waits until it is `until`, or there is a record with the number `enough_at`, or the service stops, or an operator
    /// changed something since `changes`. Commits before that one wake nobody here.
    pub fn rest(&self, enough_at: i64, changes: u64, until: Instant) {
        let mut state = self.state.lock();
        while state.last_seq < enough_at && state.stop_at.is_none() && state.changes == changes {
            state.enough_at = state.enough_at.min(enough_at);
            if self.rest_over.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
    }

    /// Waits for as long as `pause`, or until the service stops, or workers have to look since `changes`.
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
                tail.moved_to(seq);
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
}

//! The times at which `send` sends events. Each worker waits here for its next turn. Without a rate, a turn is available at once
//! (closed loop). With a rate, each event has a planned time, which does not depend on the speed of the receiver (open loop).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// The longest sleep of the pacing thread, after which it checks whether it was stopped.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// The permission to send one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The number of the event, from 0.
    pub event: u64,
    /// The time at which the event should be sent; `None` for now.
    pub planned: Option<Instant>,
}

/// The source of turns for all workers.
#[derive(Debug)]
pub struct Turns {
    next: AtomicU64,
    count: u64,
    stopped: AtomicBool,
    schedule: Option<Schedule>,
}

/// The planned times of an open loop.
#[derive(Debug, Clone)]
struct Schedule {
    start: Instant,
    rate: f64,
    /// The permits for turns: one for each event that is due.
    due: Arc<Semaphore>,
}

impl Turns {
    /// Creates turns for `count` events, each available as soon as a worker is free.
    pub const fn at_once(count: u64) -> Self {
        Self { next: AtomicU64::new(0), count, stopped: AtomicBool::new(false), schedule: None }
    }

    /// Creates turns for `count` events, `rate` of them per second from now on, for `workers` workers.
    pub fn paced(count: u64, rate: f64, workers: usize) -> std::io::Result<Self> {
        let schedule = Schedule { start: Instant::now(), rate, due: Arc::new(Semaphore::new(0)) };
        let pacing = schedule.clone();
        // A thread, since the timer of the async runtime has a resolution of a millisecond, which is longer than a
        // receiver on the same machine takes for its response.
        thread::Builder::new().name("pace".to_owned()).spawn(move || pacing.run(count, workers))?;
        Ok(Self { schedule: Some(schedule), ..Self::at_once(count) })
    }

    /// Waits until the next turn is due, and returns it; `None` if there are no more.
    pub async fn next(&self) -> Option<Turn> {
        if let Some(schedule) = &self.schedule {
            schedule.due.acquire().await.ok()?.forget();
        }
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let event = self.next.fetch_add(1, Ordering::Relaxed);
        let planned = self.schedule.as_ref().and_then(|schedule| schedule.time_of(event));
        (event < self.count).then_some(Turn { event, planned })
    }

    /// Stops the turns: later calls of [`next`](Self::next) return `None`.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(schedule) = &self.schedule {
            schedule.due.close();
        }
    }
}

impl Schedule {
    /// Returns the planned time of the event with this number; `None` if it cannot be represented.
    fn time_of(&self, event: u64) -> Option<Instant> {
        #[expect(clippy::cast_precision_loss, reason = "2^52 events take longer than any run")]
        let after = event as f64 / self.rate;
        self.start.checked_add(Duration::try_from_secs_f64(after).ok()?)
    }

    /// Adds the permits at the planned times, and at the end one for each worker, so that no worker waits for ever.
    fn run(&self, count: u64, workers: usize) {
        let mut permitted: u64 = 0;
        while permitted < count && !self.due.is_closed() {
            let now = Instant::now();
            let mut due: usize = 0;
            let mut sleep = MAX_SLEEP;
            while permitted < count {
                match self.time_of(permitted).map(|time| time.saturating_duration_since(now)) {
                    Some(Duration::ZERO) => {
                        due = due.saturating_add(1);
                        permitted = permitted.saturating_add(1);
                    }
                    Some(left) => {
                        sleep = sleep.min(left);
                        break;
                    }
                    // Later than the clock can represent.
                    None => break,
                }
            }
            if due > 0 {
                self.due.add_permits(due);
            } else {
                thread::sleep(sleep);
            }
        }
        self.due.add_permits(workers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_event_has_one_turn() {
        let turns = Turns::at_once(3);
        for event in 0..3 {
            assert_eq!(turns.next().await, Some(Turn { event, planned: None }));
        }
        assert_eq!(turns.next().await, None);
        assert_eq!(turns.next().await, None);
    }

    #[tokio::test]
    async fn a_paced_turn_is_never_early() {
        let turns = Arc::new(Turns::paced(50, 1_000.0, 4).unwrap());
        let start = turns.schedule.as_ref().unwrap().start;
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let turns = Arc::clone(&turns);
            workers.spawn(async move {
                let mut events = Vec::new();
                while let Some(turn) = turns.next().await {
                    let planned = turn.planned.unwrap();
                    assert!(Instant::now() >= planned);
                    assert_eq!(planned.duration_since(start).as_millis(), u128::from(turn.event));
                    events.push(turn.event);
                }
                events
            });
        }
        let mut events: Vec<u64> = workers.join_all().await.concat();
        events.sort_unstable();
        assert_eq!(events, (0..50).collect::<Vec<_>>(), "and every worker ends");
    }

    #[tokio::test]
    async fn a_stop_wakes_waiting_workers() {
        let turns = Arc::new(Turns::paced(2, 0.000_1, 1).unwrap());
        assert!(turns.next().await.is_some());
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.next().await }
        });
        tokio::task::yield_now().await;
        turns.stop();
        assert_eq!(waiting.await.unwrap(), None);
    }
}

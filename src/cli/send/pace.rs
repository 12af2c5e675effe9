//! When `send` sends: each worker asks for its next turn here. Without a rate it is now (a closed loop); with a rate each
//! event has a planned time that does not move when the receiver is slow (an open loop).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// How long the pacemaker sleeps at most, so that it notices a stop.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// Leave to send one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// The event's number, from 0.
    pub(super) event: u64,
    /// When it should be sent; `None` for now.
    pub(super) planned: Option<Instant>,
}

/// Hands out turns.
#[derive(Debug)]
pub(super) struct Turns {
    next: AtomicU64,
    count: u64,
    stopped: AtomicBool,
    beat: Option<Beat>,
}

/// The plan of an open loop.
#[derive(Debug, Clone)]
struct Beat {
    start: Instant,
    rate: f64,
    /// One permit an event whose time has come.
    due: Arc<Semaphore>,
}

impl Turns {
    /// Turns for `count` events, each as soon as a worker is free.
    pub(super) const fn at_once(count: u64) -> Self {
        Self { next: AtomicU64::new(0), count, stopped: AtomicBool::new(false), beat: None }
    }

    /// Turns for `count` events, `rate` of them a second from now on, for `workers` workers.
    pub(super) fn paced(count: u64, rate: f64, workers: usize) -> std::io::Result<Self> {
        let beat = Beat { start: Instant::now(), rate, due: Arc::new(Semaphore::new(0)) };
        let pacemaker = beat.clone();
        // A thread of its own: the timer of the async runtime knows whole milliseconds only, which is more than a
        // receiver on the same machine takes for its answer.
        thread::Builder::new().name("pace".to_owned()).spawn(move || pacemaker.run(count, workers))?;
        Ok(Self { beat: Some(beat), ..Self::at_once(count) })
    }

    /// The next turn, when its time has come; `None` when there are no more.
    pub(super) async fn next(&self) -> Option<Turn> {
        if let Some(beat) = &self.beat {
            beat.due.acquire().await.ok()?.forget();
        }
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let event = self.next.fetch_add(1, Ordering::Relaxed);
        let planned = self.beat.as_ref().and_then(|beat| beat.time_of(event));
        (event < self.count).then_some(Turn { event, planned })
    }

    /// Hands out no more turns.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(beat) = &self.beat {
            beat.due.close();
        }
    }
}

impl Beat {
    fn time_of(&self, event: u64) -> Option<Instant> {
        #[expect(clippy::cast_precision_loss, reason = "2^52 events take longer than any run")]
        let after = event as f64 / self.rate;
        self.start.checked_add(Duration::try_from_secs_f64(after).ok()?)
    }

    /// Gives out the permits at their times, and in the end one to each worker that still waits.
    fn run(&self, count: u64, workers: usize) {
        let mut given: u64 = 0;
        while given < count && !self.due.is_closed() {
            let now = Instant::now();
            let mut due: usize = 0;
            let mut nap = LONGEST_NAP;
            while given < count {
                match self.time_of(given).map(|time| time.saturating_duration_since(now)) {
                    Some(Duration::ZERO) => {
                        due = due.saturating_add(1);
                        given = given.saturating_add(1);
                    }
                    Some(left) => {
                        nap = nap.min(left);
                        break;
                    }
                    // Further away than the clock can tell.
                    None => break,
                }
            }
            if due > 0 {
                self.due.add_permits(due);
            } else {
                thread::sleep(nap);
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
    async fn a_paced_turn_never_comes_before_its_time() {
        let turns = Arc::new(Turns::paced(50, 1_000.0, 4).unwrap());
        let start = turns.beat.as_ref().unwrap().start;
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
    async fn a_stop_wakes_those_who_wait() {
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

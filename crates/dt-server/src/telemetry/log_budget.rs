//! Limits how many log lines of a kind are written, whatever an attacker sends, and counts the suppressed ones.

use parking_lot::Mutex;

use crate::token_bucket::TokenBucket;

/// The budgets of all kinds of log lines that others can cause. Each kind has its own, so that none hides another.
#[derive(Debug)]
pub struct LogBudgets {
    /// Anybody who reaches the port can cause these.
    pub rejections: LogBudget,
    pub unavailable: LogBudget,
    pub dead_letters: LogBudget,
    pub failures: LogBudget,
    /// A client library may repeat itself without end.
    pub sink_libraries: LogBudget,
    pub connections: LogBudget,
    /// Anybody who reaches the port can cause these.
    pub handshakes: LogBudget,
    /// Signals can come at any rate.
    pub reloads: LogBudget,
}

impl LogBudgets {
    pub const fn new() -> Self {
        Self {
            rejections: LogBudget::new(10, 50),
            unavailable: LogBudget::new(1, 10),
            dead_letters: LogBudget::new(1, 10),
            failures: LogBudget::new(1, 10),
            sink_libraries: LogBudget::new(1, 10),
            connections: LogBudget::new(1, 10),
            handshakes: LogBudget::new(1, 10),
            reloads: LogBudget::new(1, 10),
        }
    }

    /// Returns each budget with what its lines are about.
    pub const fn all(&self) -> [(&'static str, &LogBudget); 8] {
        [
            ("refused requests", &self.rejections),
            ("requests answered 503", &self.unavailable),
            ("dead letters", &self.dead_letters),
            ("failures", &self.failures),
            ("client libraries of sinks", &self.sink_libraries),
            ("connections", &self.connections),
            ("handshakes and PROXY headers", &self.handshakes),
            ("reloads", &self.reloads),
        ]
    }
}

/// A budget of log lines: a rate, and a burst.
#[derive(Debug)]
pub struct LogBudget(Mutex<State>);

#[derive(Debug)]
struct State {
    bucket: TokenBucket,
    suppressed: u64,
}

impl LogBudget {
    const fn new(per_second: u32, burst: u32) -> Self {
        Self(Mutex::new(State { bucket: TokenBucket::new(per_second, burst), suppressed: 0 }))
    }

    /// Takes one line from the budget. Returns how many lines were suppressed since the last one, or `None` if this line is
    /// to be suppressed as well. `now_ms` is in Unix milliseconds.
    pub fn take(&self, now_ms: i64) -> Option<u64> {
        let mut state = self.0.lock();
        if state.bucket.take(now_ms) {
            Some(std::mem::take(&mut state.suppressed))
        } else {
            state.suppressed = state.suppressed.saturating_add(1);
            None
        }
    }

    /// Returns how many lines were suppressed and not reported yet. They count as reported then.
    pub fn take_suppressed(&self) -> u64 {
        std::mem::take(&mut self.0.lock().suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_reported_once() {
        let budget = LogBudget::new(2, 3);
        let passed = (0..10).filter(|_| budget.take(1_000).is_some()).count();
        assert_eq!(passed, 3);
        assert_eq!(budget.take(1_499), None);
        assert_eq!(budget.take(1_500), Some(8));
        assert_eq!(budget.take(1_500), None);
        assert_eq!((budget.take_suppressed(), budget.take_suppressed()), (1, 0));
        assert_eq!(budget.take(2_000), Some(0));
    }
}

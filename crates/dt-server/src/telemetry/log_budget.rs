//! Limits the number of log lines of each kind, whatever an attacker sends, and counts the suppressed ones.

use parking_lot::Mutex;

use crate::token_bucket::TokenBucket;

/// The budgets of all kinds of log lines that others can cause. Each kind has its own budget, so that no kind suppresses another.
#[derive(Debug)]
pub struct LogBudgets {
    /// Rejected requests. Any client that reaches the port can cause these lines.
    pub rejections: LogBudget,
    pub unavailable: LogBudget,
    pub dead_letters: LogBudget,
    pub failures: LogBudget,
    /// Messages of client libraries of sinks, which may repeat them endlessly.
    pub sink_libraries: LogBudget,
    pub connections: LogBudget,
    /// TLS handshakes and PROXY headers. Any client that reaches the port can cause these lines.
    pub handshakes: LogBudget,
    /// Reloads of the configuration. Signals can come at any rate.
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

    /// Returns each budget with the subject of its lines.
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

/// A budget of log lines, with a rate and a burst.
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

    /// Takes one line from the budget. Returns the number of lines that were suppressed since the last one; `None` if this line
    /// must be suppressed as well. `now_ms` is in Unix milliseconds.
    pub fn take(&self, now_ms: i64) -> Option<u64> {
        let mut state = self.0.lock();
        if state.bucket.take(now_ms) {
            Some(std::mem::take(&mut state.suppressed))
        } else {
            state.suppressed = state.suppressed.saturating_add(1);
            None
        }
    }

    /// Returns the number of lines that were suppressed and not reported yet. From then on they count as reported.
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

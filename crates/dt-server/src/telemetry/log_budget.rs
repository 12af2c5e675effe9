//! Bounds how many log lines of a kind are written, whatever an attacker sends, and counts what it holds back.

use parking_lot::Mutex;

use crate::token_bucket::TokenBucket;

/// A budget of log lines.
#[derive(Debug)]
pub(super) struct LogBudget(Mutex<State>);

#[derive(Debug)]
struct State {
    bucket: TokenBucket,
    suppressed: u64,
}

impl LogBudget {
    pub(super) const fn new(per_second: u32, burst: u32) -> Self {
        Self(Mutex::new(State { bucket: TokenBucket::new(per_second, burst), suppressed: 0 }))
    }

    /// Whether a line may be written at `now_ms`, and how many were held back since the last one.
    pub(super) fn take(&self, now_ms: i64) -> Option<u64> {
        let mut state = self.0.lock();
        if state.bucket.take(now_ms) {
            Some(std::mem::take(&mut state.suppressed))
        } else {
            state.suppressed = state.suppressed.saturating_add(1);
            None
        }
    }

    /// How many lines were held back and not told of yet; they count as told then.
    pub(super) fn take_suppressed(&self) -> u64 {
        std::mem::take(&mut self.0.lock().suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_told_once() {
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

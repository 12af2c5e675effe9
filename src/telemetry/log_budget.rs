//! Bounds how many log lines of a kind are written, whatever an attacker sends: a token bucket that counts what it
//! holds back.

use parking_lot::Mutex;

/// A bucket of log lines.
#[derive(Debug)]
pub(super) struct LogBudget {
    per_second: u32,
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Thousandths of a line.
    left: u64,
    refilled_at: i64,
    suppressed: u64,
}

impl LogBudget {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let left = u64::from(burst).saturating_mul(1000);
        Self { per_second, burst, state: Mutex::new(State { left, refilled_at: 0, suppressed: 0 }) }
    }

    /// Whether a line may be written at `now_ms`, and how many were held back since the last one.
    pub(super) fn take(&self, now_ms: i64) -> Option<u64> {
        let mut state = self.state.lock();
        let elapsed = u64::try_from(now_ms.saturating_sub(state.refilled_at)).unwrap_or(0);
        let full = u64::from(self.burst).saturating_mul(1000);
        let refilled = elapsed.saturating_mul(u64::from(self.per_second));
        state.left = state.left.saturating_add(refilled).min(full);
        state.refilled_at = now_ms;
        match state.left.checked_sub(1000) {
            Some(left) => {
                state.left = left;
                Some(std::mem::take(&mut state.suppressed))
            }
            None => {
                state.suppressed = state.suppressed.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_counted() {
        let budget = LogBudget::new(2, 3);
        let passed = (0..10).filter(|_| budget.take(1_000).is_some()).count();
        assert_eq!(passed, 3);
        assert_eq!(budget.take(1_499), None);
        assert_eq!(budget.take(1_500), Some(8));
        assert_eq!(budget.take(1_500), None);
    }

    #[test]
    fn a_clock_that_goes_back_neither_fills_nor_blocks_for_ever() {
        let budget = LogBudget::new(1, 1);
        assert!(budget.take(10_000).is_some());
        assert!(budget.take(0).is_none());
        assert!(budget.take(1_000).is_some());
    }
}

//! A token bucket, which limits a rate with a burst. The caller passes the time.

/// A budget of tokens that is refilled at a constant rate, up to the size of the burst.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// The number of remaining tokens, in thousandths.
    left: u64,
    /// The time of the last refill, in Unix milliseconds.
    refilled_at: i64,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, left: thousandths(burst), refilled_at: 0 }
    }

    /// Takes a token. Returns `false` if there is none. `now_ms` is in Unix milliseconds.
    pub fn take(&mut self, now_ms: i64) -> bool {
        self.refill(now_ms);
        let left = self.left.checked_sub(1000);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Returns a token that was taken.
    pub fn give_back(&mut self) {
        self.left = self.left.saturating_add(1000).min(thousandths(self.burst));
    }

    /// Returns whether there is a token. `now_ms` is in Unix milliseconds.
    pub fn has_any(&mut self, now_ms: i64) -> bool {
        self.refill(now_ms);
        self.left >= 1000
    }

    /// Returns whether the bucket is full. `now_ms` is in Unix milliseconds.
    pub fn is_full(&mut self, now_ms: i64) -> bool {
        self.refill(now_ms);
        self.left == thousandths(self.burst)
    }

    fn refill(&mut self, now_ms: i64) {
        // A clock that was set back adds no tokens.
        let elapsed = u64::try_from(now_ms.saturating_sub(self.refilled_at)).unwrap_or(0);
        let refilled = elapsed.saturating_mul(u64::from(self.per_second));
        self.left = self.left.saturating_add(refilled).min(thousandths(self.burst));
        self.refilled_at = now_ms;
    }
}

#[expect(clippy::arithmetic_side_effects, reason = "a u32 times 1000 fits into a u64")]
const fn thousandths(tokens: u32) -> u64 {
    tokens as u64 * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut bucket = TokenBucket::new(2, 3);
        assert!(bucket.is_full(1_000));
        assert_eq!((0..10).filter(|_| bucket.take(1_000)).count(), 3);
        assert!(!bucket.has_any(1_499) && !bucket.take(1_499));
        assert!(bucket.has_any(1_500) && bucket.take(1_500));
        assert!(!bucket.take(1_500) && !bucket.is_full(2_500));
        assert!(bucket.is_full(3_000));
        assert_eq!((0..10).filter(|_| bucket.take(i64::MAX)).count(), 3);
    }

    #[test]
    fn a_clock_that_goes_back_neither_fills_nor_blocks_for_ever() {
        let mut bucket = TokenBucket::new(1, 1);
        assert!(bucket.take(10_000));
        assert!(!bucket.take(0));
        assert!(bucket.take(1_000));
    }
}

//! Computes how long a worker waits before it retries a sink: exponential back-off with jitter, within bounds.

use std::time::Duration;

/// Computes pauses between `least` and `most`, which double with every failed attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    /// The state of a xorshift generator of random numbers. The jitter prevents several sinks from retrying at the same moment.
    jitter: u64,
}

/// The error for invalid bounds of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shortest wait must be over 0 and not over the longest")]
pub struct BadBackoff;

impl Backoff {
    /// Creates a back-off with these bounds. `seed` is the seed of the jitter.
    ///
    /// # Errors
    ///
    /// [`BadBackoff`] unless 0 < `least` <= `most`.
    pub const fn new(least: Duration, most: Duration, seed: u64) -> Result<Self, BadBackoff> {
        if least.is_zero() || least.as_nanos() > most.as_nanos() {
            return Err(BadBackoff);
        }
        // A xorshift generator that starts at 0 returns only zeros.
        Ok(Self { least, most, jitter: seed | 1 })
    }

    /// Returns the pause after `attempts` failed attempts. Half of it is fixed and half of it is jitter.
    pub fn pause(&mut self, attempts: u32) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let doubled = self.least.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(20)));
        let full = doubled.min(self.most);
        // The jitter, in thousandths of the half.
        let share = u32::try_from(self.jitter % 1001).unwrap_or(0);
        let part = |whole: Duration, of: u32| whole.checked_div(of).unwrap_or_default();
        let half = part(full, 2);
        half.saturating_add(part(half, 1000).saturating_mul(share)).max(part(self.least, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_that_make_no_sense_are_refused() {
        let (zero, one, two) = (Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2));
        assert!(Backoff::new(zero, one, 1).is_err());
        assert!(Backoff::new(two, one, 1).is_err());
        assert!(Backoff::new(one, one, 0).is_ok());
    }

    proptest! {
        #[test]
        fn a_pause_keeps_its_bounds_and_grows(seed: u64, attempts in 1_u32..200) {
            let (least, most) = (Duration::from_millis(100), Duration::from_secs(60));
            let mut backoff = Backoff::new(least, most, seed).expect("good bounds");
            let pause = backoff.pause(attempts);
            let half = |whole: Duration| whole.checked_div(2).unwrap_or_default();
            prop_assert!(pause >= half(least) && pause <= most);
            if attempts > 11 {
                prop_assert!(pause >= half(most));
            }
        }
    }
}

//! The emulated clock: it starts at the machine's time and can run faster, so that a test can emulate days in seconds.
//!
//! Events, back-off, retention, auto-disabling and heartbeats use it. The tokens of deliveries, access tokens and the timeout of
//! a response use the machine's clock, since receivers and clients check them against their own clock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The largest factor by which the emulated clock is faster than the system clock: a year takes five minutes.
pub const MAX_TIME_SCALE: u32 = 100_000;

/// The machine's clock, as a function that returns Unix milliseconds.
#[derive(Clone)]
pub(crate) struct WallClock(pub Arc<dyn Fn() -> i64 + Send + Sync>);

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WallClock({} ms)", self.unix_millis())
    }
}

impl WallClock {
    /// Returns the clock of the operating system.
    pub(crate) fn system() -> Self {
        // A clock before 1970 or after the year 292 million reads as its nearest edge.
        let since = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(move || i64::try_from(since().as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time in Unix milliseconds.
    pub(crate) fn unix_millis(&self) -> i64 {
        (self.0)()
    }

    /// Returns the time in whole Unix seconds.
    pub(crate) fn unix_seconds(&self) -> i64 {
        self.unix_millis().div_euclid(1000)
    }
}

/// A clock that runs `scale` times as fast as the system clock. It uses tokio's time, so that a test can pause it.
#[derive(Clone)]
pub(crate) struct EmulatedTime {
    origin: Instant,
    epoch_micros: i64,
    scale: u32,
}

impl fmt::Debug for EmulatedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmulatedTime({} ms, {} times)", self.now_millis(), self.scale)
    }
}

impl EmulatedTime {
    /// Returns a clock whose time is `unix_millis` now.
    pub(crate) fn new(unix_millis: i64, scale: u32) -> Self {
        let epoch_micros = unix_millis.saturating_mul(1_000);
        Self { origin: Instant::now(), epoch_micros, scale: scale.clamp(1, MAX_TIME_SCALE) }
    }

    /// Returns the time in Unix microseconds.
    pub(crate) fn now_micros(&self) -> i64 {
        let passed = self.origin.elapsed().as_nanos().saturating_mul(u128::from(self.scale));
        let micros = i64::try_from(passed.checked_div(1_000).unwrap_or(0)).unwrap_or(i64::MAX);
        self.epoch_micros.saturating_add(micros)
    }

    /// Returns the time in Unix milliseconds.
    pub(crate) fn now_millis(&self) -> i64 {
        self.now_micros().div_euclid(1_000)
    }

    /// Waits until the clock shows `unix_millis` or more; for ever if it is `None`.
    pub(crate) async fn sleep_until(&self, unix_millis: Option<i64>) {
        let at = unix_millis.and_then(|millis| self.origin.checked_add(self.real_since_origin(millis)));
        match at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the real time from the start of the clock until its time is `unix_millis`.
    fn real_since_origin(&self, unix_millis: i64) -> Duration {
        let micros = unix_millis.saturating_mul(1_000).saturating_sub(self.epoch_micros);
        let nanos = u64::try_from(micros).unwrap_or(0).saturating_mul(1_000);
        Duration::from_nanos(nanos.div_ceil(u64::from(self.scale)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn days_pass_in_seconds() {
        let time = EmulatedTime::new(1_000, 86_400);
        assert_eq!(time.now_millis(), 1_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(time.now_millis(), 1_000 + 5 * 86_400_000);
    }

    #[tokio::test(start_paused = true)]
    async fn sleeping_ends_when_the_clock_says_so() {
        let time = EmulatedTime::new(0, 60);
        time.sleep_until(Some(3_600_000)).await;
        assert_eq!(time.now_millis(), 3_600_000);
        time.sleep_until(Some(5)).await;
        assert_eq!(time.now_millis(), 3_600_000, "the past is now");
    }

    #[test]
    fn extremes_do_not_overflow() {
        for millis in [i64::MIN, -1, 0, i64::MAX] {
            let time = EmulatedTime::new(millis, u32::MAX);
            let _now =
                (time.now_micros(), time.real_since_origin(i64::MAX), time.real_since_origin(i64::MIN));
        }
    }
}

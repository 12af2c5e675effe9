//! The largest rate of requests: the attempts of all calls start at a fixed distance or a larger one.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Spaces attempts. All clones of a client share it.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// When the next attempt may start.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Creates a pace of `rate` attempts a second; `None` if `rate` is 0.
    pub fn new(rate: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(rate)?;
        Some(Self { interval, next: Mutex::new(None) })
    }

    /// Waits until an attempt may start. Callers start in the order in which they call.
    pub async fn wait(&self) {
        let start = {
            let mut next = self.next.lock().await;
            let now = Instant::now();
            let start = next.map_or(now, |next| next.max(now));
            *next = start.checked_add(self.interval);
            start
        };
        tokio::time::sleep_until(start).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_are_spaced_and_a_pause_allows_no_burst() {
        let (pace, started) = (Pace::new(5).expect("a rate"), Instant::now());
        let at = async || {
            pace.wait().await;
            started.elapsed().as_millis()
        };
        assert_eq!([at().await, at().await, at().await], [0, 200, 400]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!([at().await, at().await], [10_400, 10_600]);
        let (first, second, third) = tokio::join!(at(), at(), at());
        assert_eq!([first, second, third], [10_800, 11_000, 11_200]);
        assert!(Pace::new(0).is_none());
    }
}

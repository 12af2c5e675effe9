//! A clock that is many times as fast as the machine's.

use std::time::Instant;

use dt_receiver::clock::Clock;

/// The time at which each clock starts, in Unix milliseconds: 2026-03-02T00:00:00Z.
pub(crate) const START: i64 = 1_772_409_600_000;

/// An hour and a day, in milliseconds.
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A clock that starts at [`START`] and runs `scale` times as fast as the machine's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastClock {
    began: Instant,
    scale: u32,
}

impl FastClock {
    pub(crate) fn new(scale: u32) -> Self {
        Self { began: Instant::now(), scale }
    }
}

impl Clock for FastClock {
    fn unix_millis(&self) -> i64 {
        let micros = self.began.elapsed().as_micros() * u128::from(self.scale);
        START + i64::try_from(micros / 1_000).expect("a time of this millennium")
    }
}

#[test]
fn a_day_is_ten_seconds() {
    let clock = FastClock::new(8_640);
    let (before, began) = (clock.unix_millis(), Instant::now());
    while began.elapsed().as_millis() < 20 {
        std::thread::yield_now();
    }
    let passed = clock.unix_millis() - before;
    let at_most = i64::try_from(began.elapsed().as_millis()).expect("short") + 2;
    assert!(before >= START && (20 * 8_640..=at_most * 8_640).contains(&passed), "{passed}");
}

//! A clock that is many times as fast as the machine's.

use std::time::Instant;

use dt_sink::clock::Clock;

/// The time at which each clock starts, in Unix milliseconds: 2026-03-02T00:00:00Z.
const START: i64 = 1_772_409_600_000;

/// A minute, an hour and a day, in milliseconds.
pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A clock that runs `scale` times as fast as the machine's.
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

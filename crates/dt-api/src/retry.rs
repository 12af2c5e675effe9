//! The pauses between the attempts of a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// The first pause, before jitter. The pause doubles with each attempt.
const LEAST: Duration = Duration::from_millis(500);
/// The longest pause, unless DT requests a longer one.
const MOST: Duration = Duration::from_secs(30);
/// The largest value of `Retry-After` that is accepted; a larger one is reduced to it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Computes the pauses between attempts. They grow exponentially; half of a pause is fixed and half of it is jitter, so that
/// several clients do not repeat their requests at the same moment.
#[derive(Debug)]
pub struct Backoff(AtomicU64);

impl Backoff {
    /// Creates a back-off whose jitter has this seed.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns the pause after `attempts` failed attempts.
    pub fn pause(&self, attempts: u32) -> Duration {
        let doubled = LEAST.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(20)));
        let half = doubled.min(MOST).checked_div(2).unwrap_or_default();
        // SplitMix64: well distributed from any seed, and a single atomic step.
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random ^= random >> 27;
        let share = u32::try_from(random % 1001).unwrap_or_default();
        half.saturating_add(half.checked_div(1000).unwrap_or_default().saturating_mul(share))
    }
}

/// Returns how long a response requests to wait (`Retry-After`, RFC 9110, section 10.2.3: seconds or a date), at most an hour.
/// `None` without a valid `Retry-After`. A date is compared with the response's own `Date`, since the system clock may be wrong;
/// if that is absent, with `now`, in Unix milliseconds.
pub fn retry_after(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = headers.get(DATE).and_then(|date| unix_time(date.to_str().ok()?));
            let here = || u64::try_from(now).ok().map(Duration::from_millis);
            unix_time(text)?.saturating_sub(date.or_else(here)?)
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Returns the time of an HTTP date since 1970-01-01T00:00:00Z; `None` if the text is not an HTTP date.
pub fn unix_time(date: &str) -> Option<Duration> {
    httpdate::parse_http_date(date).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let now = 784_111_777_000;
        for (text, wait) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("99999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:00 GMT", Some(23)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let headers = [(RETRY_AFTER, text.parse().expect("a value"))].into_iter().collect();
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        let dates = [(DATE, "Sun, 06 Nov 1994 08:49:37 GMT"), (RETRY_AFTER, "Sun, 06 Nov 1994 08:50:00 GMT")];
        let headers = dates.into_iter().map(|(name, date)| (name, date.parse().expect("a value"))).collect();
        assert_eq!(retry_after(&headers, 0), Some(Duration::from_secs(23)), "by DT's clock");
    }

    proptest! {
        #[test]
        fn a_pause_keeps_its_bounds_and_grows(seed: u64, attempts in 1_u32..100) {
            let pause = Backoff::new(seed).pause(attempts);
            prop_assert!(pause >= Duration::from_millis(250) && pause <= MOST);
            prop_assert!(attempts < 8 || pause >= Duration::from_secs(15));
        }
    }

    #[test]
    fn pauses_differ() {
        let backoff = Backoff::new(0);
        let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| backoff.pause(5)).collect();
        assert!(pauses.len() > 50, "{pauses:?}");
    }
}

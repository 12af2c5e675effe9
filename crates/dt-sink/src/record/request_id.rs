//! The id of a request: a short text in its log line, its answer (`X-Request-Id`), the stored data, and the sinks' output.
//! The receiver always creates it and ignores a client's own id, so no client can write text into the logs; a proxy can log
//! the header of the answer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// The digits of an id, in ascending order of their characters, so that the ids of one process sort by age.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// The number of digits that identify the process (60 bits).
const PREFIX: usize = 12;
/// The number of characters of an id.
const LENGTH: usize = 20;

/// The id of a request: 20 digits and letters, such as `5q1vpkd0sfmn00000042`. The first 12 are random for each process, the
/// others count the requests of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId([u8; LENGTH]);

impl RequestId {
    /// Returns the id as text.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        // All digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the id as the value of the header `X-Request-Id`.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        // All digits are valid in a header.
        HeaderValue::from_bytes(&self.0).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a text that is not a request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a request id: expected {LENGTH} of the characters 0-9 and a-v")]
pub struct NotARequestId;

impl FromStr for RequestId {
    type Err = NotARequestId;

    fn from_str(text: &str) -> Result<Self, NotARequestId> {
        let id: [u8; LENGTH] = text.as_bytes().try_into().map_err(|_| NotARequestId)?;
        if id.iter().all(|byte| DIGITS.contains(byte)) { Ok(Self(id)) } else { Err(NotARequestId) }
    }
}

/// Generates the request ids of a process.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; PREFIX],
    count: AtomicU64,
}

impl RequestIds {
    /// Returns a generator whose ids begin with the last 60 bits of `process`.
    ///
    /// # Examples
    ///
    /// ```
    /// let ids = dt_sink::record::RequestIds::new(1);
    /// assert_eq!(ids.next().as_str(), "00000000000100000000");
    /// assert_eq!(ids.next().as_str(), "00000000000100000001");
    /// ```
    #[must_use]
    pub fn new(process: u64) -> Self {
        Self { prefix: digits(process), count: AtomicU64::new(0) }
    }

    /// Returns a generator with random bits for this process. The random state of the standard library is sufficient: ids must
    /// differ, but are not secret.
    #[must_use]
    pub fn random() -> Self {
        Self::new(RandomState::new().hash_one(std::process::id()))
    }

    /// Returns the next id. Ids repeat after 10^12 requests.
    pub fn next(&self) -> RequestId {
        let count: [u8; LENGTH - PREFIX] = digits(self.count.fetch_add(1, Ordering::Relaxed));
        let mut id = [0; LENGTH];
        for (place, digit) in id.iter_mut().zip(self.prefix.iter().chain(&count)) {
            *place = *digit;
        }
        RequestId(id)
    }
}

/// Returns the last `N` digits of a number, in base 32.
fn digits<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        // Below 32, so it always fits.
        let value = usize::try_from(number % 32).unwrap_or_default();
        *digit = DIGITS.get(value).copied().unwrap_or(b'0');
        number /= 32;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_sort_and_read_back() {
        let ids = RequestIds::new(u64::MAX);
        let mut last = ids.next();
        assert_eq!(last.as_str(), "vvvvvvvvvvvv00000000");
        for _ in 0..100 {
            let next = ids.next();
            assert!(next > last, "{next} after {last}");
            assert_eq!(next.as_str().parse(), Ok(next));
            assert_eq!(next.header_value(), next.as_str());
            last = next;
        }
        assert_ne!(RequestIds::random().next(), RequestIds::random().next());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "0",
            "0000000000010000000",
            "000000000001000000000",
            "0000000000010000000W",
            "00000000000100000\u{fc}0",
        ] {
            assert_eq!(text.parse::<RequestId>(), Err(NotARequestId), "{text:?}");
        }
    }
}

//! Times in events: RFC 3339 in UTC, with six digits of a second today and nine in 2018.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::rfc3339::{rfc3339_micros, saturating};

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A time as it was received: its text, and the instant that it names.
///
/// A text that is not RFC 3339 has no [`instant`](Self::instant). Times compare by their instants; those without one compare by
/// their texts, and are less than all others. [`Display`](fmt::Display) writes the text as it was received.
///
/// # Examples
///
/// ```
/// use dt_verify::event::Timestamp;
///
/// let time = Timestamp::new("2022-02-10T11:22:13.123456Z");
/// assert_eq!((time.unix_seconds(), time.subsec_nanos()), (Some(1_644_492_133), Some(123_456_000)));
/// assert_eq!(time.to_string(), "2022-02-10T11:22:13.123456Z");
/// assert!(time > Timestamp::new("2022-02-10T11:22:13Z"));
///
/// assert_eq!(Timestamp::new("yesterday").unix_seconds(), None);
/// ```
#[derive(Debug, Clone)]
pub struct Timestamp {
    text: String,
    instant: Option<jiff::Timestamp>,
}

impl Timestamp {
    /// Creates a time from a text. Digits of a second after the ninth are ignored.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { instant: instant_of(&text), text }
    }

    /// Returns the time `nanos` nanoseconds after `seconds`, in Unix time. A time that [`jiff::Timestamp`] cannot hold becomes
    /// the nearest one that it can. The text has as many digits of a second as necessary.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_verify::event::Timestamp;
    ///
    /// assert_eq!(Timestamp::from_unix(-1, 500_000_000).as_str(), "1969-12-31T23:59:59.5Z");
    /// ```
    #[must_use]
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        // No overflow: 2^63 times 2^30 is far below 2^127.
        let since_epoch =
            i128::from(seconds).saturating_mul(NANOS_PER_SECOND).saturating_add(i128::from(nanos));
        let instant = saturating(jiff::Timestamp::from_nanosecond(since_epoch), seconds < 0);
        Self { text: instant.to_string(), instant: Some(instant) }
    }

    /// Returns a time in Unix microseconds, with the six digits of a second that DT writes today. A time that [`jiff::Timestamp`]
    /// cannot hold becomes the nearest one that it can.
    #[must_use]
    pub fn from_unix_micros(unix_micros: i64) -> Self {
        let instant = saturating(jiff::Timestamp::from_microsecond(unix_micros), unix_micros < 0);
        Self { text: rfc3339_micros(unix_micros), instant: Some(instant) }
    }

    /// Returns the text as it was received.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the instant; `None` if the text is not RFC 3339.
    #[must_use]
    pub const fn instant(&self) -> Option<jiff::Timestamp> {
        self.instant
    }

    /// Returns the nanoseconds since 1970-01-01T00:00:00Z, negative before; `None` if the text is not RFC 3339. All times until
    /// 2262 fit into 64 bits.
    #[must_use]
    pub fn unix_nanos(&self) -> Option<i128> {
        self.instant.map(jiff::Timestamp::as_nanosecond)
    }

    /// Returns the seconds since 1970-01-01T00:00:00Z, rounded down; `None` if the text is not RFC 3339.
    #[must_use]
    pub fn unix_seconds(&self) -> Option<i64> {
        i64::try_from(self.instant?.as_nanosecond().div_euclid(NANOS_PER_SECOND)).ok()
    }

    /// Returns the nanoseconds since the start of the second that [`unix_seconds`](Self::unix_seconds) returns; `None` if the
    /// text is not RFC 3339.
    #[must_use]
    pub fn subsec_nanos(&self) -> Option<u32> {
        u32::try_from(self.instant?.as_nanosecond().rem_euclid(NANOS_PER_SECOND)).ok()
    }
}

impl From<&str> for Timestamp {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        self.instant.cmp(&other.instant).then_with(|| match self.instant {
            Some(_) => Ordering::Equal,
            None => self.text.cmp(&other.text),
        })
    }
}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timestamp {}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.instant {
            Some(instant) => instant.hash(state),
            None => self.text.hash(state),
        }
    }
}

/// Parses RFC 3339, section 5.6; `None` for any other text. jiff's own parser accepts other notations too, but not more than
/// nine digits of a second.
fn instant_of(text: &str) -> Option<jiff::Timestamp> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?,
        None => ("0", rest),
    };
    let utc = offset.eq_ignore_ascii_case("Z");
    if !is_like(date_time, "0000-00-00T00:00:00")
        || fraction.is_empty()
        || !(utc || is_like(offset, "+00:00"))
    {
        return None;
    }
    let nanos = fraction.get(..9).unwrap_or(fraction);
    format!("{date_time}.{nanos}{offset}").parse().ok()
}

/// Returns whether a text matches a pattern: a digit where the pattern has `0`, a sign where it has `+`, and otherwise the same
/// character.
fn is_like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            b'+' => matches!(byte, b'+' | b'-'),
            _ => byte.eq_ignore_ascii_case(&wanted),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_any_length_are_read() {
        for (fraction, nanos) in [
            ("", 0),
            (".1", 100_000_000),
            (".123456", 123_456_000),
            (".123456789", 123_456_789),
            (".1234567899999999", 123_456_789),
        ] {
            let text = format!("2018-05-16T08:07:06{fraction}Z");
            let time = Timestamp::new(text.clone());
            assert_eq!(time.unix_seconds(), Some(1_526_458_026), "{text}");
            assert_eq!(time.subsec_nanos(), Some(nanos), "{text}");
            assert_eq!(time.to_string(), text);
        }
    }

    #[test]
    fn spellings_of_one_instant_are_equal() {
        let utc = Timestamp::new("2024-01-01T00:00:00Z");
        for text in ["2024-01-01t00:00:00.000z", "2024-01-01T01:30:00+01:30", "2023-12-31T23:00:00.0-01:00"] {
            assert_eq!(Timestamp::new(text), utc, "{text}");
        }
        assert_eq!(Timestamp::new("2016-12-31T23:59:60Z").unix_seconds(), Some(1_483_228_799));
    }

    #[test]
    fn other_texts_are_kept_without_an_instant() {
        for text in [
            "",
            "now",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00Z[UTC]",
            "2024-01-01T00:00:00+01",
            "2024-01-01T00:00:00.5",
            "2024-02-30T00:00:00Z",
            "2024-01-01T00:00:0éZ",
            "+02024-01-01T00:00:00Z",
        ] {
            let time = Timestamp::new(text);
            assert_eq!((time.instant(), time.as_str()), (None, text));
            assert!(time < Timestamp::from_unix(i64::MIN, 0));
            assert_eq!(time.unix_seconds(), None);
        }
        assert_ne!(Timestamp::new("a"), Timestamp::new("b"));
    }

    #[test]
    fn unix_times_are_written_and_saturate() {
        assert_eq!(Timestamp::from_unix(0, 0).as_str(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_unix(0, u32::MAX).unix_seconds(), Some(4));
        assert_eq!(Timestamp::from_unix(i64::MAX, 0).instant(), Some(jiff::Timestamp::MAX));
        assert_eq!(Timestamp::from_unix(i64::MIN, 0).instant(), Some(jiff::Timestamp::MIN));
        let before = Timestamp::from_unix(-1, 250_000_000);
        assert_eq!((before.unix_seconds(), before.subsec_nanos()), (Some(-1), Some(250_000_000)));
        assert_eq!(Timestamp::new(before.as_str()), before);
    }
}

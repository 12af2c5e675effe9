//! Formats times as RFC 3339 in UTC. [`event`](crate::event) re-exports it.

use jiff::Timestamp;
use jiff::tz::Offset;

/// Formats a time in Unix seconds, without a fraction. A time that [`jiff::Timestamp`] cannot hold becomes a plain number.
///
/// # Examples
///
/// ```
/// use dt_verify::event::rfc3339_seconds;
///
/// assert_eq!(rfc3339_seconds(1_644_492_133), "2022-02-10T11:22:13Z");
/// assert_eq!(rfc3339_seconds(i64::MAX), "9223372036854775807");
/// ```
#[must_use]
pub fn rfc3339_seconds(unix_seconds: i64) -> String {
    Timestamp::from_second(unix_seconds).map_or_else(|_| unix_seconds.to_string(), |time| time.to_string())
}

/// Formats a time in Unix milliseconds, with three digits of a second.
///
/// Times that [`jiff::Timestamp`] cannot hold become the first or the last that it can.
///
/// # Examples
///
/// ```
/// use dt_verify::event::rfc3339_millis;
///
/// assert_eq!(rfc3339_millis(1_644_492_133_120), "2022-02-10T11:22:13.120Z");
/// ```
#[must_use]
pub fn rfc3339_millis(unix_millis: i64) -> String {
    format!("{:.3}", saturating(Timestamp::from_millisecond(unix_millis), unix_millis < 0))
}

/// Formats a time in Unix microseconds, with six digits of a second, as DT does.
///
/// Times that [`jiff::Timestamp`] cannot hold become the first or the last that it can.
///
/// # Examples
///
/// ```
/// use dt_verify::event::rfc3339_micros;
///
/// assert_eq!(rfc3339_micros(1_644_492_133_123_456), "2022-02-10T11:22:13.123456Z");
/// ```
#[must_use]
pub fn rfc3339_micros(unix_micros: i64) -> String {
    format!("{:.6}", saturating(Timestamp::from_microsecond(unix_micros), unix_micros < 0))
}

/// Appends the text that [`rfc3339_millis`] returns, without its formatting machinery: every record that a sink writes has such a
/// time.
#[inline]
pub fn append_rfc3339_millis(unix_millis: i64, out: &mut Vec<u8>) {
    let instant = Timestamp::from_millisecond(unix_millis).ok();
    let time = instant.map(|instant| Offset::UTC.to_datetime(instant)).filter(|time| time.year() >= 0);
    let Some(time) = time else {
        // Before our era, or beyond what jiff can hold.
        out.extend_from_slice(rfc3339_millis(unix_millis).as_bytes());
        return;
    };
    // A digit's value is below 10, always.
    let digit = |number: i16| u8::try_from(number % 10).map_or(b'0', |value| b'0'.saturating_add(value));
    let two = |number: i8| [digit(i16::from(number) / 10), digit(i16::from(number))];
    let year = time.year();
    let [year_1, year_2, year_3, year_4] = [year / 1000, year / 100, year / 10, year].map(digit);
    let [month_1, month_2] = two(time.month());
    let [day_1, day_2] = two(time.day());
    let [hour_1, hour_2] = two(time.hour());
    let [minute_1, minute_2] = two(time.minute());
    let [second_1, second_2] = two(time.second());
    let milli = time.millisecond();
    let [milli_1, milli_2, milli_3] = [milli / 100, milli / 10, milli].map(digit);
    out.extend_from_slice(&[
        year_1, year_2, year_3, year_4, b'-', month_1, month_2, b'-', day_1, day_2, b'T', hour_1, hour_2,
        b':', minute_1, minute_2, b':', second_1, second_2, b'.', milli_1, milli_2, milli_3, b'Z',
    ]);
}

/// Returns the instant. In place of one that [`jiff::Timestamp`] cannot hold, returns the earliest that it can hold if it is
/// before 1970, and otherwise the latest.
pub(crate) fn saturating(instant: Result<Timestamp, jiff::Error>, before_1970: bool) -> Timestamp {
    instant.unwrap_or(if before_1970 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_always_have_three_digits() {
        assert_eq!(rfc3339_millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_millis(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_millis(i64::MAX), "9999-12-30T22:00:00.999Z");
        assert!(rfc3339_millis(i64::MIN).ends_with('Z'));
        assert_eq!(rfc3339_millis(-62_167_219_200_001), "-000001-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_micros(1), "1970-01-01T00:00:00.000001Z");
    }

    #[test]
    fn appended_times_are_those_of_jiff() {
        let appended = |millis| {
            let mut out = Vec::new();
            append_rfc3339_millis(millis, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(appended(1_644_492_133_120), "2022-02-10T11:22:13.120Z");
        let odd = [i64::MIN, -62_167_219_200_001, -62_167_219_200_000, -1, 0, 253_402_207_200_000, i64::MAX];
        // Steps of 114 days and some, over all that jiff can hold.
        let all = (-377_705_023_201_000..=253_402_207_200_999).step_by(9_876_543_211);
        for millis in odd.into_iter().chain(all) {
            assert_eq!(appended(millis), rfc3339_millis(millis));
        }
    }
}

//! Parses and formats times and durations in options and messages.

use std::time::Duration;

use dt_server::config::read_duration;
use dt_sink::clock::{Clock, SystemClock};
use dt_verify::event::Timestamp;

/// Why a text is not the expected time or duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("expected RFC 3339 such as 2026-01-31T12:00:00Z, or a number of Unix seconds")]
    Instant,
    #[error("expected a time such as 2026-03-01T08:00:00Z, or a time ago such as 2h or 1d")]
    InstantOrAgo,
    #[error(
        "expected a date such as 2026-03-01 (UTC), a time such as 2026-03-01T08:00:00Z, or a time ago such as 2h or 1d"
    )]
    DateOrAgo,
    #[error("expected a duration such as 1d, 1h, 15m or 90s")]
    Length,
    #[error("expected a duration such as 15m, 10s or 500ms")]
    Interval,
    #[error("expected a duration such as 5s or 500ms, or 0")]
    DurationOrZero,
}

/// Parses a time in RFC 3339 or Unix seconds (as in tokens), and returns it in Unix seconds.
pub fn parse_instant(text: &str) -> Result<i64, TimeError> {
    Timestamp::new(text).unix_seconds().or_else(|| text.parse().ok()).ok_or(TimeError::Instant)
}

/// Parses a duration such as `1h`, `90s` or `90`, and returns it in seconds.
pub fn parse_length(text: &str) -> Result<i64, TimeError> {
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => read_duration(text).and_then(|length| i64::try_from(length.as_secs()).ok()),
    };
    seconds.filter(|seconds| *seconds >= 0).ok_or(TimeError::Length)
}

/// Parses a time in RFC 3339, or the time since then, such as `2h`, and returns it in Unix milliseconds.
pub fn since(text: &str) -> Result<i64, TimeError> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Ok(instant.as_millisecond());
    }
    let ago = read_duration(text).ok_or(TimeError::InstantOrAgo)?;
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(SystemClock.unix_millis().saturating_sub(ago))
}

/// Parses a date (its first moment in UTC), a time in RFC 3339, or the time since then, and returns it in Unix milliseconds.
pub fn date_or_since(text: &str) -> Result<i64, TimeError> {
    let is_date = text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2026-03-01".len();
    let time = if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() };
    since(&time).map_err(|_| TimeError::DateOrAgo)
}

/// Parses a duration such as `5s`, or 0.
pub fn parse_duration(text: &str) -> Result<Duration, TimeError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    read_duration(text).ok_or(TimeError::DurationOrZero)
}

/// Parses a duration of at least a millisecond.
pub fn parse_interval(text: &str) -> Result<Duration, TimeError> {
    read_duration(text).filter(|length| length.as_millis() > 0).ok_or(TimeError::Interval)
}

/// Formats the time since a time in Unix milliseconds, in its largest unit.
pub fn ago(unix_millis: i64) -> String {
    let seconds = SystemClock.unix_millis().saturating_sub(unix_millis).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats a number of seconds in its largest one or two units, such as "5 minutes 5 seconds".
pub fn in_words(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (length, unit) in UNITS {
        let count = rest.checked_div(length).unwrap_or(0);
        rest = rest.checked_rem(length).unwrap_or(0);
        match count {
            // Only consecutive units: not "3 days 20 seconds".
            0 if !words.is_empty() => break,
            0 => {}
            1 => words.push(format!("1 {unit}")),
            _ => words.push(format!("{count} {unit}s")),
        }
        if words.len() == 2 {
            break;
        }
    }
    if words.is_empty() { "0 seconds".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read_in_both_notations() {
        assert_eq!(parse_instant("2022-02-10T11:22:13Z"), Ok(1_644_492_133));
        assert_eq!(parse_instant("1644492133"), Ok(1_644_492_133));
        for wrong in ["", "yesterday", "2022-02-10", "2022-02-10 11:22:13", "1.5"] {
            assert!(parse_instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lengths_are_read_and_never_negative() {
        assert_eq!(parse_length("1h"), Ok(3600));
        assert_eq!(parse_length("1h 30m"), Ok(5400));
        assert_eq!(parse_length("90"), Ok(90));
        assert_eq!(parse_length("0s"), Ok(0));
        for wrong in ["", "soon", "-1h", "-5", "1 month"] {
            assert!(parse_length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_have_at_most_two_units() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (61, "1 minute 1 second"),
            (3_600, "1 hour"),
            (3_605, "1 hour"),
            (90_061, "1 day 1 hour"),
            (172_800, "2 days"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
        assert!(in_words(u64::MAX).ends_with("hours"));
    }

    #[test]
    fn intervals_are_never_nothing() {
        assert_eq!(parse_interval("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0s", "-5s", "soon", "1 month"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}

//! Times as people type and read them.

use dt_server::config::read_duration;
use dt_verify::event::Timestamp;

/// Reads a point in time: RFC 3339, or Unix seconds as tokens have them. For `value_parser`.
pub(super) fn parse_instant(text: &str) -> Result<i64, String> {
    let seconds = Timestamp::new(text).unix_seconds().or_else(|| text.parse().ok());
    seconds
        .ok_or_else(|| "not RFC 3339, such as 2026-01-31T12:00:00Z, nor a number of Unix seconds".to_owned())
}

/// Reads a length of time, such as `1h` or `90s`, in seconds. For `value_parser`.
pub(super) fn parse_length(text: &str) -> Result<i64, String> {
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => read_duration(text).and_then(|length| i64::try_from(length.as_secs()).ok()),
    };
    seconds
        .filter(|seconds| *seconds >= 0)
        .ok_or_else(|| "not a length of time, such as 1d, 1h, 15m or 90s".to_owned())
}

/// Says a number of seconds in the one or two units that matter.
pub(super) fn in_words(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (length, unit) in UNITS {
        let count = rest.checked_div(length).unwrap_or(0);
        rest = rest.checked_rem(length).unwrap_or(0);
        match count {
            // "3 days 20 seconds" says more than anyone wants to know.
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
}

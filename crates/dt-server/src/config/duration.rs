//! Durations as people write them: `8s`, `500ms`, `72h`, `1d`.

use std::fmt::Write;
use std::time::Duration;

/// Reads a duration such as `8s`, `500ms`, `1h 30m` or `7d`; a day has 24 hours. `None` for anything else, and for a
/// negative one.
pub fn read_duration(text: &str) -> Option<Duration> {
    // A `Span` knows days and weeks, which a `SignedDuration` does not.
    let span: jiff::Span = text.parse().ok()?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(signed).ok()
}

/// Writes a duration as people write it: `8s`, `1h30m`, `1.5s` as `1500ms`.
pub(crate) fn write_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        // Parts of a second are told in milliseconds together with its whole seconds.
        if duration.subsec_nanos() == 0 { (seconds % 60, "s") } else { (0, "s") },
    ];
    let mut text = String::new();
    for (count, unit) in units.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "{count}{unit}");
    }
    if duration.subsec_nanos() != 0 {
        let part = Duration::new(seconds % 60, duration.subsec_nanos());
        let _ = match u64::from(part.subsec_nanos()) % 1_000_000 {
            0 => write!(text, "{}ms", part.as_millis()),
            _ => write!(text, "{}ns", part.as_nanos()),
        };
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_people_write_them() {
        for (text, millis, written) in [
            ("8s", 8_000, "8s"),
            ("500ms", 500, "500ms"),
            ("1500ms", 1_500, "1500ms"),
            ("72h", 259_200_000, "72h"),
            ("1d", 86_400_000, "24h"),
            ("1d 12h", 129_600_000, "36h"),
            ("2w", 1_209_600_000, "336h"),
            ("90m", 5_400_000, "1h30m"),
            ("0s", 0, "0s"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(read_duration(text), Some(duration), "{text}");
            assert_eq!(write_duration(duration), written, "{text}");
        }
        for text in ["", "5", "-5s", "-1d", "1 month", "1mo", "1y", "soon", "d"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }
}

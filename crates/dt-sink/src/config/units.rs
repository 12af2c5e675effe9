//! Reads and writes durations and sizes in the form for people: `8s`, `500ms`, `72h`, `1d`; `64KiB`. All code that reads them
//! uses these functions.

use std::fmt::Write;
use std::time::Duration;

/// Reads a duration such as `8s`, `500ms`, `1h 30m` or `7d`; a day has 24 hours. Returns `None` for any other text, and for a
/// negative duration.
#[must_use]
pub fn read_duration(text: &str) -> Option<Duration> {
    // A `Span` knows days and weeks, which a `SignedDuration` does not.
    let span: jiff::Span = text.parse().ok()?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(signed).ok()
}

/// Writes a duration in hours, minutes and seconds: `8s`, `1h30m`; with a fraction of a second, in milliseconds: 1.5 s is
/// `1500ms`.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        // Parts of a second are written in milliseconds, together with the whole seconds.
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

/// Reads a size such as `64KiB`, `1MB` or `512`, and returns it in bytes. Returns `None` for any other text.
#[must_use]
pub fn read_size(text: &str) -> Option<u64> {
    text.parse().ok().map(|size: bytesize::ByteSize| size.as_u64())
}

/// Writes a number of bytes in the largest binary unit that divides it: `64KiB`, `0B`.
#[must_use]
pub fn write_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.into_iter().find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    exact.map_or_else(|| format!("{bytes}B"), |(bits, unit)| format!("{}{unit}", bytes >> bits))
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

    #[test]
    fn sizes_are_read_and_written_as_people_write_them() {
        for (bytes, written) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1536B"),
            (64 << 10, "64KiB"),
            (256 << 20, "256MiB"),
            (4 << 30, "4GiB"),
            (16 << 40, "16TiB"),
        ] {
            assert_eq!(write_size(bytes), written);
            assert_eq!(read_size(written), Some(bytes), "{written}");
        }
        assert_eq!(read_size("512"), Some(512));
        for text in ["", "32 apples", "-1", "KiB"] {
            assert_eq!(read_size(text), None, "{text}");
        }
    }
}

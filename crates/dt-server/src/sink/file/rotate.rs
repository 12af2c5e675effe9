//! Determines when a file is closed, and the names of closed files: `events.ndjson` becomes
//! `events.20231114T221320Z-0000.ndjson`, and `….ndjson.gz` after compression.
//!
//! The time (UTC) is when the event that closed the file was received; the number counts closed files within one second.
//! The names therefore sort in the order in which the files were written, unless the clock is set back.

use std::time::Duration;

use super::folder::SinkFolder;
use super::settings::Compression;
use crate::sink::OpenError;
use dt_verify::event::rfc3339_millis;

/// The suffix of a compressed file that is not complete. The next start removes the file.
pub const UNFINISHED: &str = ".tmp";

const COMPRESSIONS: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

/// The rules by which files are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    pub size: Option<u64>,
    pub every: Option<Duration>,
}

impl Rotation {
    /// Returns the start of the period that contains `millis`, in Unix milliseconds; 0 without `rotate_every`.
    pub fn since(self, millis: i64) -> i64 {
        let every = self.every.and_then(|every| i64::try_from(every.as_millis()).ok());
        let Some(every) = every.filter(|every| *every > 0) else { return 0 };
        millis.saturating_sub(millis.checked_rem_euclid(every).unwrap_or(0))
    }

    /// Returns whether a file of `length` bytes, whose period started at `since`, must be closed before `more` bytes of the
    /// period that started at `later` are added. An event of an earlier period does not close the file.
    pub fn is_due(self, length: u64, since: i64, more: usize, later: i64) -> bool {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let full = self.size.is_some_and(|size| length.saturating_add(more) > size);
        length > 0 && (full || (self.every.is_some() && later > since))
    }
}

/// Returns the suffix of files with this compression.
pub const fn suffix(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => ".gz",
        Compression::Zstd => ".zst",
    }
}

/// Returns the first unused name for a closed file: no file has it, compressed or not, and it is not in `planned`.
///
/// # Errors
///
/// [`OpenError`] if the metadata of a path cannot be read.
pub fn free_name(
    folder: &SinkFolder,
    current: &str,
    millis: i64,
    planned: &[&String],
) -> Result<String, OpenError> {
    let mut number = 0_u32;
    loop {
        let name = closed_name(current, millis, number);
        let mut is_taken = planned.contains(&&name);
        for suffix in ["", suffix(Compression::Gzip), suffix(Compression::Zstd)] {
            is_taken = is_taken || folder.about(&folder.root.join(format!("{name}{suffix}")))?.is_some();
        }
        if !is_taken || number == u32::MAX {
            return Ok(name);
        }
        number = number.saturating_add(1);
    }
}

/// Returns the name that a file gets when it is closed.
fn closed_name(current: &str, millis: i64, number: u32) -> String {
    let stamp: String = rfc3339_millis(millis).chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
    let name_at = current.rfind('/').map_or(0, |at| at.saturating_add(1));
    // A leading dot marks a hidden file, not an extension.
    let after_first = name_at.saturating_add(1);
    let dot = current.get(after_first..).and_then(|name| name.rfind('.'));
    let (stem, extension) = current.split_at(dot.map_or(current.len(), |at| after_first.saturating_add(at)));
    format!("{stem}.{stamp}Z-{number:04}{extension}")
}

/// The parts of a closed file's name.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// The name of the file before it was closed.
    pub current: String,
    /// The name of the closed file without the suffixes of compression.
    pub name: String,
    pub compression: Option<Compression>,
    /// Whether the compressed file is incomplete.
    pub unfinished: bool,
}

/// Parses a name that [`closed_name`] returned, with or without suffixes of compression; `None` for any other name.
pub fn read_closed_name(name: &str) -> Option<Closed> {
    let (name, unfinished) = match name.strip_suffix(UNFINISHED) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let compressed =
        COMPRESSIONS.into_iter().find_map(|kind| name.strip_suffix(suffix(kind)).map(|name| (name, kind)));
    let (name, compression) = compressed.map_or((name, None), |(name, kind)| (name, Some(kind)));
    let (stem, last) = name.rsplit_once('.')?;
    let current = if is_stamp(last) {
        stem.to_owned()
    } else {
        let (stem, stamp) = stem.rsplit_once('.').filter(|(_, stamp)| is_stamp(stamp))?;
        let _ = stamp;
        format!("{stem}.{last}")
    };
    Some(Closed { current, name: name.to_owned(), compression, unfinished })
}

fn is_stamp(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split_once('T').and_then(|(date, rest)| Some((date, rest.split_once("Z-")?)));
    parts.is_some_and(|(date, (time, number))| {
        date.len() == 8
            && digits(date)
            && time.len() == 6
            && digits(time)
            && number.len() >= 4
            && digits(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: i64 = 1_700_000_000_123;

    #[test]
    fn names_of_closed_files_are_read_back() {
        for (current, closed) in [
            ("events.ndjson", "events.20231114T221320Z-0007.ndjson"),
            ("events", "events.20231114T221320Z-0007"),
            (".hidden", ".hidden.20231114T221320Z-0007"),
            ("a.b.c", "a.b.20231114T221320Z-0007.c"),
            ("2023.11/a.ndjson", "2023.11/a.20231114T221320Z-0007.ndjson"),
            ("2023.11/a", "2023.11/a.20231114T221320Z-0007"),
        ] {
            assert_eq!(closed_name(current, MILLIS, 7), closed);
            for (suffix, compression) in
                [("", None), (".gz", Some(Compression::Gzip)), (".zst", Some(Compression::Zstd))]
            {
                for (end, unfinished) in [("", false), (UNFINISHED, true)] {
                    let read = read_closed_name(&format!("{closed}{suffix}{end}"));
                    assert_eq!(
                        read,
                        Some(Closed {
                            current: current.to_owned(),
                            name: closed.to_owned(),
                            compression,
                            unfinished
                        })
                    );
                }
            }
        }
        for name in ["events.ndjson", "events", "events.20231114T221320Z-007.ndjson", "2023-11-14.ndjson", ""]
        {
            assert_eq!(read_closed_name(name), None, "{name}");
        }
    }

    #[test]
    fn stretches_begin_at_full_hours_of_utc() {
        let hourly = Rotation { size: None, every: Some(Duration::from_secs(3600)) };
        assert_eq!(hourly.since(MILLIS), 1_699_999_200_000);
        assert_eq!(hourly.since(-1), -3_600_000);
        assert!(hourly.is_due(1, hourly.since(MILLIS), 1, hourly.since(MILLIS + 3_600_000)));
        assert!(!hourly.is_due(1, hourly.since(MILLIS), 1, hourly.since(MILLIS - 3_600_000)));
        assert!(!hourly.is_due(0, 0, 1, hourly.since(MILLIS)));
    }

    #[test]
    fn a_file_is_closed_before_it_is_too_long_and_never_empty() {
        let small = Rotation { size: Some(10), every: None };
        assert!(!small.is_due(5, 0, 5, 0));
        assert!(small.is_due(5, 0, 6, 0));
        assert!(!small.is_due(0, 0, 100, 0));
    }
}

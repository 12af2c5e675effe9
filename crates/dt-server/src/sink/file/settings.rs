//! The settings of the sink `file`: its path, rotation and compression.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::FileSink;
use super::probe::probe;
use crate::sink::{BadPlace, OpenError, Sink, SinkContext, SinkError, SinkSettings};
use dt_sink::config::{Section, config_keys, custom, size, word};
use dt_sink::record::PathTemplate;

/// A day. `rotate_every` must divide it, so that files end at the same times every day.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The shortest `rotate_every`.
const MINUTE: Duration = Duration::from_secs(60);

config_keys! {
    /// The settings of a sink of type `file`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct FileConfig {
        needed {
            /// The file to append to. The folder before the first placeholder must exist; folders below it are
            /// created.
            path: PathTemplate = custom(
                "path with `{date}`, `{hour}`, `{connector}`, `{project}`, `{eventType}`",
                read_path,
            )
            .shown_as(|path| format!("{:?}", path.to_string()))
            .needed(NO_PATH)
            .sample("\"/var/lib/dt-receiver/{date}.ndjson\""),
        }
        /// The largest size of a file; a new one is started before it would be exceeded.
        rotate_size: Option<u64> = size(1 << 10..=1 << 40).or_none("never").sample("\"100MiB\""),
        /// The period of a file, counted from 00:00 UTC; the first event of a later period starts a new file.
        rotate_every: Option<Duration> = custom("duration that divides a day, 1m to 24h", read_rotate_every)
            .or_none("never")
            .sample("\"24h\""),
        /// The compression of closed files; needs `rotate_size` or `rotate_every`.
        compress: Option<Compression> = word(&["gzip", "zstd"])
            .or_none("not")
            .sample("\"gzip\""),
    }
}

/// The error message if the path is missing.
const NO_PATH: &str = "is missing; name the file to append to";

fn read_path(section: &mut Section<'_>, key: &'static str) -> Option<PathTemplate> {
    let text = section.string(key)?;
    if text.is_empty() {
        section.complain(key, NO_PATH);
        return None;
    }
    let wrong = |error| section.complain(key, format!("found \"{}\": {error}", text.escape_debug()));
    text.parse().map_err(wrong).ok()
}

fn read_rotate_every(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    let written = section.shown(key);
    let every = section.duration(key, &(MINUTE..=DAY))?;
    if DAY.as_nanos().checked_rem(every.as_nanos()) == Some(0) {
        return Some(every);
    }
    let expected = "expected a duration that divides a day, such as \"1h\" or \"24h\"";
    section.complain(key, format!("found {written}; {expected}"));
    None
}

impl FileConfig {
    /// Creates settings with this path, without rotation and compression.
    #[must_use]
    pub fn new(path: PathTemplate) -> Self {
        Self::with_defaults(path)
    }
}

impl SinkSettings for FileConfig {
    const NAME: &'static str = "file";
    const PLACE: Option<&'static str> = Some("PATH");
    const ABOUT: &'static str = "Files with one line for each event, outside of the spool's folder. A tool that rotates them must \
        rename them (logrotate: `create`): the next batch goes to a new file. A tool that truncates them (`copytruncate`) \
        loses what is written between its copy and the truncation; the sink logs a warning and continues, and a crash soon \
        after may duplicate lines.";
    const SAMPLE_NAME: &'static str = "archive";

    fn from_place(place: &str) -> Result<Self, BadPlace> {
        place.parse().map(Self::new).map_err(BadPlace::new)
    }

    fn check(&self, section: &Section<'_>) {
        let is_ever_closed = self.rotate_size.is_some() || self.rotate_every.is_some();
        if self.compress.is_some() && !is_ever_closed {
            let text = "needs `rotate_size` or `rotate_every`, since only closed files are compressed";
            section.complain("compress", text);
        }
    }

    fn files(&self) -> Option<&PathTemplate> {
        Some(&self.path)
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(FileSink::with(self.clone(), context.format)))
    }

    fn probe(&self, _: SinkContext) -> Option<Result<String, SinkError>> {
        let needs_folder = self.rotate_size.is_some() || self.rotate_every.is_some();
        Some(probe(&self.path.clone().absolute(), needs_folder).map_err(SinkError::from))
    }
}

/// The method by which closed files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// gzip (RFC 1952), with the suffix `.gz`.
    Gzip,
    /// Zstandard (RFC 8878), with the suffix `.zst`.
    Zstd,
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        match name {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(UnknownCompression),
        }
    }
}

/// The error for a text that is not the name of a compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression; expected gzip, zstd")]
pub struct UnknownCompression;

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

//! A sink's part of the configuration: `[[sink]]`, or `--sink` on the command line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::connector::required_name;
use super::kafka::KafkaConfig;
use super::reader::Section;
use super::source::Sources;
use dt_sink::record::{Format, PathTemplate};

/// A day; `rotate_every` has to divide it, so that files end at the same times every day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkConfig {
    /// Its name, in logs, metrics and `connector.sinks`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SinkKind,
    /// What it writes.
    pub format: Format,
    /// Whether it starts with what the spool still holds when it is new; otherwise with the next event.
    pub from_retained: bool,
}

/// What a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkKind {
    /// The program's standard output.
    Stdout,
    /// Files of one line an event.
    File(FileConfig),
    /// Topics of Kafka.
    Kafka(Box<KafkaConfig>),
}

/// The keys that only some types of sinks have.
const KEYS_OF_KINDS: [&str; 11] = [
    "path",
    "rotate_size",
    "rotate_every",
    "compress",
    "brokers",
    "topic",
    "key",
    "create_topic",
    "tls",
    "sasl",
    "properties",
];

/// What a build without Kafka says.
const NO_KAFKA: &str = "this build has no Kafka; build with the feature `kafka`";

const fn has_kafka() -> bool {
    cfg!(feature = "kafka")
}

/// Where the sink `file` writes, and when it begins a new file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileConfig {
    /// Where the files are.
    pub path: PathTemplate,
    /// A file is closed before it would grow beyond so many bytes.
    pub rotate_size: Option<u64>,
    /// A file is closed when an event comes that was received in a later stretch of this length; it divides a day.
    pub rotate_every: Option<Duration>,
    /// How closed files are compressed.
    pub compress: Option<Compression>,
}

/// How a closed file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// RFC 1952; `.gz`.
    Gzip,
    /// RFC 8878; `.zst`.
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

/// Not the name of a compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression; allowed are gzip, zstd")]
pub struct UnknownCompression;

impl FileConfig {
    /// Files at this path that are never closed.
    #[must_use]
    pub const fn new(path: PathTemplate) -> Self {
        Self { path, rotate_size: None, rotate_every: None, compress: None }
    }

    fn read(section: &mut Section<'_>) -> Option<Self> {
        // Every key is read, whatever is wrong with the others, so that all problems are reported at once.
        let path = section.string("path");
        let mut size = 0;
        section.size_into("rotate_size", 1024..=1 << 40, &mut size);
        let mut every = Duration::ZERO;
        let written = section.shown("rotate_every");
        section.duration_into("rotate_every", Duration::from_secs(60)..=DAY, &mut every);
        if every > Duration::ZERO && DAY.as_nanos().checked_rem(every.as_nanos()) != Some(0) {
            let text = format!(
                "found {written}; allowed is a duration that divides a day, such as \"1h\" or \"24h\""
            );
            section.complain("rotate_every", text);
        }
        let (rotate_size, rotate_every) =
            (u64::try_from(size).ok().filter(|size| *size > 0), Some(every).filter(|every| !every.is_zero()));
        let compress = section.string("compress").and_then(|name| {
            let read = name.parse().ok();
            if read.is_none() {
                section.no_choice("compress", &name, &["gzip", "zstd"]);
            } else if rotate_size.is_none() && rotate_every.is_none() {
                let text = "needs `rotate_size` or `rotate_every`, since only closed files are compressed";
                section.complain("compress", text.to_owned());
            }
            read
        });
        let path = match path.filter(|path| !path.is_empty()) {
            Some(path) => match path.parse::<PathTemplate>() {
                Ok(path) => Some(path),
                Err(error) => {
                    section.complain("path", format!("found \"{}\": {error}", path.escape_debug()));
                    None
                }
            },
            None => {
                section.complain("path", "is missing; name the file to append to".to_owned());
                None
            }
        };
        Some(Self { path: path?, rotate_size, rotate_every, compress })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl SinkConfig {
    /// The sink that is used when none is given.
    #[must_use]
    pub fn stdout() -> Self {
        Self {
            name: Arc::from("stdout"),
            kind: SinkKind::Stdout,
            format: Format::default(),
            from_retained: false,
        }
    }

    /// Reads one. Something that cannot be read is an error, and has a stand-in here, so that all the rest is checked; a
    /// configuration with errors is never used.
    pub(super) fn read(mut section: Section<'_>, sources: &dyn Sources) -> Self {
        let name = required_name(&mut section);
        let mut format = Format::default();
        section.choice_into("format", &["body", "envelope", "cloudevents"], &mut format);
        let kind = match section.string("type").as_deref() {
            Some("stdout") => Some(SinkKind::Stdout),
            Some("file") => FileConfig::read(&mut section).map(SinkKind::File),
            Some("kafka") if has_kafka() => {
                KafkaConfig::read(&mut section, sources).map(|kafka| SinkKind::Kafka(Box::new(kafka)))
            }
            Some("kafka") => {
                section.complain("type", NO_KAFKA.to_owned());
                section.skip(&KEYS_OF_KINDS);
                None
            }
            Some(other) => {
                section.no_choice("type", other, &["stdout", "file", "kafka"]);
                section.skip(&KEYS_OF_KINDS);
                None
            }
            None => {
                if !section.has_errors_at("type") {
                    section.complain("type", "is missing; allowed are stdout, file, kafka".to_owned());
                }
                section.skip(&KEYS_OF_KINDS);
                None
            }
        };
        let from_retained = match section.string("start").as_deref() {
            None | Some("now") => false,
            Some("retained") => true,
            Some(other) => {
                section.no_choice("start", other, &["now", "retained"]);
                false
            }
        };
        section.finish();
        Self { name, kind: kind.unwrap_or(SinkKind::Stdout), format, from_retained }
    }
}

/// Not a sink, in words for the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotASink(String);

impl FromStr for SinkConfig {
    type Err = NotASink;

    /// Reads `stdout`, `file:PATH` or `kafka:HOST:PORT[,HOST:PORT]/TOPIC`.
    fn from_str(text: &str) -> Result<Self, NotASink> {
        match text.split_once(':') {
            None if text == "stdout" => Ok(Self::stdout()),
            Some(("file", path)) if !path.is_empty() => Ok(Self {
                name: Arc::from("file"),
                kind: SinkKind::File(FileConfig::new(
                    path.parse().map_err(|error| NotASink(format!("file:{path}: {error}")))?,
                )),
                format: Format::default(),
                from_retained: false,
            }),
            Some(("kafka", _)) if !has_kafka() => Err(NotASink(NO_KAFKA.to_owned())),
            Some(("kafka", place)) => Ok(Self {
                name: Arc::from("kafka"),
                kind: SinkKind::Kafka(Box::new(
                    KafkaConfig::from_command_line(place)
                        .map_err(|error| NotASink(format!("kafka:{}: {error}", place.escape_debug())))?,
                )),
                format: Format::default(),
                from_retained: false,
            }),
            _ => Err(NotASink(format!(
                "\"{}\" is no sink; allowed are stdout, file:PATH, kafka:HOST:PORT/TOPIC",
                text.escape_debug()
            ))),
        }
    }
}
